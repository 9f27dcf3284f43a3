"""How work is told of while it goes on, and by how many threads it is done."""

from __future__ import annotations

import os
from collections.abc import Callable

Progress = Callable[[int, int], None]  # done, in all: bytes, masks, examples, ... as the function says


def workers() -> int:
    """Threads that may work at once: as many as the processors that this process may use, not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
