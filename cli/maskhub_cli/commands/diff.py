"""``maskhub diff``: how masks differ."""

from __future__ import annotations

import json as json_text
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskhub_cli.options import (
    ERROR_STATUS,
    FormatOption,
    JsonOption,
    ParentOption,
    QuietOption,
    TokenOption,
)
from maskhub_cli.output import Cell, Format, Output

if TYPE_CHECKING:
    from maskhub.container.reader import MaskFile
    from maskhub.masks.compare import Diff, Matrix, Overlap


def _measures() -> list[str]:
    from maskhub.masks.compare import MEASURES

    return list(MEASURES)


def diff(
    context: typer.Context,
    masks: Annotated[
        list[str],
        typer.Argument(metavar="A B [C...]", help="Two masks of one base, or more: files or URLs.", show_default=False),
    ],
    measure: Annotated[
        str,
        typer.Option(
            metavar="dissimilarity|hamming|differing|jaccard|jaccard_dropped|z",
            autocompletion=_measures,
            help="What the matrix of more than two masks, the picture and --quiet show.",
        ),
    ] = "dissimilarity",
    tensors: Annotated[bool, typer.Option("--tensors", help="Add a row for each tensor, of two masks.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the measure by layer and matrix, or mask by mask: .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all of it as one page, with pictures: .html.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture or report.")] = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Status 1 if masks, dense tensors or task differ, 0 if not, 2 on errors."),
    ] = False,
    parent: ParentOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show how masks differ, in total, by layer and by kind of matrix, and what chance would give.

    Kept weights are counted over the tensors that all of the masks have. Of two masks, all else that differs is listed,
    too; more than two give a matrix of one measure. --json holds everything; --quiet prints the measure alone.

    Example: maskhub diff a.msk b.msk --tensors --report diff.html
    """
    from maskhub.container.reader import MaskFile
    from maskhub.masks import compare
    from maskhub.storage.address import distinct_names

    out = Output(format, json, quiet)
    if exit_code:  # an error is not a difference
        context.meta[ERROR_STATUS] = 2
    if len(masks) < 2:
        raise typer.BadParameter("at least two masks are compared", param_hint="'A B [C...]'")
    if tensors and len(masks) > 2:
        raise typer.BadParameter("is for two masks", param_hint="'--tensors'")
    if measure not in compare.MEASURES:
        raise typer.BadParameter(f"{measure!r} is not one of {', '.join(compare.MEASURES)}", param_hint="'--measure'")
    if plot:
        from maskhub.pictures.plots import claim_picture

        claim_picture(plot, force=force)
    if report:
        from maskhub.pictures.report import claim_report

        claim_report(report, force=force)
    files = [MaskFile(m, [*(parent or ()), *(other for other in masks if other != m)], token=token) for m in masks]
    if len({file.manifest.id for file in files}) > 1:  # else nothing is decoded
        for file in files:
            file.fetch()
    names = distinct_names(masks)
    sets = [file.maskset() for file in files]
    with out.progress("Comparing", unit="tensors") as progress:
        if len(files) == 2:
            result = compare.diff(sets[0], sets[1], (names[0], names[1]), progress)
        else:
            table = compare.matrix(dict(zip(names, sets, strict=True)), measure, progress=progress)
    written = {}
    if plot:
        from maskhub.pictures import plots

        heat_map = plots.diff_map(result, measure) if len(files) == 2 else plots.matrix_map(table)
        plots.save_picture(heat_map, plot)
        written["picture"] = str(plot)
    if report:
        from maskhub.pictures.report import save_report

        save_report(result if len(files) == 2 else table, sets, report, measure)
        written["report"] = str(report)
    if len(files) == 2:
        same = result.same
        _show_two(out, result, files, measure, tensors, written)
    else:
        same = all((f.manifest.id, f.manifest.task) == (files[0].manifest.id, files[0].manifest.task) for f in files)
        _show_many(out, table, files, written)
    if exit_code and not same:
        raise typer.Exit(1)


def _show_two(
    out: Output, diff: Diff, files: Sequence[MaskFile], measure: str, tensors: bool, written: Mapping[str, str]
) -> None:
    total = diff.total
    fields: dict[str, str | Sequence[str]] = {
        "A": f"{files[0].path} ({files[0].manifest.id})",
        "B": f"{files[1].path} ({files[1].manifest.id})",
        "masked in both": f"{total.weights:,} weights in {len(diff.tensors)} tensors",
        "density": f"{total.density_a:.4f} in A, {total.density_b:.4f} in B",
        "kept by both": f"{total.both:,}",
        "by A alone": f"{total.only_a:,}",
        "by B alone": f"{total.only_b:,}",
        "by neither": f"{total.neither:,}",
        "Hamming distance": f"{total.hamming:,}, {total.differing:.4f} of the weights",
        "Jaccard index": f"{total.jaccard:.4f} of kept weights, {total.jaccard_dropped:.4f} of dropped ones",
        "dissimilarity": f"{total.dissimilarity:.4f}",
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
        [_row("layer", "outside" if layer is None else str(layer), counts) for layer, counts in diff.layers.items()],
        [_row("kind", kind, counts) for kind, counts in diff.kinds.items()],
    ]
    if tensors:
        tables.append([_row("tensor", tensor.name, tensor.overlap) for tensor in diff.tensors])
    out.show(
        to_data(diff, files) if out.format is Format.JSON else None,
        quiet=getattr(total, measure),
        title=f"{diff.a} and {diff.b}: {'the same' if diff.same else 'different'}",
        fields={**fields, **written},
        tables=tables,
    )
    if not diff.same:
        a, b = (shlex.quote(str(file.path)) for file in files)
        options = " --head-from a" if diff.dense or diff.other_task else ""
        options += " --missing keep" if diff.only_in_a or diff.only_in_b else ""
        out.hint(f"Next: maskhub compose 'a & b' a={a} b={b}{options} -o both.msk")


def to_data(diff: Diff, files: Sequence[MaskFile]) -> dict[str, Any]:
    """The whole comparison for JSON."""
    import msgspec

    return {
        "a": _side(files[0], diff.a),
        "b": _side(files[1], diff.b),
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


def _show_many(out: Output, matrix: Matrix, files: Sequence[MaskFile], written: Mapping[str, str]) -> None:
    from maskhub.masks.compare import MEASURES

    measure = MEASURES[matrix.measure]
    values = matrix.rows()
    cells: list[list[Cell]] = [["-" if value is None else value for value in row] for row in values]
    rows = [
        {"": name, **dict(zip(matrix.names, row, strict=True))} for name, row in zip(matrix.names, cells, strict=True)
    ]
    out.show(
        {
            "masks": [_side(file, name) for file, name in zip(files, matrix.names, strict=True)],
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
            "masks": [f"{name}: {file.path}" for name, file in zip(matrix.names, files, strict=True)],
            **written,
        },
        tables=[rows],
    )
    out.hint("Next: maskhub diff A B, of any two of them")


def _side(file: MaskFile, name: str) -> dict[str, str]:
    return {"name": name, "file": str(file.path), "id": file.manifest.id}


def _chance(total: Overlap) -> str:
    expected = f"{total.expected:,.0f} kept by both"
    if total.z is None:
        return f"{expected}; no other number is possible"
    side = "more" if total.z >= 0 else "fewer"
    return f"{expected}, ± {math.sqrt(total.variance):,.0f}; they are {abs(total.z):,.1f} standard deviations {side}"


def _row(what: str, name: str, counts: Overlap) -> Mapping[str, Cell]:
    return {
        what: name,
        "weights": counts.weights,
        "density A": counts.density_a,
        "density B": counts.density_b,
        "both": counts.both,
        "A alone": counts.only_a,
        "B alone": counts.only_b,
        "neither": counts.neither,
        "Jaccard": counts.jaccard,
        "dissimilarity": counts.dissimilarity,
        "expected": round(counts.expected),
        "z": "-" if counts.z is None else f"{counts.z:+,.1f}",
    }


def _value(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else json_text.dumps(value)
