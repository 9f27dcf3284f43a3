"""A mask set in numbers, and the one text of them, for terminals and notebooks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from maskhub.masks.binding import HubRevision, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.address import distinct_names
from maskhub.text import printable

METRICS, LINEAGE, CHAIN = 4, 8, 2  # lines of each that fit one screen with all the rest
# What of a training run one wants to know first.
SETTINGS = {
    "data.train", "data.train_examples", "settings.recipe", "settings.epochs", "settings.batch_size", "settings.seed",
}  # fmt: skip


@dataclass(frozen=True)
class MaskRow:
    """One masked tensor. ``parameter`` is the task model's name of it, ``bytes`` its payload's size.

    ``codec``, ``bytes`` and ``bits_per_weight`` are None for a mask that is in no file.
    """

    name: str
    parameter: str
    shape: tuple[int, ...]
    weights: int
    dropped: int
    sparsity: float
    codec: str | None
    bytes: int | None
    bits_per_weight: float | None
    entropy: float


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
    """A mask set as a whole.

    ``weights`` counts masked weights, ``sparsity`` is the share of them dropped, and ``bits_per_weight`` is what
    their payloads cost. ``entropy`` is the least, in bits a weight, that a code needs which knows only how many
    weights each tensor drops; one that knows where the mask's training began can be far below it. ``chain`` holds the
    ids of the masks that the file is coded against, and the file of each that is at hand.

    ``file``, its size, version and manifest, and what payloads cost are None for a mask set that is in no file.
    """

    file: str | None
    file_bytes: int | None
    version: str | None
    id: str
    task: Task | None
    base: BaseSummary
    weights: int
    dropped: int
    sparsity: float
    mask_bytes: int | None
    bits_per_weight: float | None
    entropy: float
    codecs: dict[str, int]
    chain: tuple[tuple[str, str | None], ...]
    dense_tensors: int
    dense_bytes: int
    metrics: dict[str, float]
    lineage: dict[str, Any]
    masks: tuple[MaskRow, ...]
    dense: tuple[DenseRow, ...]
    manifest: dict[str, Any] | None


def summarize(maskset: MaskSet) -> MaskSummary:
    """Summarize a mask set. Of one that was opened from a file nothing is decoded."""
    base, stored = maskset.base, maskset.stored
    masks = tuple(_mask_row(maskset, name, mask) for name, mask in sorted(maskset.items()))
    dense = tuple(DenseRow(name, t.dtype, t.shape, t.nbytes) for name, t in sorted(maskset.dense.items()))
    weights = sum(row.weights for row in masks)
    dropped = sum(row.dropped for row in masks)
    mask_bytes = sum(row.bytes or 0 for row in masks)
    return MaskSummary(
        file=stored.path if stored else None,
        file_bytes=stored.bytes if stored else None,
        version=stored.version if stored else None,
        id=maskset.id,
        task=maskset.task,
        base=BaseSummary(base.name, base.root, len(base.tensors), base.hub),
        weights=weights,
        dropped=dropped,
        sparsity=_share(dropped, weights),
        mask_bytes=mask_bytes if stored else None,
        bits_per_weight=_share(8 * mask_bytes, weights) if stored else None,
        entropy=_share(sum(row.entropy * row.weights for row in masks), weights),
        codecs=dict(sorted(Counter(row.codec for row in masks if row.codec).items())),
        chain=tuple(stored.chain()) if stored else (),
        dense_tensors=len(dense),
        dense_bytes=sum(row.bytes for row in dense),
        metrics=maskset.metrics,
        lineage=maskset.lineage,
        masks=masks,
        dense=dense,
        manifest=json.loads(stored.manifest) if stored else None,
    )


def to_data(summary: MaskSummary, *, tensors: bool = False) -> dict[str, Any]:
    """The summary for JSON; without ``tensors`` only totals."""
    data: dict[str, Any] = msgspec.to_builtins(summary)
    left_out = {"manifest"} if tensors else {"manifest", "masks", "dense"}
    return {key: value for key, value in data.items() if key not in left_out}


def to_fields(summary: MaskSummary, *, all: bool = False) -> dict[str, str | Sequence[str]]:
    """The summary for people: labels, and a line or several for each. One screen, unless ``all`` is asked for."""
    base, task = summary.base, summary.task
    fields: dict[str, str | Sequence[str]] = {"id": summary.id}
    if task:
        fields["task"] = f"{task.type} ({task.architecture})"
    fields["base"] = f"{base.name} ({_tensors(base.tensors)} read)"
    if base.hub:
        fields["base on the Hub"] = f"{base.hub.id}@{base.hub.commit}"
    fields["base root"] = base.root
    if summary.file_bytes is not None:
        fields["file"] = f"{summary.file_bytes:,} bytes, format {summary.version}"
    fields["masked"] = f"{summary.weights:,} weights in {_tensors(len(summary.masks))}"
    fields["dropped"] = f"{summary.dropped:,} weights, sparsity {summary.sparsity:.4f}"
    if summary.mask_bytes is not None:
        fields["masks"] = f"{summary.mask_bytes:,} bytes, {summary.bits_per_weight:.4f} bits a weight"
    if all:
        fields["entropy"] = f"{summary.entropy:.4f} bits a weight, for who does not know where training began"
    if summary.codecs:
        fields["codecs"] = ", ".join(f"{name} ({count})" for name, count in summary.codecs.items())
    chain = [f"{id} ({file or 'not at hand'})" for id, file in summary.chain]
    metrics = [f"{name} {value:.4f}" for name, value in summary.metrics.items()]
    lineage = dict(_flat(summary.lineage))
    first = [key for key in lineage if "." not in key or key.startswith("parents.") or key in SETTINGS]
    first.sort(key=lambda key: "." in key)
    fields["coded against"] = _some(chain, chain[:CHAIN], all)
    fields["dense"] = f"{_tensors(summary.dense_tensors)}, {summary.dense_bytes:,} bytes"
    fields["metrics"] = _some(metrics, metrics[:METRICS], all)
    lines = {key: f"{key} {value}" for key, value in lineage.items()}
    fields["lineage"] = _some([*lines.values()], [lines[key] for key in first[:LINEAGE]], all)
    return fields


def to_tables(summary: MaskSummary) -> list[list[dict[str, str | int | float]]]:
    """A row for each masked tensor, and one for each dense one."""
    masks = [
        {
            "masked tensor": row.name,
            "shape": _shape(row.shape),
            "dropped": row.dropped,
            "sparsity": row.sparsity,
            "codec": row.codec,
            "bytes": row.bytes,
            "bits/weight": row.bits_per_weight,
            "entropy": row.entropy,
        }
        for row in summary.masks
    ]
    dense: list[dict[str, str | int | float]] = [
        {"dense tensor": row.name, "shape": _shape(row.shape), "dtype": row.dtype, "bytes": row.bytes}
        for row in summary.dense
    ]
    return [[{key: cell for key, cell in row.items() if cell is not None} for row in masks], dense]


def to_rows(summaries: Sequence[MaskSummary]) -> list[dict[str, str | int | float]]:
    """A row for each of several masks."""
    named = distinct_names([summary.file or f"mask {i}" for i, summary in enumerate(summaries, 1)])
    return [
        {
            "mask": name,
            "task": summary.task.type if summary.task else "-",
            "bytes": "-" if summary.file_bytes is None else summary.file_bytes,
            "bits/weight": "-" if summary.bits_per_weight is None else summary.bits_per_weight,
            "sparsity": summary.sparsity,
            "metric": next((f"{name} {value:.4f}" for name, value in summary.metrics.items()), "-"),
        }
        for name, summary in zip(named, summaries, strict=True)
    ]


def to_html(summary: MaskSummary) -> str:
    """The text of ``to_fields`` as a table."""
    from html import escape

    def shown(text: str) -> str:
        return escape(printable(text))

    rows = [
        f'<tr><th style="text-align: left">{shown(label)}</th><td style="text-align: left">'
        f"{'<br>'.join(map(shown, [value] if isinstance(value, str) else value))}</td></tr>"
        for label, value in to_fields(summary).items()
        if value
    ]
    return f"<table><caption>{shown(summary.file or 'mask set')}</caption>{''.join(rows)}</table>"


def entropy(sparsity: float) -> float:
    """Shannon entropy, in bits, of one weight's bit where this share of weights is dropped (or kept)."""
    return -sum(p * math.log2(p) for p in (sparsity, 1 - sparsity) if p > 0) + 0.0


def _mask_row(maskset: MaskSet, name: str, mask: Mask) -> MaskRow:
    dropped = mask.size - mask.kept
    stored = maskset.stored
    size = stored.sizes[name] if stored else None
    return MaskRow(
        name=name,
        parameter=maskset.base.parameter(name),
        shape=mask.shape,
        weights=mask.size,
        dropped=dropped,
        sparsity=_share(dropped, mask.size),
        codec=stored.codecs[name] if stored else None,
        bytes=size,
        bits_per_weight=None if size is None else _share(8 * size, mask.size),
        entropy=entropy(_share(dropped, mask.size)),
    )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _some(lines: list[str], first: list[str], all: bool) -> list[str]:
    """The first lines, and how many there are besides; all where that says no less."""
    more = len(lines) - len(first)
    return lines if all or more <= 1 else [*first, f"... {more} more: --all"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as keys and text: ``settings.epochs``, ``3``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
