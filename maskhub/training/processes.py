"""The processes that share a training, as ``torchrun`` and ``accelerate launch`` tell them by the environment.

And by what the first of them speaks to the user.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

Report = Callable[[int, int, Mapping[str, float]], None]  # step, steps in all, latest numbers
Say = Callable[[str], None]  # one line on what is found, or on what takes time now


def number() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one that writes files and speaks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def heard(say: Say | None) -> Say:
    """``say``, where somebody listens and this is the process that speaks."""
    return say if say is not None and is_first() else lambda line: None
