"""The processes that share a training, as ``torchrun`` and ``accelerate launch`` tell them by the environment."""

from __future__ import annotations

import os


def number() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one that writes files and speaks to the user."""
    return int(os.environ.get("RANK", "0")) == 0
