"""The lock of a run folder: one training at a time writes there. Readers are not kept out."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from maskhub.errors import TrainingError
from maskhub.storage.atomic import explained, make_folder
from maskhub.training import processes

LOCK = ".lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run folder, which is made where there is none; one that stays empty is removed.

    Of several processes that share a training the first holds it. The system lets go of it when that one dies. Raises
    TrainingError, naming who holds it, where it is held already.
    """
    if not processes.is_first():
        yield
        return
    made = make_folder(folder)
    with explained(folder):
        handle = _locked(folder / LOCK)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        os.close(handle)
        with contextlib.suppress(OSError):  # not empty
            for one in reversed(made):
                one.rmdir()


def unused(folder: Path) -> bool:
    """Whether there is nothing in a folder but the lock."""
    return folder.is_dir() and [one.name for one in folder.iterdir()] == [LOCK]


def _locked(path: Path) -> int:
    """The open lock file, with who holds it written into it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TrainingError(
                        f"{path.parent}: another training is at work there: {_holder(path)}",
                        hint="Wait until it ends, or stop it. A new run needs a new folder.",
                    ) from None
            if _is(path, handle):
                since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
                os.ftruncate(handle, 0)
                os.write(
                    handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
                )
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it has ended and removed it meanwhile


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_bytes())
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write it
        return "a process that has just begun"
