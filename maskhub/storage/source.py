"""Where a tensor file's bytes come from: a file here, or a URL.

Bytes are read into memory of our own and never mapped: others may cut or change a file while it is read.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from maskhub.errors import FormatError
from maskhub.storage.regular import open_regular
from maskhub.storage.tensor import Bytes


class Source(Protocol):
    """``name`` is what messages call it."""

    name: Path | str

    def open(self) -> int:
        """Open it; the size of the file in bytes."""

    @property
    def whole(self) -> bool:
        """Whether all bytes are at hand, so that to read them costs no fetching."""

    def fetch(self, start: int, stop: int) -> None:
        """Get these bytes, where they are not at hand, at once."""

    def read_into(self, start: int, into: Bytes) -> None:
        """Fill ``into`` with the bytes that begin at ``start``."""


class LocalFile:
    """A file here, which has all its bytes. ``name`` is another one to call it by."""

    whole = True

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self._path = Path(path)
        self.name: Path | str = name or self._path

    def open(self) -> int:
        with open_regular(self._path, self.name) as file:
            self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        return os.fstat(self._handle).st_size

    def stream(self) -> IO[bytes]:
        """The same opened file, from its start, for a library that reads one."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self._handle), "rb")

    def fetch(self, start: int, stop: int) -> None: ...

    def read_into(self, start: int, into: Bytes) -> None:
        read_at(self._handle, start, into, self.name)


class InMemory:
    """A file's bytes in memory."""

    whole = True

    def __init__(self, data: Bytes, name: Path | str) -> None:
        self.name, self._data = name, data

    def open(self) -> int:
        return self._data.size

    def fetch(self, start: int, stop: int) -> None: ...

    def read_into(self, start: int, into: Bytes) -> None:
        into[:] = self._data[start : start + into.size]


def read_at(handle: int, start: int, into: Bytes, name: Path | str) -> None:
    """Fill ``into`` from an open file. FormatError, about ``name``, where the file ends before."""
    view = memoryview(into.data)
    while view:
        if not (count := os.preadv(handle, [view], start)):
            raise FormatError(
                f"{name}: became shorter while it was read", hint="Run it again when nothing writes to the file."
            )
        view, start = view[count:], start + count


def read(source: Source, start: int, stop: int) -> Bytes:
    """These bytes, in memory of their own."""
    found = np.empty(stop - start, np.uint8)
    source.read_into(start, found)
    return found


def pieces(source: Source, start: int, stop: int, size: int) -> Iterator[Bytes]:
    """These bytes, so many at a time: each piece is overwritten by the next."""
    buffer = np.empty(min(size, stop - start), np.uint8)
    for place in range(start, stop, size):
        piece = buffer[: stop - place]
        source.read_into(place, piece)
        yield piece
