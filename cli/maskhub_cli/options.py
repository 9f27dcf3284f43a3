"""Arguments and options that several commands share."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from maskhub_cli.output import Format, Output

ERROR_STATUS = "maskhub.error_status"  # key of a context's meta: the exit status of an error, where it is not 1

MaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="MASK",
        help="The mask: a .msk file, the URL of one, or user/repo or user/repo/name@revision on the Hub.",
        show_default=False,
    ),
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
    typer.Option(metavar="TOKEN", help="Token for the Hub; else HF_TOKEN, or the one of hf auth login."),
]

FormatOption = Annotated[
    Format, typer.Option("--format", help="How to print the result; auto is human, also into a pipe.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Short for --format quiet: print only the id or the path.")
]


def stem(mask: str) -> str:
    """What the outputs of a mask are called."""
    from maskhub.storage.address import distinct_names

    return distinct_names([mask])[0]


def quiet_hub(out: Output) -> None:
    """Let the Hub's client say nothing of its own, and draw bars on terminals only. Call it before one is imported."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if out.format is not Format.HUMAN or not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
