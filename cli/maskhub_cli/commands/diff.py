"""``maskhub diff``: how masks differ."""

from __future__ import annotations

import json as json_text
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskhub.errors import ArgumentError
from maskhub.options import Option
from maskhub_cli.command import Call
from maskhub_cli.output import ERROR_STATUS, Cell, Format, Output

if TYPE_CHECKING:
    from maskhub.masks.compare import Diff, Matrix, Overlap


def diff(
    call: Call[Diff | Matrix],
    out: Output,
    *,
    tensors: Annotated[bool, Option("Add a row for each tensor, of two masks.")] = False,
    exit_code: Annotated[
        bool, Option("Status 1 if masks, dense tensors or task differ, 0 if not, 2 on errors.")
    ] = False,
) -> None:
    """--json holds everything; --quiet prints the measure alone.

    Example: maskhub diff a.msk b.msk --tensors --report diff.html
    """
    from maskhub.masks.compare import Diff
    from maskhub.storage.url import public_name

    masks = call.asked["masks"]
    if exit_code:  # an error is not a difference
        out.meta[ERROR_STATUS] = 2
    if tensors and len(masks) > 2:
        raise ArgumentError("--tensors is for two masks", hint="Leave it out; --json has all.")
    result = call("Comparing", unit="tensors")
    files = list(map(public_name, masks))
    written = {what: call.asked[option] for what, option in WRITTEN.items() if call.asked.get(option)}
    if isinstance(result, Diff):
        _show_two(out, result, files, call.asked["measure"], tensors, written)
    else:
        _show_many(out, result, files, written)
    if exit_code and not result.same:
        raise typer.Exit(1)


WRITTEN = {"picture": "plot", "report": "report"}


def _show_two(
    out: Output, diff: Diff, files: Sequence[str], measure: str, tensors: bool, written: Mapping[str, str]
) -> None:
    total = diff.total
    fields: dict[str, str | Sequence[str]] = {
        "A": f"{files[0]} ({diff.ids[0]})",
        "B": f"{files[1]} ({diff.ids[1]})",
        "masked in both": f"{total.weights:,} weights in {len(diff.tensors)} tensors",
        "density": f"{total.density_a:.4f} in A, {total.density_b:.4f} in B",
        "kept by both": f"{total.both:,}",
        "by A alone": f"{total.only_a:,}",
        "by B alone": f"{total.only_b:,}",
        "by neither": f"{total.neither:,}",
        "Hamming distance": f"{total.hamming:,}, {total.differing:.4f} of the weights",
        "Jaccard index": f"{total.jaccard:.4f} of kept weights, {total.jaccard_dropped:.4f} of dropped ones",
        "dissimilarity": f"{total.dissimilarity:.4f}",
        "correlation": "-" if total.correlation is None else f"{total.correlation:.4f}: 0 by chance, 1 if equal",
        "chance": _chance(total),
    }
    if diff.same_start:
        fields["note"] = "both were trained from the same initial mask, which accounts for much of what they share"
    if diff.only_in_a:
        fields["masked in A only"] = diff.only_in_a
    if diff.only_in_b:
        fields["masked in B only"] = diff.only_in_b
    if diff.dense:
        fields["dense tensors"] = [
            f"{d.name}: {d.a or 'none'} in A, {d.b or 'none'} in B"
            + (f", {d.values:,} values differ" if d.values else "")
            for d in diff.dense
        ]
    fields["also different"] = [f"{f.field}: {_value(f.a)} in A, {_value(f.b)} in B" for f in diff.fields]
    tables = [
        [_row("layer", "other" if layer is None else str(layer), counts) for layer, counts in diff.layers.items()],
        [_row("kind", kind, counts) for kind, counts in diff.kinds.items()],
    ]
    if tensors:
        tables.append([_row("tensor", tensor.name, tensor.overlap) for tensor in diff.tensors])
    out.show(
        to_data(diff, files) if out.format is Format.JSON else None,
        quiet=getattr(total, measure),
        title=f"{diff.a} and {diff.b}: {_verdict(diff)}",
        fields={**fields, **written},
        tables=tables,
    )
    if not diff.same_mask:
        a, b = map(shlex.quote, files)
        options = " --head-from a" if diff.dense or diff.other_task else ""
        options += " --missing keep" if diff.only_in_a or diff.only_in_b else ""
        out.hint(f"Next: maskhub compose 'a & b' a={a} b={b}{options} -o both.msk")


def _verdict(diff: Diff) -> str:
    if diff.same:
        return "the same"
    return "the same mask, for another task" if diff.same_mask else "different"


def to_data(diff: Diff, files: Sequence[str]) -> dict[str, Any]:
    """The whole comparison for JSON."""
    import msgspec

    return {
        "a": _side(files[0], diff.a, diff.ids[0]),
        "b": _side(files[1], diff.b, diff.ids[1]),
        "same": diff.same,
        "same_start": diff.same_start,
        "total": diff.total.numbers(),
        "layers": [{"layer": layer, **counts.numbers()} for layer, counts in diff.layers.items()],
        "kinds": [{"kind": kind, **counts.numbers()} for kind, counts in diff.kinds.items()],
        "cells": [{"layer": layer, "kind": kind, **c.numbers()} for (layer, kind), c in diff.cells.items()],
        "tensors": [
            {
                "name": tensor.name,
                "parameter": tensor.parameter,
                "shape": tensor.shape,
                "layer": tensor.layer,
                "kind": tensor.kind,
                **tensor.overlap.numbers(),
            }
            for tensor in diff.tensors
        ],
        "only_in_a": diff.only_in_a,
        "only_in_b": diff.only_in_b,
        "dense": msgspec.to_builtins(diff.dense),
        "fields": msgspec.to_builtins(diff.fields),
    }


def _show_many(out: Output, matrix: Matrix, files: Sequence[str], written: Mapping[str, str]) -> None:
    from maskhub.masks.compare import MEASURES

    measure = MEASURES[matrix.measure]
    values = matrix.rows()
    cells: list[list[Cell]] = [["-" if value is None else value for value in row] for row in values]
    rows = [
        {"": name, **dict(zip(matrix.names, row, strict=True))} for name, row in zip(matrix.names, cells, strict=True)
    ]
    out.show(
        {
            "masks": [_side(*told) for told in zip(files, matrix.names, matrix.ids, strict=True)],
            "measure": measure.name,
            "label": measure.label,
            "unit": measure.unit,
            "tensors": matrix.tensors,
            "weights": matrix.weights,
            "values": values,
        },
        quiet=[" ".join(map(str, row)) for row in cells],
        title=f"{measure.label}{f', in {measure.unit}' if measure.unit else ''}",
        fields={
            "masked in all": f"{matrix.weights:,} weights in {matrix.tensors} tensors",
            "masks": [f"{name}: {file}" for name, file in zip(matrix.names, files, strict=True)],
            **written,
        },
        tables=[rows],
    )
    out.hint("Next: maskhub diff A B, of any two of them")


def _side(file: str, name: str, id: str) -> dict[str, str]:
    return {"name": name, "file": file, "id": id}


def _chance(total: Overlap) -> str:
    expected = f"{total.expected:,.0f} kept by both"
    if total.z is None:
        return f"{expected}; no other number is possible"
    side = "more" if total.z >= 0 else "fewer"
    return f"{expected}, ± {math.sqrt(total.variance):,.0f}; they are {abs(total.z):,.1f} standard deviations {side}"


def _row(what: str, name: str, counts: Overlap) -> Mapping[str, Cell]:
    return {
        what: name,
        "dropped Jaccard": counts.jaccard_dropped,
        "correlation": "-" if counts.correlation is None else counts.correlation,
        "dissimilarity": counts.dissimilarity,
        "z": "-" if counts.z is None else f"{counts.z:+,.1f}",
        "both": counts.both,
        "A alone": counts.only_a,
        "B alone": counts.only_b,
        "neither": counts.neither,
        "expected": round(counts.expected),
        "density A": counts.density_a,
        "density B": counts.density_b,
        "weights": counts.weights,
    }


def _value(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else json_text.dumps(value)
