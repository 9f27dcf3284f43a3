"""``maskhub compose``: a mask from others."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.commands.pack import CODECS, codec_names
from maskhub_cli.options import FormatOption, JsonOption, ParentOption, QuietOption, TokenOption, labels
from maskhub_cli.output import Format, Output


class Operation(StrEnum):
    AND = "and"
    OR = "or"
    XOR = "xor"
    MINUS = "minus"
    NOT = "not"
    VOTE = "vote"


class Missing(StrEnum):
    ERROR = "error"
    KEEP = "keep"
    DROP = "drop"


def compose(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPRESSION NAME=MASK... | --op OP MASK...",
            help="An expression of & | ^ - ~ ( ) and vote(k, a, b, ...), and the masks that it names; or masks alone.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The mask to write.", show_default=False)
    ],
    op: Annotated[
        Operation | None,
        typer.Option("--op", help="One operation over all masks; minus takes the others off the first."),
    ] = None,
    min: Annotated[
        int | None, typer.Option("--min", metavar="K", help="For --op vote: keep what at least K masks keep.")
    ] = None,
    missing: Annotated[
        Missing,
        typer.Option(
            help="A tensor that only some mask: error; keep, a missing mask keeps all of it; drop, it is left unmasked."
        ),
    ] = Missing.ERROR,
    head_from: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The mask whose dense tensors and task the result gets, if they differ."),
    ] = None,
    codec: Annotated[
        str, typer.Option(metavar=CODECS, autocompletion=codec_names, help="Auto takes the smallest for each tensor.")
    ] = "auto",
    parent: ParentOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output file.")] = False,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Combine masks of one base, weight by weight, into a new one.

    Operators bind as in Python: ~ first, then -, &, ^ and |. With --op, masks are named by their files (a.msk is a),
    or as NAME=MASK. The lineage records the expression and the ids of the masks. --quiet prints the mask's path.

    Example: maskhub compose "(a & b) | ~c" a=x.msk b=y.msk c=z.msk -o out.msk
    """
    from maskhub.container.reader import MaskFile
    from maskhub.container.writer import save
    from maskhub.errors import OutputError
    from maskhub.masks import compose as algebra
    from maskhub.masks.summary import summarize, to_data, to_fields
    from maskhub.storage.address import exists
    from maskhub.storage.atomic import claim_file

    out = Output(format, json, quiet)
    if codec.partition(":")[0] not in codec_names():
        raise typer.BadParameter(f"{codec!r} is not one of {', '.join(codec_names())}", param_hint="'--codec'")
    if output.suffix != ".msk":
        raise typer.BadParameter(f"{output} does not end in .msk", param_hint="'--output'")
    if op is None and arguments[0] in list(Operation):
        raise typer.BadParameter(f"{arguments[0]!r} over masks goes with --op", param_hint="'EXPRESSION'")
    masks = named(arguments if op else arguments[1:], all_named=op is None)
    inputs = [*masks.values(), *(parent or ())]
    if same := next((i for i in inputs if output.exists() and exists(i) and output.samefile(i)), None):
        raise OutputError(f"{output}: the output is the input {same}", hint="Name another one with -o.")
    claim_file(output, replace=force)
    files = {name: MaskFile(mask, [i for i in inputs if i != mask], token=token) for name, mask in masks.items()}
    composed = algebra.compose(
        op.value if op else arguments[0],
        {name: file.maskset() for name, file in files.items()},
        min=min,
        missing=missing.value,
        head_from=head_from,
    )
    for file in files.values():
        file.fetch()
    with out.progress("Composing", unit="masks") as progress:
        save(composed, output, codec=codec, progress=progress)
    summary = summarize(MaskFile(output).maskset())
    out.show(to_data(summary), quiet=output, title=str(summary.file), fields=to_fields(summary))
    out.hint(f"Next: maskhub apply {shlex.join([summary.base.name, str(summary.file)])}")


def named(arguments: list[str], *, all_named: bool) -> dict[str, str]:
    """Masks by name, from NAME=MASK or, unless ``all_named``, from the name of the mask's file."""
    from maskhub.masks.expression import NAME, VOTE, WORDS
    from maskhub.storage.url import public_name

    matches = [re.fullmatch(rf"({NAME})=(.+)", argument) for argument in arguments]
    if all_named and (bare := [a for a, match in zip(arguments, matches, strict=True) if not match]):
        raise typer.BadParameter(
            f"{public_name(bare[0])!r} is not NAME=MASK, as in a=x.msk; masks without names go with --op",
            param_hint="'NAME=MASK'",
        )
    masks: dict[str, str] = {}
    unnamed = [argument for argument, match in zip(arguments, matches, strict=True) if not match]
    short = iter(labels(unnamed))
    for argument, match in zip(arguments, matches, strict=True):
        if match:
            name, mask = match.groups()
        else:
            name, mask = re.sub(r"[^A-Za-z0-9_]+", "_", next(short)).strip("_"), argument
            if name[:1].isdigit() or name in (*WORDS, VOTE, ""):
                name = f"_{name}"
        if name in masks:
            raise typer.BadParameter(f"two masks are called {name!r}; name them: NAME=MASK", param_hint="'NAME=MASK'")
        masks[name] = mask
    return masks
