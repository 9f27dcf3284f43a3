"""``maskhub evaluate``: the metrics of a mask, or of several together, on a file of examples."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhub_cli.options import (
    BASE_HELP,
    FormatOption,
    JsonOption,
    ParentOption,
    QuietOption,
    RevisionOption,
    TokenOption,
)
from maskhub_cli.output import Format, Output


def evaluate(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    masks: Annotated[
        list[str],
        typer.Argument(metavar="MASK...", help="The mask, or several: .msk files or URLs.", show_default=False),
    ],
    file: Annotated[
        str, typer.Option("--file", metavar="FILE", help="CSV, TSV, JSON lines or Parquet; a folder of images.")
    ],
    ensemble: Annotated[
        str | None,
        typer.Option(metavar="logits|probs|vote", help="Put several masks' answers together; else a row for each."),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Text, tokens, prompt or image. Default: found by the usual names.",
            show_default=False,
        ),
    ] = None,
    pair_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="The second text, or the choices.")] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Each example's class, tags, right choice or number.")
    ] = None,
    parent: ParentOption = None,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a mask's task model on labelled examples.

    The examples are read as the mask's task needs them. --quiet prints the task's first metric, such as the accuracy.

    Example: maskhub evaluate user/base task.msk --file test.csv
    """
    from maskhub import tasks
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container.reader import open_mask
    from maskhub.storage.url import public_name
    from maskhub.tasks.data import read_file
    from maskhub.tasks.examples import Columns

    out = Output(format, json, quiet)
    masksets = [open_mask(mask, parent or (), whole=True, token=token) for mask in masks]
    kind = tasks.of_mask(masksets[0].task)
    examples = read_file(file, Columns(text_column, pair_column, label_column), kind.name)
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    from maskhub.runtime.evaluate import evaluate as measure

    names = [public_name(mask) for mask in masks]
    about = {"file": file, "examples": len(examples)}
    where = f"on {len(examples):,} examples of {file}"
    with out.progress("Evaluating", unit="examples") as progress:
        metrics = measure(checkpoint, masksets, examples, ensemble=ensemble, progress=progress)
    shown = [{name.replace("_", " "): f"{value:.4f}" for name, value in found.items()} for found in metrics]
    first = [next(iter(found.values())) for found in metrics]
    if len(metrics) == 1:
        which = {"mask": masksets[0].id} if ensemble is None else {"masks": [m.id for m in masksets]}
        way = {} if ensemble is None else {"ensemble": ensemble}
        title = names[0] if ensemble is None else f"{len(masks)} masks together by {ensemble}"
        data = which | way | about | {"metrics": metrics[0]}
        out.show(data, quiet=first[0], title=f"{title} {where}", fields=shown[0])
    elif out.format is Format.QUIET:
        for value in first:
            out.show(None, quiet=value)
    else:
        out.show(
            [{"mask": m.id, **about, "metrics": found} for m, found in zip(masksets, metrics, strict=True)],
            quiet="",
            title=f"{len(masks)} masks {where}",
            tables=[[{"mask": name, **row} for name, row in zip(names, shown, strict=True)]],
        )
