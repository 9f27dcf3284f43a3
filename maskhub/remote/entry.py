"""What travels between a remote and its users: masks as lists show them, and what a push or pull came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from maskhub.masks.summary import MaskSummary


@dataclass(frozen=True)
class Entry:
    """A mask on a remote, as cards and indexes keep it. ``name`` is its file's, ``id`` that of its content."""

    name: str
    id: str
    base: str
    root: str
    bytes: int
    weights: int
    sparsity: float
    bits_per_weight: float
    task: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, summary: MaskSummary, name: str) -> Entry:
        """The entry of a mask set that is in a file."""
        assert summary.file_bytes is not None
        assert summary.bits_per_weight is not None
        return cls(
            name=name,
            id=summary.id,
            base=summary.base.hub.id if summary.base.hub else summary.base.name,
            root=summary.base.root,
            bytes=summary.file_bytes,
            weights=summary.weights,
            sparsity=round(summary.sparsity, 6),
            bits_per_weight=round(summary.bits_per_weight, 6),
            task=summary.task.type if summary.task else None,
            metrics=summary.metrics,
        )


@dataclass(frozen=True)
class Listed:
    """A mask and where it is: ``address`` is what every command takes. ``problem`` says why there is no ``entry``."""

    address: str
    entry: Entry | None
    updated: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Pushed:
    """A mask that was pushed to ``address``; ``changed`` is false where it was there already.

    ``warning`` says what others will miss: a base that they cannot find.
    """

    address: str
    url: str
    id: str
    changed: bool
    warning: str | None = None


@dataclass(frozen=True)
class Fetched:
    """A mask's file here, not yet checked. ``address`` names it in full, with the revision where there is one.

    ``signature`` is None where there is none, or none was asked for.
    """

    path: Path
    address: str
    signature: bytes | None = None


@dataclass(frozen=True)
class Pulled:
    """A checked mask at ``path``, from ``address``. ``base`` says how its fit to a base was checked, if it was."""

    path: Path
    address: str
    id: str
    bytes: int
    base: str | None = None
