"""``maskhub verify``: is a mask whole, and does it fit a base."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.api.verify import Verified


def verify(call: Call[Verified], out: Output) -> None:
    """Says what was checked. --quiet prints the id.

    Example: maskhub verify task.msk --base user/base
    """
    found = call("Reading the base") if call.asked.get("base") else call()
    out.show(
        {
            "file": found.file,
            "id": found.id,
            "file_bytes": found.file_bytes,
            "masks": found.masks,
            "dense": found.dense,
            "cached": found.cached and str(found.cached),
            "base": None if found.base is None else {"name": found.base, "tensors": found.base_tensors},
        },
        quiet=found.id,
        title=f"{found.file}: verified",
        fields={
            "id": f"{found.id}, matches",
            "seal": f"{found.file_bytes:,} bytes, as they were written",
            "masks": f"{found.masks} tensors decoded, digests match",
            "dense": f"{found.dense} tensors, digests match",
            "base": f"{found.base}: {found.base_tensors} tensors, digests match"
            if found.base
            else "not checked; --base does",
            **({"cached": f"{found.cached}: {found.masks} masks, digests match"} if found.cached else {}),
        },
    )
    path = shlex.quote(str(found.file))
    if found.base is None:
        out.hint(f"Next: maskhub verify {path} --base {shlex.quote(found.base_name)}")
    else:
        out.hint(f"Next: maskhub apply {shlex.quote(call.asked['base'])} {path}")
