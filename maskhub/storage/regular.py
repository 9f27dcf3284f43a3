"""Opening what is a file, and nothing that only looks like one: a pipe would be waited for, a device never ends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from maskhub.errors import FormatError, MaskhubError, MissingError

KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def open_regular(path: str | Path, name: str | Path | None = None) -> IO[bytes]:
    """A regular file, open for reading, without a buffer; ``name`` is another one to call it by.

    Raises MissingError where nothing is there, FormatError for what is no regular file, and the system's own OSError.
    """
    called = name or path
    try:
        _refuse(Path(path).stat().st_mode, called)  # first: opening a device can do something to it
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except MaskhubError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name that a file can have
        raise MissingError(f"{called}: no such file", hint="Check the name and the folder.") from None
    file = os.fdopen(handle, "rb", buffering=0)
    try:
        _refuse(os.fstat(handle).st_mode, called)
    except FormatError:
        file.close()
        raise
    return file


def require_regular(folder: Path, suffixes: Iterable[str]) -> None:
    """Refuse a folder that another library will read where a file in it is none, or a pointer of Git LFS."""
    for path in folder.iterdir():
        if path.suffix in suffixes and path.exists() and not path.is_dir():
            with open_regular(path) as file:
                if pointer := lfs_pointer(path, file.read(64)):
                    raise pointer


def lfs_pointer(path: str | Path, start: bytes) -> FormatError | None:
    """The error for a file that begins so, where Git LFS left a note in the place of the file itself."""
    if not start.startswith(b"version https://git-lfs"):
        return None
    return FormatError(f"{path}: a pointer of Git LFS, not the file itself", hint="Get the file: git lfs pull.")


def _refuse(mode: int, called: str | Path) -> None:
    if not stat.S_ISREG(mode):
        raise FormatError(f"{called}: {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file")
