"""``maskhub pack``: a mask from a pruned checkpoint, a run, another mask, or another tool's file."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import maskhub
from maskhub_cli.command import Call
from maskhub_cli.output import Format, Output

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet
    from maskhub.masks.summary import MaskSummary


def pack(call: Call[MaskSet], out: Output) -> None:
    """--quiet prints the mask's path.

    Example: maskhub pack pruned/ --base user/base -o task.msk
    """
    packed(call, out)


def packed(call: Call[MaskSet], out: Output) -> None:
    """Pack, and show the mask that came of it."""
    from maskhub.masks.summary import to_data, to_fields
    from maskhub.storage.address import exists

    maskset = call("Packing", unit="")
    summary = maskset.summary()
    gains = _gains(call, maskset, summary) if out.format in (Format.HUMAN, Format.JSON) else {}
    out.show(
        to_data(summary) | ({"gains": {name: gain.numbers for name, gain in gains.items()}} if gains else {}),
        quiet=summary.file,
        title=str(summary.file),
        fields=to_fields(summary) | {name: gain.text for name, gain in gains.items()},
    )
    if call.asked.get("size") and not call.asked.get("eval_file"):
        out.hint("What the smaller mask is worth was not measured: --eval-file FILE does.")
    base = call.asked.get("base")
    if base and exists(summary.base.name):
        out.hint(f"The base is recorded as {summary.base.name}, a path here; --base-name gives it a name for others.")
    if call.asked.get("parent") and "delta" not in summary.codecs:
        out.hint("The file needs no parent: it is coded without one.")
    if base and maskset.initial is None:
        out.hint(
            "Where training began is not known, so all that is dropped is stored, not what training changed: about "
            "twice the bytes, for a mask that maskhub train made. --like MASK, or --like RUN, takes it from there."
        )
    out.hint(f"Next: maskhub apply {shlex.join([base or summary.base.name, str(summary.file)])}")


@dataclass(frozen=True)
class Gain:
    """What an option was good for: ``text`` for people."""

    numbers: dict[str, int]
    text: str


def _gains(call: Call[MaskSet], maskset: MaskSet, summary: MaskSummary) -> dict[str, Gain]:
    """What ``--parent`` and ``--like`` saved, and why not."""
    from maskhub.container.writer import payload_bytes

    parent, like, codec = (call.asked.get(name) for name in ("parent", "like", "codec"))
    stored, against = summary.mask_bytes or 0, summary.codecs.get("delta", 0)
    gains = {}
    if like:
        alone = payload_bytes(dataclasses.replace(maskset, initial=None))
        gains["like"] = Gain(
            {"bytes": stored, "bytes_without": alone},
            f"training began as that of {like}: masks of {stored:,} bytes, and {alone:,} without it",
        )
    if parent:
        alone = payload_bytes(maskset) if against else stored
        text = f"{against} of {len(maskset)} masks are coded against {parent[0]}: "
        if against:
            text += f"{stored:,} bytes, and {alone:,} without it"
        elif codec and codec not in ("auto", "delta"):
            text += f"{codec} codes each mask alone"
        else:
            other = maskhub.open(parent[0], parent[1:], token=call.asked.get("token"))
            text += f"alone, each is smaller ({stored:,} bytes in all); {_apart(maskset, other)}"
        gains["parent"] = Gain({"masks": against, "bytes": stored, "bytes_without": alone}, text)
    return gains


def _apart(maskset: MaskSet, parent: MaskSet) -> str:
    """How far a mask set is from another one, in words."""
    if not maskset.keys() & parent.keys():
        return "it masks none of their tensors"
    total = maskhub.diff(maskset, parent).total
    changed = ", of which only what training changed is stored" if maskset.initial else ""
    return f"the two differ in {total.differing:.2%} of the weights, and {1 - total.density_a:.2%} are dropped{changed}"
