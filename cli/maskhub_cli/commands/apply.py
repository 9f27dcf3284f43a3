"""``maskhub apply``: a dense checkpoint from base and mask."""

from __future__ import annotations

from pathlib import Path
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
    stem,
)
from maskhub_cli.output import Format, Output


def apply(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    mask: MaskArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder; the mask's name without .msk if left."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check that the base is the one the mask was made for.")
    ] = True,
    parent: ParentOption = None,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the dense checkpoint of a mask's task: the base with its dropped weights 0.

    Plain from_pretrained loads it. --quiet prints the folder.

    Example: maskhub apply user/base task.msk -o task
    """
    from maskhub.checkpoint import open_checkpoint
    from maskhub.container.reader import MaskFile
    from maskhub.dense import apply as apply_mask
    from maskhub.files import claim_folder

    out = Output(format, json, quiet)
    folder = output or Path(stem(mask))
    file = MaskFile(mask, parent or ())
    claim_folder(folder)  # before a base is downloaded
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    file.fetch()
    with out.progress("Writing") as progress:
        apply_mask(checkpoint, file.maskset(), folder, verify=verify, progress=progress)
    size = sum(f.stat().st_size for f in folder.iterdir())
    task = file.manifest.task
    out.show(
        {
            "output": str(folder),
            "bytes": size,
            "base": checkpoint.name,
            "mask": file.manifest.id,
            "verified": verify,
        },
        quiet=folder,
        title=str(folder),
        fields={
            "size": f"{size:,} bytes",
            "base": f"{checkpoint.name} ({'verified' if verify else 'not verified'})",
            "mask": f"{file.path} ({file.manifest.id})",
            **({"task": f"{task.type} ({task.architecture})"} if task else {}),
        },
    )
    loaded_by = task.architecture if task and task.architecture.isidentifier() else "AutoModel"
    out.hint(f"Next: transformers.{loaded_by}.from_pretrained({str(folder)!r})")
