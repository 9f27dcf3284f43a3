"""Writing files and folders so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from maskhub.errors import OutputError


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file, open for reading and writing, that replaces ``path`` when the block ends without an error.

    It lies beside the target until then. A link at ``path`` is replaced, never written through.
    """
    path = Path(path)
    with explained(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with explained(path), os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with explained(path):
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder that becomes ``path`` when the block ends without an error."""
    path = Path(path)
    claim_folder(path)
    with explained(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.absolute().parent))
    try:
        with explained(path):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(path)  # also over an empty folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one whole file."""
    with atomic_file(path) as file:
        file.write(data)


def claim_folder(path: Path) -> None:
    """OutputError unless ``path`` is free: absent, or an empty folder."""
    with explained(path):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            return
        if path.exists() or path.is_symlink():
            kind = "is a link" if path.is_symlink() else "is not empty" if path.is_dir() else "is not a folder"
            raise OutputError(f"{path}: the output folder exists and {kind}", hint="Name a new folder.")
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if not nearest.is_dir():
            raise OutputError(f"{path}: cannot be written: {nearest} is a file", hint="Name a new folder.")


def claim_file(path: Path, *, replace: bool = False) -> None:
    """OutputError unless a file can be made at ``path``: nothing is there, or with ``replace`` a file."""
    with explained(path):
        if path.is_dir():
            raise OutputError(f"{path}: the output is a folder", hint="Name a file.")
        if not replace and (path.exists() or path.is_symlink()):
            raise OutputError(f"{path}: the output file exists", hint="Name another one, or replace it with --force.")
        if not path.absolute().parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}", hint="Make it first.")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors inside the block into an OutputError about ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
