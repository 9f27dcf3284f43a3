"""``maskhub list``: masks on the Hub, or in a shared folder."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.output import Cell, Output

if TYPE_CHECKING:
    from maskhub.remote.entry import Listed


def list_masks(call: Call[list[Listed]], out: Output) -> None:
    """--quiet prints the addresses, one a line.

    Example: maskhub list --base user/base
    """
    found = call()
    usable = [one for one in found if one.entry]
    out.show(
        found,
        quiet=[one.address for one in usable],
        title="" if usable else "No masks found.",
        tables=[list(map(_row, usable))],
    )
    for one in found:
        if one.problem:
            out.warn(one.problem)
    limit = call.asked["limit"]
    if len(found) == limit:
        out.hint(f"There may be more: --limit {2 * limit}")
    elif usable:
        out.hint(f"Next: maskhub pull {shlex.quote(usable[0].address)}")


def _row(one: Listed) -> dict[str, Cell]:
    entry = one.entry
    assert entry is not None
    return {
        "mask": one.address,
        "task": entry.task or "",
        "bytes": entry.bytes,
        "metrics": ", ".join(f"{name} {value:.4f}" for name, value in sorted(entry.metrics.items())),
        "base": entry.base,
        "bits/weight": entry.bits_per_weight,
        "sparsity": entry.sparsity,
    }
