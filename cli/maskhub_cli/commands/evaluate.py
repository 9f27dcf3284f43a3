"""``maskhub evaluate``: the metric of a mask on a file of examples."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhub_cli.options import (
    BASE_HELP,
    FormatOption,
    JsonOption,
    MaskArgument,
    ParentOption,
    QuietOption,
    RevisionOption,
    TokenOption,
)
from maskhub_cli.output import Format, Output


def evaluate(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    mask: MaskArgument,
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="CSV, TSV, JSON lines or Parquet.")],
    text_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Default: found by the usual names.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="The second text.")] = None,
    label_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="The class of each example.")] = None,
    parent: ParentOption = None,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a mask's task model on labelled examples.

    --quiet prints the accuracy.

    Example: maskhub evaluate user/base task.msk --file test.csv
    """
    from maskhub.checkpoint import open_checkpoint
    from maskhub.container.reader import open_mask
    from maskhub.data import Columns, read_file
    from maskhub.source import public_name

    out = Output(format, json, quiet)
    maskset = open_mask(mask, parent or (), whole=True)
    examples = read_file(file, Columns(text_column, pair_column, label_column))
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    from maskhub.runtime.evaluate import evaluate as measure

    with out.progress("Evaluating", unit="examples") as progress:
        metrics = measure(checkpoint, maskset, examples, progress=progress)
    out.show(
        {"mask": maskset.id, "file": file, "examples": len(examples), "metrics": metrics},
        quiet=metrics["accuracy"],
        title=f"{public_name(mask)} on {len(examples):,} examples of {file}",
        fields={name.replace("_", " "): f"{value:.4f}" for name, value in metrics.items()},
    )
