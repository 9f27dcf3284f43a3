"""``maskhub pull``: a mask from the Hub, or from a shared folder."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import maskhub
from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.remote.entry import Pulled


def pull(call: Call[Pulled], out: Output) -> None:
    """--quiet prints the file.

    Example: maskhub pull user/repo -o task.msk
    """
    base, key, output = (call.asked.get(name) for name in ("base", "require_signature", "output"))
    pulled = call("Reading the base") if base else call()
    out.show(
        dataclasses.asdict(pulled),
        quiet=pulled.path,
        title=str(pulled.path),
        fields={
            "from": pulled.address,
            "id": f"{pulled.id}, matches",
            "file": f"{pulled.bytes:,} bytes, as they were written",
            "base": f"{base}: {pulled.base}" if base else "not checked; --base does",
            **({"signature": f"by {key}, valid"} if key else {}),
        },
    )
    name = base or maskhub.open(pulled.path).base.name
    out.hint(f"Next: maskhub apply {shlex.join([name, str(pulled.path) if output else call.asked['mask']])}")
