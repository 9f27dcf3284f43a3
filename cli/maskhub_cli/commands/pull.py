"""``maskhub pull``: a mask from the Hub, or from a shared folder."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.options import (
    BASE_HELP,
    FormatOption,
    JsonOption,
    ParentOption,
    QuietOption,
    TokenOption,
    quiet_hub,
)
from maskhub_cli.output import Format, Output


def pull(
    mask: Annotated[
        str,
        typer.Argument(
            metavar="MASK",
            help="user/repo, user/repo/name or user/repo/name@revision on the Hub, or a mask in a shared folder.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Copy it here; else it stays in the cache."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="BASE", help=f"Check the fit to it, too. {BASE_HELP} One on the Hub is not downloaded."),
    ] = None,
    require_signature: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Refuse it unless signed with the public key in this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the output file.")] = False,
    parent: ParentOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Get a mask from the Hub or a shared folder, and check every byte of it.

    --quiet prints the file.

    Example: maskhub pull user/repo -o task.msk
    """
    from maskhub import remote
    from maskhub.container.reader import MaskFile

    out = Output(format, json, quiet)
    quiet_hub(out)
    with out.progress("Reading the base") if base else contextlib.nullcontext() as progress:
        pulled = remote.pull(
            mask,
            output,
            base=base,
            require_signature=require_signature,
            force=force,
            token=token,
            parents=parent or (),
            progress=progress,
        )
    out.show(
        {**dataclasses.asdict(pulled), "path": str(pulled.path)},
        quiet=pulled.path,
        title=str(pulled.path),
        fields={
            "from": pulled.address,
            "id": f"{pulled.id}, matches",
            "file": f"{pulled.bytes:,} bytes, as they were written",
            "base": f"{base}: {pulled.base}" if base else "not checked; --base does",
            **({"signature": f"by {require_signature}, valid"} if require_signature else {}),
        },
    )
    name = base or MaskFile(pulled.path).manifest.base.name
    out.hint(f"Next: maskhub apply {shlex.join([name, str(pulled.path if output else mask)])}")
