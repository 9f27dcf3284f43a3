"""Arguments and options that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
    """The file name of a path or URL without its suffix: what outputs are called."""
    from pathlib import Path

    from maskhub.storage.address import file_name

    return Path(file_name(mask)).stem


def labels(masks: Sequence[str]) -> list[str]:
    """Short names that tell masks apart: as ``stem``, with as many folders before it as that takes."""
    from maskhub.storage.url import public_name

    parts = [[*public_name(mask).split("/")[:-1], stem(mask)] for mask in masks]
    distinct = len(set(masks))
    depths = range(1, max(map(len, parts), default=1))
    deep = next((n for n in depths if len({"/".join(p[-n:]) for p in parts}) >= distinct), 0)
    names = ["/".join(p[-deep:]) for p in parts]
    return [f"{n} ({names[:i].count(n) + 1})" if n in names[:i] else n for i, n in enumerate(names)]


def quiet_hub(out: Output) -> None:
    """Let the Hub's client say nothing of its own, and draw bars on terminals only. Call it before one is imported."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if out.format is not Format.HUMAN or not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
