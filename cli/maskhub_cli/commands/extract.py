"""``maskhub extract``: the mask of a dense checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.commands.pack import packed
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet


def extract(call: Call[MaskSet], out: Output) -> None:
    """The id is that of the mask it was built from, unless a weight that it drops was 0 in the base already. The same
    as 'maskhub pack DENSE --base BASE'. --quiet prints the mask's path.

    Example: maskhub extract user/base task/ -o task.msk
    """
    packed(call, out)
