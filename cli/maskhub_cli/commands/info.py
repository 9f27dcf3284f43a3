"""``maskhub info``: what a mask is, or what each of several is."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

from maskhub.errors import ArgumentError
from maskhub.options import Option
from maskhub_cli.command import Call
from maskhub_cli.output import Format, Output

if TYPE_CHECKING:
    from maskhub.masks.summary import MaskSummary


def info(
    call: Call[list[MaskSummary]],
    out: Output,
    *,
    tensors: Annotated[bool, Option("Add a row for each tensor.")] = False,
    all: Annotated[bool, Option("Show all that the file notes, and not what fits one screen.")] = False,
    manifest: Annotated[bool, Option("Print the manifest instead, all that the file says of itself, as JSON.")] = False,
) -> None:
    """--quiet prints the id, or those of several.

    Example: maskhub info task.msk --tensors --plot task.png

    Example: maskhub info a.msk b.msk --plot memory.png
    """
    from maskhub.masks.summary import to_data, to_fields, to_rows, to_tables

    masks, plot = call.asked["masks"], call.asked.get("plot")
    picture = {"picture": str(plot)} if plot else {}
    if len(masks) > 1:
        for option, given in (("tensors", tensors), ("all", all), ("manifest", manifest)):
            if given:
                raise ArgumentError(f"--{option} is for one mask", hint="Leave it out, or name one mask.")
        found = call()
        out.show(
            [to_data(summary) for summary in found],
            quiet=[summary.id for summary in found],
            title=f"{len(found)} masks",
            fields=picture,
            tables=[to_rows(found)],
        )
        return
    (summary,) = call()
    if manifest:
        if out.format is Format.HUMAN:
            out.lines([json.dumps(summary.manifest, indent=2)])
        else:
            out.show(summary.manifest, quiet=summary.id)
        return
    out.show(
        to_data(summary, tensors=tensors),
        quiet=summary.id,
        title=str(summary.file),
        fields=to_fields(summary, all=all) | picture,
        tables=to_tables(summary) if tensors else [],
    )
    out.hint(f"Next: maskhub apply {shlex.join([summary.base.name, str(summary.file)])}")
