"""Waiting for what another process does, and no longer than that takes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def until(what: Callable[[], object], process: subprocess.Popen[str] | subprocess.Popen[bytes] | None = None) -> None:
    """Until ``what`` is true; an error if ``process`` ends before that, and after two minutes."""
    deadline = time.monotonic() + 120
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
