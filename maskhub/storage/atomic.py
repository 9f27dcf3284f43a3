"""Writing files and folders so that they appear whole or not at all, and outlast a power cut once they are there.

What is written lies beside its target, under a hidden name, until it is done. Then the disk is made to hold it, it gets
its name, and the disk is made to hold that, too.

Others may be able to write in that folder. So what is written is made anew, with the permissions that the system gives,
and from then on used by its handle: no name is opened twice, and no link is followed. A neighbour who puts something
else under a hidden name gets an error raised, and leads nobody to write, lock or delete elsewhere. One thing cannot be
prevented: who may rename things in a folder (one without the sticky bit) can put something else in the place of an
output, in the moment in which it gets its name as well as later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, Self

from maskhub.errors import ExistsError, MaskhubError, MissingError, OutputError, same_kind
from maskhub.storage.work import workers

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FOUND = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # what another one may have put there
SYNC_FILE_RANGE_WRITE = 2
MARK = ".maskhub"  # lies in a folder that is being made, and tells it from folders of others when leftovers are swept


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file, open for reading and writing, that replaces ``path`` when the block ends without an error.

    A link at ``path`` is replaced, never written through. Raises OutputError where it cannot be written; what else the
    block raises stays as it is.
    """
    with _NewFile(Path(path)) as new:
        yield new.file
        new.sync()
        new.appear()
        new.settle()


@contextlib.contextmanager
def atomic_folders(paths: Sequence[str | Path]) -> Iterator[list[NewFolder]]:
    """Empty folders that become ``paths`` when the block ends without an error: all of them, or none.

    Where one cannot get its name, those that have theirs lose it again. Only a kill or a power cut in the moment in
    which they get their names can leave some of them without the others; each one there is whole.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        claim_folder(path)
    with contextlib.ExitStack() as stack:
        new = []
        for path in targets:
            stack.push(partial(_unmade, make_folder(path.absolute().parent)))
            new.append(stack.enter_context(NewFolder(path)))
        yield new
        for step in (NewFolder.sync, NewFolder.appear, NewFolder.settle):
            for folder in new:
                step(folder)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one whole file."""
    with atomic_file(path) as file:
        file.write(data)


class _New:
    """A file or folder in the making: its handle, and that of the folder it lies in.

    As a context it is gone again at the end of a block that raises.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, path.absolute().name
        self._handle, self._hidden = -1, ""
        self._files: list[io.BufferedRandom] = []
        with explained(path):
            self._parent = _open_folder(path.absolute().parent)
            try:
                _sweep(self._parent, self._name)
                self._claim()
                self._begin()
            except BaseException as error:  # an interrupt, too
                self.__exit__(type(error), error, None)
                raise

    def _claim(self) -> None:
        """Make it under a hidden name; the lock of its handle says that a process is at work on it."""
        while True:
            self._hidden = f".{self._name}.{secrets.token_hex(4)}.tmp"
            with contextlib.suppress(FileExistsError):
                if (handle := self._make()) is not None:
                    self._handle = handle
                    if _lock(handle) is not False and self._is_at(self._hidden):
                        return
                    self._handle = -1
                    os.close(handle)  # a sweep came between

    def _make(self) -> int | None:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _vanish(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for file in self._files:
            file.raw.close()  # what a buffer holds after an error is not written any more
        try:
            if error is not None:
                self._vanish()
        finally:
            for handle in (self._handle, self._parent):
                if handle >= 0:
                    os.close(handle)
        failed = next((file.raw.failed for file in self._files if file.raw.failed), None)  # type: ignore[attr-defined]
        if isinstance(error, Exception) and failed not in (None, error):
            raise failed from error  # a library made something else of it

    def sync(self) -> None:
        """Have the disk hold its content."""
        for file in self._files:
            file.flush()
        with explained(self._path), ThreadPoolExecutor(workers()) as pool:
            list(pool.map(_sync, [file.fileno() for file in self._files]))

    def appear(self) -> None:
        """Give it its name."""
        with explained(self._path), contextlib.suppress(FileNotFoundError):
            if self._is_at(self._hidden):
                os.rename(self._hidden, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
                return
        raise OutputError(
            f"{self._path}: cannot be written: another program moved or replaced {self._hidden} beside it",
            hint="Write to a folder in which nobody else can.",
        )

    def settle(self) -> None:
        """Have the disk hold its name."""
        with explained(self._path):
            _sync_names(self._parent)

    def _is_at(self, name: str) -> bool:
        """Whether it is what lies there under this name."""
        try:
            return self._handle >= 0 and os.path.samestat(os.fstat(self._handle), self._stat(name))
        except FileNotFoundError:
            return False

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._parent, follow_symlinks=False)


class _NewFile(_New):
    """A file in the making."""

    @property
    def file(self) -> IO[bytes]:
        return self._files[0]

    def _make(self) -> int:
        return os.open(self._hidden, NEW, 0o666, dir_fd=self._parent)

    def _begin(self) -> None:
        self._files.append(io.BufferedRandom(_Written(self._handle, self._path, closefd=False)))

    def _vanish(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_at(self._hidden):
                os.unlink(self._hidden, dir_fd=self._parent)


class NewFolder(_New):
    """A folder in the making. Files are made in it by its handle, wherever its name leads meanwhile."""

    _replaced: int | None = None  # permissions of an empty folder that lay in its place

    def create(self, name: str) -> IO[bytes]:
        """A new file in it, or in a folder in it, open for reading and writing until the folder is done."""
        *folders, last = name.split("/")
        with explained(self._path), contextlib.ExitStack() as opened:
            where = self._handle
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=where)
                where = os.open(folder, FOLDER | os.O_NOFOLLOW, dir_fd=where)
                opened.callback(os.close, where)
                opened.callback(_sync_names, where)  # when the file is in it
            handle = os.open(last, NEW, 0o666, dir_fd=where)
        self._files.append(io.BufferedRandom(_Written(handle, self._path)))
        return self._files[-1]

    def write(self, name: str, data: bytes) -> None:
        """Make a whole file in it."""
        self.create(name).write(data)

    def _make(self) -> int | None:
        os.mkdir(self._hidden, dir_fd=self._parent)
        try:
            return os.open(self._hidden, FOLDER | os.O_NOFOLLOW, dir_fd=self._parent)
        except FileNotFoundError:  # a sweep came between
            return None

    def _begin(self) -> None:
        os.close(os.open(MARK, NEW, 0o666, dir_fd=self._handle))

    def appear(self) -> None:
        """Give it its name, also in the place of an empty folder."""
        with explained(self._path):
            os.unlink(MARK, dir_fd=self._handle)
            _sync_names(self._handle)
            with contextlib.suppress(FileNotFoundError):
                there = self._stat(self._name).st_mode
                self._replaced = stat.S_IMODE(there) if stat.S_ISDIR(there) else None
        super().appear()

    def _vanish(self) -> None:
        try:
            if self._is_at(self._name):
                os.rename(self._name, self._hidden, src_dir_fd=self._parent, dst_dir_fd=self._parent)
                if self._replaced is not None:
                    os.mkdir(self._name, self._replaced, dir_fd=self._parent)
        except OSError as error:
            raise OutputError(f"{self._path}: was made, and cannot be taken back: {error.strerror}") from error
        with contextlib.suppress(OSError):
            if self._handle >= 0:
                _empty(self._handle)
            os.rmdir(self._hidden, dir_fd=self._parent)  # which no full folder of another one lets happen


class _Written(io.FileIO):
    """A file whose errors on writing are explained, and no others of who writes it; ``failed`` is the first."""

    failed: BaseException | None = None

    def __init__(self, handle: int, path: Path, *, closefd: bool = True) -> None:
        super().__init__(handle, "r+b", closefd=closefd)
        self._path = path

    def write(self, data: Any) -> int:
        try:
            with explained(self._path):
                return super().write(data)
        except MaskhubError as error:
            self.failed = self.failed or error
            raise


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, FOLDER)
    except PermissionError:  # one may write in it, and not list it
        if not hasattr(os, "O_PATH"):
            raise
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _sweep(parent: int, name: str) -> None:
    """Remove what killed processes left of an output: what nobody holds a lock on."""
    hidden = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        found = [one.name for one in entries if hidden.fullmatch(one.name)]
        for left in found:
            with contextlib.suppress(OSError):
                _sweep_one(parent, left)


def _sweep_one(parent: int, name: str) -> None:
    handle = os.open(name, os.O_RDONLY | FOUND, dir_fd=parent)
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode) and _lock(handle):
            with contextlib.suppress(FileNotFoundError):
                os.stat(MARK, dir_fd=handle, follow_symlinks=False)
                _empty(handle)
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _lock(handle):
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(handle)


def _empty(folder: int) -> None:
    """Remove all that is in an open folder, the mark last: what is left after a kill is swept, too."""
    for name in sorted(os.listdir(folder), key=MARK.__eq__):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            inner = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            try:
                _empty(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made for it and stays, waiting while another process holds it.

    Nothing is held where there are no locks (some network file systems).
    """
    with explained(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | FOUND, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_at(handle: int, data: Any, place: int) -> int:
    """Write all of a piece at a place of an open file; the place behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, place)
        view, place = view[written:], place + written
    return place


def start_sync(handle: int, start: int, stop: int) -> None:
    """Let the disk begin with a part of a file, where the system can: less is left to wait for when it is synced."""
    if (call := _sync_file_range()) is not None:
        call(handle, ctypes.c_int64(start), ctypes.c_int64(stop - start), SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Any:
    return getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux has it


def make_folder(path: Path) -> list[Path]:
    """Make a folder, and those above it, where they are missing, and have the disk hold their names; those it made."""
    with explained(path):
        if path.is_dir():
            return []
        made = make_folder(path.absolute().parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.absolute().parent)
        return [*made, path]


def _unmade(made: Sequence[Path], kind: object, *_: object) -> None:
    """Remove what was made for an output that did not come about, unless others use it."""
    if kind is not None:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def sync_tree(folder: Path) -> None:
    """Have the disk hold all that lies in a folder: each file, then the folders from the innermost out."""
    with explained(folder):
        for where, _, files in os.walk(folder, topdown=False):
            for name in files:
                if not Path(where, name).is_symlink():
                    sync_file(Path(where, name))
            sync_folder(Path(where))


def sync_file(path: Path) -> None:
    """Have the disk hold a file's content."""
    with explained(path):
        handle = os.open(path, os.O_RDONLY | FOUND)
        try:
            _sync(handle)
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder's names."""
    with explained(folder):
        handle = _open_folder(folder)
        try:
            _sync_names(handle)
        finally:
            os.close(handle)


def _sync(handle: int) -> None:
    os.fsync(handle)
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: or the drive may still hold it in its own memory alone
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)


def _sync_names(handle: int) -> None:
    """Sync an open folder, where its file system can, and where it could be opened to be read."""
    try:
        _sync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
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
