"""``maskhub export``: a mask as a file for other tools."""

from __future__ import annotations

import shlex
from pathlib import Path

import maskhub
from maskhub.storage.address import distinct_names
from maskhub_cli.command import Call
from maskhub_cli.output import Output


def export(call: Call[Path], out: Output) -> None:
    """--quiet prints the file.

    Example: maskhub export task.msk --to npz -o mask_compressed.npz
    """
    target = call()
    mask, to = call.asked["mask"], call.asked["to"]
    maskset = maskhub.open(mask, call.asked.get("parent") or (), token=call.asked.get("token"))
    bank = maskhub.interop.FORMATS[to].several
    called = (call.asked.get("name") or distinct_names([mask])[0]) if bank else None
    if maskset.dense and not bank:
        out.warn(f"{len(maskset.dense)} dense tensors are not in {target}: {to} files hold masks only")
    size = target.stat().st_size
    out.show(
        {
            "output": str(target),
            "to": to,
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
