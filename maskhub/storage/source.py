"""Where a tensor file's bytes come from: a file here, or a URL."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from maskhub.errors import FormatError

SCHEMES = re.compile(r"(?:[a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # chained ones, too


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
        if not self._path.is_file():
            raise FormatError(f"{self.name}: {'a folder, not a file' if self._path.is_dir() else 'no such file'}")
        yield self._path

    def fetch(self, start: int, stop: int) -> None: ...


def open_source(path: str | Path) -> Source:
    if not is_url(path):
        return LocalFile(path)
    from maskhub.storage.remotefile import RemoteFile

    return RemoteFile(str(path))


def is_url(path: str | Path) -> bool:
    return SCHEMES.match(str(path)) is not None


def public_name(path: str | Path) -> str:
    """A path as it is; a URL without what may be secret: user, password, query."""
    return without_logins(re.split(r"[?#]", str(path))[0]) if is_url(path) else str(path)


def without_logins(text: str) -> str:
    """Text with user and password taken out of its URLs."""
    return re.sub(r"://[^\s/?#]*@", "://", text)
