"""``maskhub push``: a mask onto the Hub, or into a shared folder."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.remote.entry import Pushed


def push(call: Call[Pushed], out: Output) -> None:
    """--quiet prints the address that other commands take.

    Example: maskhub push task.msk user/repo
    """
    pushed = call()
    out.show(
        pushed,
        quiet=pushed.address,
        title=pushed.address if pushed.changed else f"{pushed.address}: is there already, nothing changed",
        fields={"id": pushed.id, "url": pushed.url},
    )
    if pushed.warning:
        out.warn(pushed.warning)
    out.hint(f"Next: maskhub pull {shlex.quote(pushed.address)}")
