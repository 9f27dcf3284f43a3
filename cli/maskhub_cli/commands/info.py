"""``maskhub info``: what a mask is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.options import FormatOption, JsonOption, MaskArgument, ParentOption, QuietOption, TokenOption
from maskhub_cli.output import Format, Output


def info(
    mask: MaskArgument,
    parent: ParentOption = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Add a row for each tensor.")] = False,
    all: Annotated[bool, typer.Option("--all", help="Show all settings, metrics and numbers.")] = False,
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
    from maskhub.container.reader import open_mask
    from maskhub.masks.summary import to_data, to_fields, to_tables

    out = Output(format, json, quiet)
    if plot:
        from maskhub.pictures.plots import claim_picture

        claim_picture(plot, replace=force)
    maskset = open_mask(mask, parent or (), token=token)
    summary = maskset.summary()
    if plot:
        from maskhub.pictures.plots import save_picture, sparsity_map

        save_picture(sparsity_map(maskset.masks, f"Dropped weights of {Path(str(summary.file)).name}"), plot)
    out.show(
        to_data(summary, tensors=tensors),
        quiet=summary.id,
        title=str(summary.file),
        fields=to_fields(summary, all=all) | ({"picture": str(plot)} if plot else {}),
        tables=to_tables(summary) if tensors else [],
    )
    out.hint(f"Next: maskhub apply {shlex.join([summary.base.name, str(summary.file)])}")
