"""Where a tensor file's bytes come from: a file here, or a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from maskhub.errors import FormatError, MissingError


class Source(Protocol):
    """``name`` is what messages call it."""

    name: Path | str

    def file(self) -> contextlib.AbstractContextManager[Path]:
        """A local file to open and map, of the source's size. What lies in it besides the header must be fetched."""

    def fetch(self, start: int, stop: int) -> None:
        """See to it that these bytes can be read in the file."""


class LocalFile:
    """A file here, which has all its bytes. ``name`` is another one to call it by."""

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self._path = Path(path)
        self.name: Path | str = name or self._path

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        if self._path.is_dir():
            raise FormatError(f"{self.name}: a folder, not a file")
        if not self._path.is_file():
            raise MissingError(f"{self.name}: no such file")
        yield self._path

    def fetch(self, start: int, stop: int) -> None: ...
