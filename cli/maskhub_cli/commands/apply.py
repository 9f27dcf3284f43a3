"""``maskhub apply``: a dense checkpoint from base and mask."""

from __future__ import annotations

from pathlib import Path
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
    stem,
)
from maskhub_cli.output import Format, Output


def apply(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    masks: Annotated[
        list[str],
        typer.Argument(metavar="MASK...", help="The mask, or several.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="A new folder; of several masks, where their folders go. Masks' names without .msk if left.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check that the base is the one the mask was made for.")
    ] = True,
    shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="At most this much a file: 5GB, 500MB; as the base is if left.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="F32|F16|BF16|F64", help="Cast floating-point tensors on the way.")
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Copy the base's own Python files.")] = False,
    parent: ParentOption = None,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the dense checkpoint of a mask's task: the base with its dropped weights 0.

    Plain from_pretrained loads it. Several masks are built in one pass over the base. --quiet prints the folders.

    Example: maskhub apply user/base task.msk -o task
    """
    from maskhub.checkpoints.apply import build, parse_size
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container.reader import MaskFile
    from maskhub.storage.address import distinct_names
    from maskhub.storage.atomic import claim_folder

    out = Output(format, json, quiet)
    size = parse_size(shard_size) if shard_size else None
    if len(masks) == 1:
        folders = [output or Path(stem(masks[0]))]
    else:
        folders = [(output or Path()) / name for name in distinct_names(masks)]
    files = [MaskFile(mask, parent or (), token=token) for mask in masks]
    for folder in folders:
        claim_folder(folder)  # before a base is downloaded
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    for file in files:
        file.fetch()
    with out.progress("Writing") as progress:
        builds = [(file.maskset(), folder) for file, folder in zip(files, folders, strict=True)]
        build(checkpoint, builds, verify=verify, shard_size=size, dtype=dtype, code=code, progress=progress)
    rows = [
        {
            "output": str(folder),
            "bytes": sum(f.stat().st_size for f in folder.iterdir()),
            "base": checkpoint.name,
            "mask": file.manifest.id,
            "verified": verify,
        }
        for file, folder in zip(files, folders, strict=True)
    ]
    for row, file in zip(rows, files, strict=True):
        task = file.manifest.task
        out.show(
            row if len(rows) == 1 else rows,
            quiet=row["output"],
            title=str(row["output"]),
            fields={
                "size": f"{row['bytes']:,} bytes",
                "base": f"{checkpoint.name} ({'verified' if verify else 'not verified'})",
                "mask": f"{file.path} ({file.manifest.id})",
                **({"task": f"{task.type} ({task.architecture})"} if task else {}),
            },
        )
        if out.format is Format.JSON:  # one document holds all
            break
    task = files[0].manifest.task
    loaded_by = task.architecture if task and task.architecture.isidentifier() else "AutoModel"
    out.hint(f"Next: transformers.{loaded_by}.from_pretrained({rows[0]['output']!r})")
