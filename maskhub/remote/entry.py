"""What travels between a remote and its users: masks as lists show them, and what a push or pull came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from maskhub.container.reader import MaskFile
from maskhub.errors import FormatError, IntegrityError, MissingError, RemoteError
from maskhub.masks.binding import Digest
from maskhub.masks.summary import MaskSummary
from maskhub.text import printable

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]


@dataclass(frozen=True)
class Entry:
    """A mask on a remote, as cards and indexes keep it. ``name`` is its file's, ``id`` that of its content.

    What does not print in its texts is escaped, as cards are for people.
    """

    name: str
    id: Digest
    base: str
    root: Digest
    bytes: Count
    weights: Count
    sparsity: float
    bits_per_weight: float
    task: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        task = self.task and printable(self.task)
        metrics = {printable(name): value for name, value in self.metrics.items()}
        self.__dict__.update(base=printable(self.base), task=task, metrics=metrics)

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


def claim_name(file: MaskFile, there: Callable[[], MaskFile], address: str) -> None:
    """RemoteError where what is ``there`` under the name that ``file`` is to have is something else.

    The same mask coded anew may take its place: nothing is lost with it. One with another task, or other metrics, may
    not, though its id be the same.
    """
    mine = file.maskset()
    try:
        found = there()
    except MissingError:
        what = "a mask that is gone"
    except (FormatError, IntegrityError):
        what = "what is no mask"
    else:
        other = found.maskset()
        differ = mine.told_otherwise(other)
        differ += ["parent"] if found.manifest.parent != file.manifest.parent else []  # others may not have it
        if other.id == mine.id and not differ:
            return
        same = f"the same weights with other notes ({', '.join(differ)})"
        what = same if other.id == mine.id else f"another mask, {other.id[:16]}"
    raise RemoteError(
        f"{address}: the name is taken by {what}", hint="Take another name with --name, or replace it with --force."
    )
