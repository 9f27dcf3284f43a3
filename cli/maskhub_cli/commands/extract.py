"""``maskhub extract``: the mask of a dense checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskhub_cli.command import Call
from maskhub_cli.commands.pack import packed
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet


def extract(call: Call[MaskSet], out: Output) -> None:
    """--quiet prints the mask's path.

    Example: maskhub extract user/base task/ -o task.msk
    """
    packed(call, out)
