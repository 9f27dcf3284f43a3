"""``maskhub pack``: a mask from a pruned checkpoint, a run, another mask, or another tool's file."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet


def pack(call: Call[MaskSet], out: Output) -> None:
    """--quiet prints the mask's path.

    Example: maskhub pack pruned/ --base user/base -o task.msk
    """
    packed(call, out)


def packed(call: Call[MaskSet], out: Output) -> None:
    """Pack, and show the mask that came of it."""
    from maskhub.masks.summary import to_data, to_fields
    from maskhub.storage.address import exists

    summary = call("Packing", unit="").summary()
    out.show(to_data(summary), quiet=summary.file, title=str(summary.file), fields=to_fields(summary))
    base = call.asked.get("base")
    if base and exists(summary.base.name):
        out.hint(f"The base is recorded as {summary.base.name}, a path here; --base-name gives it a name for others.")
    if call.asked.get("parent") and "delta" not in summary.codecs:
        out.hint("The file needs no parent: it is coded without one.")
    out.hint(f"Next: maskhub apply {shlex.join([base or summary.base.name, str(summary.file)])}")
