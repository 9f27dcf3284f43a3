"""``maskhub verify``: is a mask whole, and does it fit a base."""

from __future__ import annotations

import shlex
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


def verify(
    mask: MaskArgument,
    base: Annotated[str | None, typer.Option(metavar="BASE", help=f"Check the fit to it, too. {BASE_HELP}")] = None,
    parent: ParentOption = None,
    keep: Annotated[
        bool, typer.Option("--cache", help="Keep it decoded in the local cache: to open at once, and as a parent.")
    ] = False,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check every byte of a mask, and with --base every tensor of the base it was made for.

    Says what was checked; status 1 where something is wrong. --quiet prints the id.

    Example: maskhub verify task.msk --base user/base
    """
    from maskhub.checkpoints.apply import verify_base
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container import cache
    from maskhub.container.reader import MaskFile

    out = Output(format, json, quiet)
    if base is None and revision:
        raise typer.BadParameter("only with --base", param_hint="'--revision'")
    file = MaskFile(mask, parent or (), token=token)
    file.verify()
    manifest = file.manifest
    checked_base = "not checked; --base does"
    if base is not None:
        checkpoint = open_checkpoint(base, revision=revision, token=token)
        with out.progress("Reading the base") as progress:
            verify_base(checkpoint, file.maskset(), progress=progress)
        checked_base = f"{base}: {len(manifest.base.tensors)} tensors, digests match"
    kept = cache.keep(file.maskset()) if keep else None
    out.show(
        {
            "file": str(file.path),
            "id": manifest.id,
            "file_bytes": file.file_size,
            "masks": len(manifest.masks),
            "dense": len(manifest.dense),
            "cached": kept and str(kept),
            "base": None if base is None else {"name": base, "tensors": len(manifest.base.tensors)},
        },
        quiet=manifest.id,
        title=f"{file.path}: correct",
        fields={
            "id": f"{manifest.id}, matches",
            "seal": f"{file.file_size:,} bytes, as they were written",
            "masks": f"{len(manifest.masks)} tensors decoded, digests match",
            "dense": f"{len(manifest.dense)} tensors, digests match",
            "base": checked_base,
            **({"cached": str(kept)} if kept else {}),
        },
    )
    path = shlex.quote(str(file.path))
    if base is None:
        out.hint(f"Next: maskhub verify {path} --base {shlex.quote(manifest.base.name)}")
    else:
        out.hint(f"Next: maskhub apply {shlex.quote(base)} {path}")
