from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from maskhub.interrupts import caught, status, word

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ToldError(Exception):
    """What was there before was called."""


def tell(number: int, frame: object) -> None:
    raise ToldError(number)


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    found = [signal.signal(number, tell) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, found, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", SIGNALS)
def test_the_first_is_caught_and_a_second_one_does_what_it_did(first: int, second: int) -> None:
    seen: list[int] = []
    with caught(seen.append):
        os.kill(os.getpid(), first)
        with pytest.raises(ToldError):
            os.kill(os.getpid(), second)
    assert seen == [first]
    assert [signal.getsignal(number) for number in SIGNALS] == [tell] * 3


def test_a_hang_up_comes_twice(capfd: pytest.CaptureFixture[str]) -> None:
    """From the shell and from the system."""
    seen: list[int] = []
    with caught(seen.append):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        os.write(2, b"still heard")  # by a file or a pipe
    assert seen == [signal.SIGHUP]
    assert capfd.readouterr().err == "still heard"
    with pytest.raises(ToldError):
        os.kill(os.getpid(), signal.SIGHUP)


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[int] = []
    with caught(seen.append):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_in_another_thread_they_are_left_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with caught(lambda number: None):
            seen.append([signal.getsignal(number) for number in SIGNALS])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen == [[tell] * 3]


def test_statuses() -> None:
    assert [status(KeyboardInterrupt(number)) for number in SIGNALS] == [130, 143, 129]
    assert [word(KeyboardInterrupt(number)) for number in SIGNALS] == ["Interrupted.", "Terminated.", "Hung up."]
    assert (status(KeyboardInterrupt()), word(KeyboardInterrupt())) == (130, "Interrupted.")
