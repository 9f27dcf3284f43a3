"""Writing files and folders so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from maskhub.errors import ExistsError, MaskhubError, MissingError, OutputError, same_kind


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file, open for reading and writing, that replaces ``path`` when the block ends without an error.

    It lies beside the target until then. A link at ``path`` is replaced, never written through.
    """
    path = Path(path)
    with explained(path):
        _sweep(path)
        temporary, handle = _claimed(lambda: _empty_file(path), os.O_RDWR)
    try:
        with io.BufferedRandom(_Written(handle, path)) as file:
            yield file
            with explained(path):
                file.flush()
                os.fsync(file.fileno())
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
        _sweep(path)
        temporary, handle = _claimed(lambda: tempfile.mkdtemp(**_beside(path)), os.O_RDONLY)
    try:
        yield temporary
        with explained(path):
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(path)  # also over an empty folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(handle)


class _Written(io.FileIO):
    """A file whose errors on writing are explained, and no others of who writes it."""

    def __init__(self, handle: int, path: Path) -> None:
        super().__init__(handle, "r+b")
        self._path = path

    def write(self, data: Any) -> int:
        with explained(self._path):
            return super().write(data)


def _empty_file(path: Path) -> str:
    handle, name = tempfile.mkstemp(**_beside(path))
    os.close(handle)
    return str(name)


def _beside(path: Path) -> dict[str, Any]:
    """Where, and under what names, what becomes ``path`` is made."""
    return {"prefix": f".{path.name}.", "suffix": ".tmp", "dir": path.absolute().parent}


def _claimed(make: Callable[[], str], flags: int) -> tuple[Path, int]:
    """Something temporary, and a handle whose lock says that a process is still at work on it."""
    while True:
        temporary = Path(make())
        try:
            handle = os.open(temporary, flags)
        except FileNotFoundError:  # a sweep came between making and opening
            continue
        if _lock(handle) is not False and temporary.exists():  # else one came between opening and locking
            return temporary, handle
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed processes left of ``path``: what nobody holds a lock on."""
    where = _beside(path)
    for left in Path(where["dir"]).glob(glob.escape(where["prefix"]) + "*" + where["suffix"]):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                if _lock(handle):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether this process now holds the lock of an open file or folder; the system lets go of it at its end.

    None where there are no locks (some network file systems): nothing is swept there.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def write_at(handle: int, data: Any, place: int) -> int:
    """Write all of a piece at a place of an open file; the place behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, place)
        view, place = view[written:], place + written
    return place


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one whole file."""
    with atomic_file(path) as file:
        file.write(data)


def sync_tree(folder: Path) -> None:
    """Have the disk hold all that lies in a folder: each file, then the folders from the innermost out."""
    with explained(folder):
        for where, _, files in os.walk(folder, topdown=False):
            for name in files:
                _sync_file(Path(where, name))
            sync_folder(Path(where))


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder's names."""
    with explained(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _synced_names(handle)
        finally:
            os.close(handle)


def _sync_file(path: Path) -> None:
    if not path.is_symlink():
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _synced_names(handle: int) -> None:
    """Sync an open folder, where its file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def claim_folder(path: Path) -> None:
    """ExistsError unless ``path`` is free: absent, or an empty folder."""
    with explained(path):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            return
        if path.exists() or path.is_symlink():
            kind = "is a link" if path.is_symlink() else "is not empty" if path.is_dir() else "is not a folder"
            raise ExistsError(f"{path}: the output folder exists and {kind}", hint="Name a new folder.")
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if not nearest.is_dir():
            raise OutputError(f"{path}: cannot be written: {nearest} is a file", hint="Name a new folder.")


def claim_file(path: Path, *, force: bool = False) -> None:
    """An error unless a file can be made at ``path``: nothing is there, or with ``force`` a file."""
    with explained(path):
        if path.is_dir():
            raise ExistsError(f"{path}: the output is a folder", hint="Name a file.")
        if not force and (path.exists() or path.is_symlink()):
            raise ExistsError(f"{path}: the output file exists", hint="Name another one, or replace it with --force.")
        if not path.absolute().parent.is_dir():
            raise MissingError(f"{path}: there is no folder {path.parent}", hint="Make it first.")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors inside the block into an OutputError, or one of their kind, about ``path``."""
    try:
        yield
    except MaskhubError:
        raise
    except OSError as error:
        raise same_kind(error, OutputError)(f"{path}: cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
