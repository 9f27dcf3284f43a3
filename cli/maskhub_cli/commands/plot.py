"""``maskhub plot``: a picture of a run or of a mask."""

from __future__ import annotations

from pathlib import Path

from maskhub_cli.command import Call
from maskhub_cli.output import Output


def plot(call: Call[Path], out: Output) -> None:
    """--quiet prints the path.

    Example: maskhub plot run -o run.png
    """
    picture = call()
    out.show({"picture": str(picture)}, quiet=picture, title=str(picture))
