"""``maskhub export``: a mask as a file for other tools."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.options import FormatOption, JsonOption, MaskArgument, ParentOption, QuietOption, stem
from maskhub_cli.output import Format, Output


class Kind(StrEnum):
    NPZ = "npz"
    PT = "pt"
    SAFETENSORS = "safetensors"
    H5 = "h5"


def export(
    mask: MaskArgument,
    to: Annotated[
        Kind,
        typer.Option(
            "--to",
            help="npz: packed bits, as MaskLLM has them; pt, safetensors: boolean tensors; h5: a bank of mask sets.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; MASK's name, here, if left."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the mask is called in a bank (h5); MASK's name if left."),
    ] = None,
    parent: ParentOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file, or a bank's mask set of that name.")
    ] = False,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a mask as a file for other tools.

    With --to h5 it is added to FILE, if that is a bank, and keeps its id. The others hold masks alone: no base, no
    dense tensors, no notes. --quiet prints the file.

    Example: maskhub export task.msk --to npz -o mask_compressed.npz
    """
    from maskhub.container.reader import open_mask
    from maskhub.interop import FORMATS
    from maskhub.interop import export as export_mask
    from maskhub.storage.atomic import claim_file

    out = Output(format, json, quiet)
    bank = FORMATS[to].several
    if name is not None and not bank:
        raise typer.BadParameter("only with --to h5", param_hint="'--name'")
    target = output or Path(f"{stem(mask)}.{to}")
    claim_file(target, force=force or bank)
    maskset = open_mask(mask, parent or (), whole=True)
    called = (stem(mask) if name is None else name) if bank else None
    export_mask(maskset, target, to, name=called, force=force)
    if maskset.dense and not bank:
        out.warn(f"{len(maskset.dense)} dense tensors are not in {target}: a {to} file holds masks only")
    size = target.stat().st_size
    out.show(
        {
            "output": str(target),
            "to": to.value,
            "name": called,
            "bytes": size,
            "masks": len(maskset.masks),
            "mask": maskset.id,
        },
        quiet=target,
        title=str(target),
        fields={
            "size": f"{size:,} bytes",
            "mask": f"{mask} ({maskset.id})",
            **({"name": called} if called else {}),
        },
    )
    source = f"{target}#{called}" if bank else str(target)
    out.hint(f"It can be packed again: maskhub pack {shlex.quote(source)} --base {shlex.quote(maskset.base.name)}")
