"""``maskhub apply``: a dense checkpoint from base and mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.output import Format, Output

if TYPE_CHECKING:
    from maskhub.api.apply import Built


def apply(call: Call[list[Built]], out: Output) -> None:
    """--quiet prints the folders.

    Example: maskhub apply user/base task.msk -o task
    """
    from maskhub.storage.url import public_name

    built = call("Writing")
    rows = [
        {"output": str(one.path), "bytes": one.bytes, "base": one.base, "mask": one.mask, "verified": one.verified}
        for one in built
    ]
    if out.format is Format.JSON:  # one document holds all
        out.show(rows[0] if len(rows) == 1 else rows, quiet="")
        return
    for one, mask in zip(built, call.asked["masks"], strict=True):
        out.show(
            None,
            quiet=one.path,
            title=str(one.path),
            fields={
                "size": f"{one.bytes:,} bytes",
                "base": f"{one.base} ({'verified' if one.verified else 'not verified'})",
                "mask": f"{public_name(mask)} ({one.mask})",
                **({"task": f"{one.task.type} ({one.task.architecture})"} if one.task else {}),
            },
        )
    task = built[0].task
    loaded_by = task.architecture if task and task.architecture.isidentifier() else "AutoModel"
    out.hint(f"Next: transformers.{loaded_by}.from_pretrained({rows[0]['output']!r})")
