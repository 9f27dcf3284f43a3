"""``maskhub push``: a mask onto the Hub, or into a shared folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.options import (
    FormatOption,
    JsonOption,
    MaskArgument,
    ParentOption,
    QuietOption,
    TokenOption,
    quiet_hub,
)
from maskhub_cli.output import Format, Output


def push(
    mask: MaskArgument,
    to: Annotated[
        str,
        typer.Argument(
            metavar="REMOTE",
            help="user/repo or user/repo/name on the Hub, or a folder here or at a URL.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it there; else as the file is.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "--commit-message", "-m", metavar="TEXT", help="Of the commit.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a missing repo private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch of the repo; made if it is missing.")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose it as a pull request.")] = False,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign it with the private Ed25519 key in this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace another mask of that name.")] = False,
    parent: ParentOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put a mask on the Hub, or into a shared folder, with a card that says what it is.

    The mask is checked before. A missing repo is made; what is there already is left as it is. --quiet prints the
    address that other commands take.

    Example: maskhub push task.msk user/repo
    """
    from maskhub import remote

    out = Output(format, json, quiet)
    quiet_hub(out)
    pushed = remote.push(
        mask,
        to,
        name=name,
        message=message,
        private=private,
        revision=revision,
        create_pr=create_pr,
        sign=sign,
        force=force,
        parents=parent or (),
        token=token,
    )
    out.show(
        pushed,
        quiet=pushed.address,
        title=pushed.address if pushed.changed else f"{pushed.address}: is there already, nothing changed",
        fields={"id": pushed.id, "url": pushed.url},
    )
    out.hint(f"Next: maskhub pull {shlex.quote(pushed.address)}")
