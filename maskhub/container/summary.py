"""What a ``.msk`` file holds, in numbers: read from its manifest and header, without decoding a payload."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from maskhub.container.manifest import DenseEntry, MaskEntry
from maskhub.container.reader import MaskFile
from maskhub.masks.binding import HubRevision, Task


@dataclass(frozen=True)
class MaskRow:
    """One masked tensor. ``parameter`` is the task model's name of it, ``bytes`` its payload's size."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    weights: int
    dropped: int
    sparsity: float
    codec: str
    bytes: int
    bits_per_weight: float
    shannon_bound: float


@dataclass(frozen=True)
class DenseRow:
    """One tensor stored whole, by the task model's parameter name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class BaseSummary:
    """The base that the mask belongs to; ``tensors`` is how many of its tensors the masked model reads."""

    name: str
    root: str
    tensors: int
    hub: HubRevision | None


@dataclass(frozen=True)
class MaskSummary:
    """A ``.msk`` file as a whole.

    ``weights`` counts masked weights, ``sparsity`` is the share of them dropped, and ``bits_per_weight`` is what
    their payloads cost. ``shannon_bound`` is the least, in bits a weight, that a code needs which knows only how
    many weights each tensor drops; one that knows more of a mask, or a mask with structure, can be below it.
    ``chain`` holds the ids of the masks it is coded against, and the file of each that is at hand.
    """

    file: str
    file_bytes: int
    version: str
    id: str
    task: Task | None
    base: BaseSummary
    weights: int
    dropped: int
    sparsity: float
    mask_bytes: int
    bits_per_weight: float
    shannon_bound: float
    codecs: dict[str, int]
    chain: tuple[tuple[str, str | None], ...]
    dense_tensors: int
    dense_bytes: int
    metrics: dict[str, float]
    lineage: dict[str, Any]
    masks: tuple[MaskRow, ...]
    dense: tuple[DenseRow, ...]


def summarize(file: MaskFile) -> MaskSummary:
    """Summarize an opened mask file."""
    manifest = file.manifest
    masks = tuple(_mask_row(file, name, entry) for name, entry in sorted(manifest.masks.items()))
    dense = tuple(_dense_row(file, name, entry) for name, entry in sorted(manifest.dense.items()))
    weights = sum(row.weights for row in masks)
    dropped = sum(row.dropped for row in masks)
    mask_bytes = sum(row.bytes for row in masks)
    base = manifest.base
    return MaskSummary(
        file=str(file.path),
        file_bytes=file.file_size,
        version=manifest.version,
        id=manifest.id,
        task=manifest.task,
        base=BaseSummary(base.name, base.root, len(base.tensors), base.hub),
        weights=weights,
        dropped=dropped,
        sparsity=_share(dropped, weights),
        mask_bytes=mask_bytes,
        bits_per_weight=_share(8 * mask_bytes, weights),
        shannon_bound=_share(sum(row.shannon_bound * row.weights for row in masks), weights),
        codecs=dict(sorted(Counter(row.codec for row in masks).items())),
        chain=tuple(file.chain()),
        dense_tensors=len(dense),
        dense_bytes=sum(row.bytes for row in dense),
        metrics=manifest.metrics,
        lineage=manifest.lineage,
        masks=masks,
        dense=dense,
    )


def entropy(sparsity: float) -> float:
    """Shannon entropy, in bits, of one weight's bit where this share of weights is dropped (or kept)."""
    return -sum(p * math.log2(p) for p in (sparsity, 1 - sparsity) if p > 0) + 0.0


def _mask_row(file: MaskFile, name: str, entry: MaskEntry) -> MaskRow:
    weights = math.prod(entry.shape)
    dropped = weights - entry.kept
    sparsity = _share(dropped, weights)
    size = file.payload_size(name)
    return MaskRow(
        name=name,
        parameter=file.manifest.base.parameter(name),
        shape=entry.shape,
        weights=weights,
        dropped=dropped,
        sparsity=sparsity,
        codec=str(entry.codec["name"]),
        bytes=size,
        bits_per_weight=_share(8 * size, weights),
        shannon_bound=entropy(sparsity),
    )


def _dense_row(file: MaskFile, name: str, entry: DenseEntry) -> DenseRow:
    return DenseRow(name, entry.dtype, entry.shape, file.payload_size(name))


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
