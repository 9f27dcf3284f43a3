"""``maskhub extract``: the mask of a dense checkpoint, which is what ``pack`` does, asked the way ``apply`` is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.commands.pack import pack
from maskhub_cli.options import BASE_HELP, FormatOption, JsonOption, QuietOption, RevisionOption, TokenOption
from maskhub_cli.output import Format


def extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    dense: Annotated[
        str, typer.Argument(metavar="DENSE", help="What was built, or pruned, from it.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The mask to write; DENSE's name with .msk, here, if left."
        ),
    ] = None,
    base_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Record the base under this name, its Hub id if it has one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output file.")] = False,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recover the mask of a dense checkpoint: apply, undone.

    The id is that of the mask it was built from, unless a weight that it drops was 0 in the base already. The same as
    'maskhub pack DENSE --base BASE'. --quiet prints the mask's path.

    Example: maskhub extract user/base task/ -o task.msk
    """
    pack(
        dense,
        base=base,
        output=output,
        base_name=base_name,
        force=force,
        revision=revision,
        token=token,
        format=format,
        json=json,
        quiet=quiet,
    )
