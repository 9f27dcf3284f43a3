"""``maskhub info``: what a mask is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskhub_cli.options import FormatOption, JsonOption, MaskArgument, ParentOption, QuietOption, TokenOption
from maskhub_cli.output import Cell, Format, Output

if TYPE_CHECKING:
    from maskhub.container.summary import MaskSummary


def info(
    mask: MaskArgument,
    parent: ParentOption = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Add a row for each tensor.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw sparsity by layer and matrix: .png, .svg or .pdf.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what a mask is: task, base, size, bits a weight, sparsity, codecs, lineage.

    Reads the header only; 'maskhub verify' checks the rest. --quiet prints the id.

    Example: maskhub info task.msk --tensors --plot task.png
    """
    from maskhub.container.reader import MaskFile
    from maskhub.container.summary import summarize

    out = Output(format, json, quiet)
    if plot:
        from maskhub.pictures.plots import claim_picture

        claim_picture(plot, force=force)
    file = MaskFile(mask, parent or (), token=token)
    summary = summarize(file)
    if plot:
        from maskhub.pictures.plots import save_picture, sparsity_map

        save_picture(sparsity_map(file.maskset().masks, f"Dropped weights of {Path(summary.file).name}"), plot)
    out.show(
        to_data(summary, tensors=tensors),
        quiet=summary.id,
        title=summary.file,
        fields=to_fields(summary) | ({"picture": str(plot)} if plot else {}),
        tables=to_tables(summary) if tensors else [],
    )
    out.hint(f"Next: maskhub apply {shlex.join([summary.base.name, summary.file])}")


def to_data(summary: MaskSummary, *, tensors: bool = False) -> dict[str, Any]:
    """The summary for JSON; without ``tensors`` only totals."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(summary)
    return data if tensors else {key: value for key, value in data.items() if key not in ("masks", "dense")}


def to_fields(summary: MaskSummary) -> dict[str, str | Sequence[str]]:
    """The summary for people."""
    base, task = summary.base, summary.task
    fields: dict[str, str | Sequence[str]] = {"id": summary.id}
    if task:
        fields["task"] = f"{task.type} ({task.architecture})"
    fields["base"] = f"{base.name} ({base.tensors} tensors read)"
    if base.hub:
        fields["base on the Hub"] = f"{base.hub.id}@{base.hub.commit}"
    fields["base root"] = base.root
    fields["file"] = f"{summary.file_bytes:,} bytes, format {summary.version}"
    fields["masked"] = f"{summary.weights:,} weights in {_tensors(len(summary.masks))}"
    fields["dropped"] = f"{summary.dropped:,} weights, sparsity {summary.sparsity:.4f}"
    fields["masks"] = f"{summary.mask_bytes:,} bytes, {summary.bits_per_weight:.4f} bits a weight"
    fields["Shannon bound"] = f"{summary.shannon_bound:.4f} bits a weight"
    fields["codecs"] = ", ".join(f"{name} ({count})" for name, count in summary.codecs.items())
    if summary.chain:
        fields["coded against"] = [f"{id} ({file or 'not at hand'})" for id, file in summary.chain]
    fields["dense"] = f"{_tensors(summary.dense_tensors)}, {summary.dense_bytes:,} bytes"
    fields["metrics"] = [f"{name} {value:.4f}" for name, value in summary.metrics.items()]
    fields["lineage"] = _flat(summary.lineage)
    return fields


def to_tables(summary: MaskSummary) -> list[list[dict[str, Cell]]]:
    """A row for each masked tensor, and one for each dense one."""
    masks: list[dict[str, Cell]] = [
        {
            "masked tensor": row.name,
            "shape": _shape(row.shape),
            "dropped": row.dropped,
            "sparsity": row.sparsity,
            "codec": row.codec,
            "bytes": row.bytes,
            "bits/weight": row.bits_per_weight,
            "bound": row.shannon_bound,
        }
        for row in summary.masks
    ]
    dense: list[dict[str, Cell]] = [
        {"dense tensor": row.name, "shape": _shape(row.shape), "dtype": row.dtype, "bytes": row.bytes}
        for row in summary.dense
    ]
    return [masks, dense]


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested mappings as lines: ``settings.epochs 3``."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key} {value if isinstance(value, str) else json.dumps(value)}")
    return lines
