"""Signals that end a program: Ctrl-C, a system that stops it (SIGTERM), and a terminal that is gone (SIGHUP).

As an exception they are a KeyboardInterrupt with the signal's number; one of Python's own, which has none, is Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

WORDS = {signal.SIGINT: "Interrupted.", signal.SIGTERM: "Terminated.", signal.SIGHUP: "Hung up."}


@contextlib.contextmanager
def caught(act: Callable[[int], None]) -> Iterator[None]:
    """Lets ``act`` have the first of them that comes in the block; a second one does what it did before.

    What is ignored when the block begins, as by ``nohup``, stays ignored. Outside the main thread, where Python allows
    no handlers, nothing is caught.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: FrameType | None) -> None:
        restore()
        if number == signal.SIGHUP:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # shell and system both tell of one that is gone
            _leave_terminal()
        act(number)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in WORDS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # None: not set by Python
                    before[number] = handler
                    signal.signal(number, on_signal)
        yield
    finally:
        restore()


def status(error: BaseException) -> int:
    """The exit status of a program that an interrupt ended."""
    return 128 + _number(error)


def word(error: BaseException) -> str:
    """What there is to say of it."""
    return WORDS[signal.Signals(_number(error))]


def _number(error: BaseException) -> int:
    return int(error.args[0]) if error.args else signal.SIGINT


def _leave_terminal() -> None:
    """Let what is still written to a terminal that is gone go nowhere: it would be an error."""
    for handle in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(handle).st_mode) and not os.isatty(handle):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, handle)
                os.close(nowhere)
