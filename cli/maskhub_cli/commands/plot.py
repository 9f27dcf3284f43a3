"""``maskhub plot``: a picture of a run or of a mask."""

from __future__ import annotations

from pathlib import Path

from maskhub_cli.command import Call
from maskhub_cli.output import Output


def plot(call: Call[Path], out: Output) -> None:
    """Of a run, also one that is not finished: loss and learning rate, metrics, and by layer the dropped weights and
    those that flipped since the start. Of a mask: dropped weights by layer and matrix. --quiet prints the path.

    Example: maskhub plot run -o run.png
    """
    picture = call()
    out.show({"picture": str(picture)}, quiet=picture, title=str(picture))
