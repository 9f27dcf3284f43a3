"""``maskhub list``: masks on the Hub, or in a shared folder."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from maskhub_cli.options import FormatOption, JsonOption, QuietOption, TokenOption, quiet_hub
from maskhub_cli.output import Cell, Format, Output

if TYPE_CHECKING:
    from maskhub.remote.entry import Listed


def list_masks(
    remote: Annotated[
        str | None,
        typer.Argument(metavar="REMOTE", help="A repo on the Hub, or a folder here or at a URL; else the whole Hub."),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="BASE", help="For this base: its Hub id, or its name.")] = None,
    author: Annotated[str | None, typer.Option(metavar="USER", help="Of this user or organization.")] = None,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="In the repo's name.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most this many.")] = 30,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List masks on the Hub, or in a repo or a shared folder: task, base, size, bits a weight, metrics.

    They are read from cards, or else from the masks' headers. --quiet prints their addresses, one a line.

    Example: maskhub list --base user/base
    """
    from maskhub.remote import list_masks as listed

    out = Output(format, json, quiet)
    quiet_hub(out)
    found = listed(remote, base=base, author=author, search=search, limit=limit, token=token)
    out.show(
        found,
        quiet=[one.address for one in found],
        title="" if found else "No masks found.",
        tables=[[_row(one) for one in found if one.entry]],
    )
    for one in found:
        if one.problem:
            out.warn(one.problem)
    if len(found) == limit:
        out.hint(f"There may be more: --limit {2 * limit}")
    elif found:
        out.hint(f"Next: maskhub pull {shlex.quote(found[0].address)}")


def _row(one: Listed) -> dict[str, Cell]:
    entry = one.entry
    assert entry is not None
    return {
        "mask": one.address,
        "task": entry.task or "",
        "base": entry.base,
        "bytes": entry.bytes,
        "bits/weight": entry.bits_per_weight,
        "sparsity": entry.sparsity,
        "metrics": ", ".join(f"{name} {value:.4f}" for name, value in sorted(entry.metrics.items())),
    }
