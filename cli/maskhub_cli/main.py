"""Where the program starts: a signal ends it with one line, also while what takes time is still being imported."""

from __future__ import annotations

import contextlib
import signal
import sys


def main(name: str | None = None) -> None:
    """Run the program, called ``name``. A second signal ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from maskhub.interrupts import caught, status, word

    try:
        with caught(_interrupt):
            from maskhub_cli.app import app

            app(prog_name=name)
    except KeyboardInterrupt as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{word(error)}\n")
        sys.exit(status(error))


def hf_mask() -> None:
    """The program as an extension of ``hf``."""
    main("hf mask")


def _interrupt(number: int) -> None:
    raise KeyboardInterrupt(number)
