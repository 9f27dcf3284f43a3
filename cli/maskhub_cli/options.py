"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhub_cli.output import Format

MaskArgument = Annotated[
    str, typer.Argument(metavar="MASK", help="The mask, a .msk file or the URL of one.", show_default=False)
]

ParentOption = Annotated[
    list[str] | None,
    typer.Option("--parent", metavar="FILE", help="A mask that MASK is coded against; may be given several times."),
]

BASE_HELP = "A checkpoint folder or file, or a model on the Hub."

RevisionOption = Annotated[
    str | None, typer.Option(metavar="REVISION", help="Branch, tag or commit of a base on the Hub.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Token for a private base; else the one of hf auth login."),
]

FormatOption = Annotated[
    Format, typer.Option("--format", help="How to print the result; auto is human, also into a pipe.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Short for --format quiet: print only the id or the path.")
]


def stem(mask: str) -> str:
    """The file name of a path or URL without its suffix: what outputs are called."""
    from pathlib import Path
    from urllib.parse import unquote

    from maskhub.source import is_url, public_name

    return Path(unquote(public_name(mask)) if is_url(mask) else mask).stem
