"""Masks in shared folders, here or on any file system of fsspec: what a name in a folder's index stands for.

``index/NAME.json`` names a mask's file in ``objects``, which is called by its SHA-256. ``docs/remotes.md`` has it all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from maskhub.errors import ForbiddenError, FormatError, MissingError, RemoteError, listed
from maskhub.storage.address import INDEX, SUFFIX, exists
from maskhub.storage.remotefile import FIRST, HEAD, RemoteFile, ask, file_system, read_small
from maskhub.storage.source import LocalFile, Source
from maskhub.storage.url import SCHEMES, is_url, public_name

OBJECTS = "objects"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # never a path
MAX_POINTER = 1 << 20  # bytes

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class Pointer(msgspec.Struct, frozen=True):
    """What a name in the index stands for: the mask file with this SHA-256."""

    format: Literal["maskhub-index-1"]
    mask: Sha256


AnyPointer = TypeVar("AnyPointer", bound=Pointer)


def open_folder(path: str | Path, *, whole: bool = False) -> Source:
    """A mask to be read, in parts or ``whole``: a file at a URL, or what a folder's index has under this name."""
    if is_url(path):
        return _FolderFile(str(path), FIRST if whole else HEAD)
    if (found := find(str(path), Pointer)) is not None:
        return LocalFile(mask_path(*found), str(path))
    if exists(path) and Path(path).is_dir():
        raise FormatError(f"{path}: a folder, and a mask is a file", hint="Name the .msk file.")
    return LocalFile(path)


class _FolderFile(RemoteFile):
    def _start(self, url: str) -> None:
        try:
            refuse_folder(url)
            super()._start(url)
        except (MissingError, ForbiddenError):
            if (found := find(url, Pointer)) is None:
                raise
            super()._start(mask_path(*found))


def find(path: str, kind: type[AnyPointer]) -> tuple[str, AnyPointer] | None:
    """The folder and what the name at the end of ``path`` stands for in it; or the one mask of a folder. Else None.

    Raises RemoteError for a folder with several masks, and FormatError for a damaged index.
    """
    if is_url(path) and re.search(r"[?#]|::", path):  # neither folder nor name
        return None
    folder, name = split(path)
    if NAME.fullmatch(name) and not SCHEMES.fullmatch(folder):
        pointer = read_pointer(folder, name, kind)
        if pointer is not None:
            return folder, pointer
    try:
        found = names(path)
    except (RemoteError, MissingError, ForbiddenError):  # the file system cannot list, or may not
        return None
    if len(found) > 1:
        raise RemoteError(
            f"{public_name(path)}: the folder has several masks: {listed(found, 10)}",
            hint=f"Name one: {join(public_name(path), found[0])}",
        )
    pointer = read_pointer(path, found[0], kind) if found else None
    return (path, pointer) if pointer else None


def refuse_folder(path: str) -> None:
    """MissingError for what cannot be a file: web servers answer with pages there."""
    if path.endswith("/"):
        raise MissingError(f"{public_name(path)}: a folder, not a file")


def read_pointer(folder: str, name: str, kind: type[AnyPointer]) -> AnyPointer | None:
    """What a name stands for in a folder; None where it has no such name."""
    path = join(folder, INDEX, f"{name}.json")
    try:
        content = read_small(path, MAX_POINTER)
    except MissingError:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise FormatError(
            f"{public_name(path)}: not an entry of an index of masks: {error}", hint="Push the mask anew with --force."
        ) from error


def names(folder: str) -> list[str]:
    """The names in a folder's index. Raises MissingError where there is none, RemoteError where it cannot be listed."""
    return [name for name in entries(folder) if NAME.fullmatch(name)]


def entries(folder: str) -> list[str]:
    """As ``names``, with what somebody put there that no name can be; not what is hidden, as unfinished files are."""
    place = join(folder, INDEX)
    system, there = file_system(place)
    files = (str(file).rstrip("/").rpartition("/")[2] for file in ask(place, system.ls, there, detail=False))
    return sorted(file[:-5] for file in files if file.endswith(".json") and not file.startswith("."))


def mask_path(folder: str, pointer: Pointer) -> str:
    """Where the mask file of a name lies."""
    return join(folder, OBJECTS, pointer.mask + SUFFIX)


def split(path: str) -> tuple[str, str]:
    """The folder that a mask's path is in, and the mask's name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash if slash else ".", name.removesuffix(SUFFIX)


def join(folder: str, *parts: str) -> str:
    """The place of what is in a folder."""
    return folder + ("" if folder.endswith("/") else "/") + "/".join(parts)
