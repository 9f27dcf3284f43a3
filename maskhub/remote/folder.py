"""Shared folders of masks, here or on any file system of fsspec, to which several may write at once.

What lies in ``objects`` never changes. A mask, its card and its signature get there first, and then a name in
``index`` in one step. ``docs/remotes.md`` describes the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from maskhub.container import cache
from maskhub.container.reader import MaskFile
from maskhub.errors import ForbiddenError, FormatError, IntegrityError, MaskhubError, MissingError, RemoteError
from maskhub.remote import card, signing
from maskhub.remote.entry import Entry, Fetched, Listed, Pushed, claim_name
from maskhub.remote.fit import Opener
from maskhub.storage import atomic as files
from maskhub.storage import folderfile
from maskhub.storage.address import INDEX, SUFFIX, Folder, short
from maskhub.storage.folderfile import NAME, OBJECTS, Sha256, join, mask_path, read_pointer
from maskhub.storage.remotefile import FileReader, ask, file_system, read_small, read_whole
from maskhub.storage.url import is_url, public_name

# File systems of fsspec where a written file appears at once and whole, also in the place of another one.
AT_ONCE = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
MAX_CARD = 1 << 24  # bytes
MAX_SIGNATURE = 1 << 12
READERS = 16  # entries of an index read at once
PUSH_AGAIN = "Push it again with --force."


class Pointer(folderfile.Pointer, frozen=True):
    """What a name stands for: also the SHA-256 of the card, and what lists show."""

    card: Sha256
    entry: Entry


def push(file: MaskFile, entry: Entry, place: Folder, *, signature: bytes | None, force: bool) -> Pushed:
    """Put a mask, its card and its signature into a folder, and name it; nothing is written that is there already.

    Raises RemoteError where the name is another mask's, or the folder cannot be written to.
    """
    folder, name = place.url, entry.name.removesuffix(SUFFIX)
    if is_url(folder) and re.match(r"https?:|.*[?#]|.*::", folder, re.IGNORECASE):
        raise _only_read(folder)
    if not NAME.fullmatch(name):
        raise RemoteError(
            f"{name!r}: not a name for a mask in a folder",
            hint="Take at most 100 letters, digits, '-', '_' and '.': --name NAME.",
        )
    address = public_name(join(folder, entry.name))
    there = _there(folder, name, force)
    content = bytes(file.content())
    sha256 = hashlib.sha256(content).hexdigest()
    if there and there.mask != sha256 and not force:
        claim_name(file, partial(_open, mask_path(folder, there)), address)
    objects: dict[str, bytes] = {}
    if force or _digest(join(folder, OBJECTS, sha256 + SUFFIX), len(content)) != sha256:
        objects[sha256 + SUFFIX] = content
    signed = sha256 + SUFFIX + signing.SUFFIX
    if signature and (force or _read(join(folder, OBJECTS, signed), MAX_SIGNATURE) != signature):
        objects[signed] = signature
    pointer = there
    if force or not there or (there.mask, there.entry) != (sha256, entry):
        old = _card(folder, there, force) if there else None
        text = old.decode(errors="surrogateescape") if old else None
        text = card.updated(text, entry, address, [entry.name])
        new = text.encode(errors="surrogateescape")
        pointer = Pointer("maskhub-index-1", sha256, hashlib.sha256(new).hexdigest(), entry)
        objects[f"{pointer.card}.md"] = new
    for object_name, data in objects.items():
        _write(folder, f"{OBJECTS}/{object_name}", data)
    if pointer != there:
        _write(folder, f"{INDEX}/{name}.json", msgspec.json.format(msgspec.json.encode(pointer)))
    return Pushed(address, address, entry.id, changed=bool(objects))


def fetch(place: Folder, *, signed: bool = False) -> Fetched:
    """A mask's file in the local cache: one at this place, or what has this name there; its signature where ``signed``.

    Raises RemoteError, and IntegrityError where it is not the file, or the mask, that the index says.
    """
    path = str(place)
    address = public_name(path)
    try:
        folderfile.refuse_folder(path)
        here = _download(path, address)
    except (MissingError, ForbiddenError) as error:
        if (found := folderfile.find(path, Pointer)) is None:
            if isinstance(error, MissingError):
                error.hint = f"What is there: maskhub list {public_name(folderfile.split(path)[0])}"
            raise
        path, pointer = mask_path(*found), found[1]
        here = _download(path, address, pointer)
        if MaskFile(here).manifest.id != pointer.entry.id:
            raise IntegrityError(f"{address}: not the mask that the index says", hint=PUSH_AGAIN) from None
    return Fetched(here, address, _read(path + signing.SUFFIX, MAX_SIGNATURE) if signed else None)


def entries(place: Folder, *, search: str | None = None) -> list[tuple[Listed, Opener]]:
    """Masks in a folder's index, by name, and how to open each: with ``search`` in their names. Raises RemoteError."""
    try:
        found = folderfile.entries(place.url)
    except MissingError as error:
        hint = f"Masks get there by: maskhub push MASK {public_name(place.url)}"
        raise MissingError(f"{public_name(place.url)}: no folder of masks: it has no index", hint=hint) from error
    wanted = [name for name in found if search is None or search.lower() in name.lower()]
    with ThreadPoolExecutor(READERS) as pool:
        return [one for one in pool.map(lambda name: _listed(place.url, name), wanted) if one]


def _listed(folder: str, name: str) -> tuple[Listed, Opener] | None:
    path = join(folder, name + SUFFIX)
    address = public_name(path)
    if not NAME.fullmatch(name):
        problem = f"{public_name(folder)}: {short(name)}: not a name for a mask in a folder; left out"
        return Listed(address, None, problem=problem), partial(_open, path)
    try:
        pointer = read_pointer(folder, name, Pointer)
    except MaskhubError as error:
        return Listed(address, None, problem=error.message), partial(_open, path)
    if pointer is None:
        return None
    return Listed(address, replace(pointer.entry, name=name + SUFFIX)), partial(_open, mask_path(folder, pointer))


def _open(path: str) -> MaskFile:
    """A mask in a folder. One that is gone is not looked for on the Hub."""
    return MaskFile(path if is_url(path) else Path(path))


def _there(folder: str, name: str, force: bool) -> Pointer | None:
    try:
        return read_pointer(folder, name, Pointer)
    except (FormatError, ForbiddenError):
        if force:
            return None
        raise


def _digest(path: str, size: int) -> str | None:
    """The SHA-256 of a file of this size; None where there is none."""
    with contextlib.suppress(MissingError, ForbiddenError):
        reader = FileReader(path, public_name(path))
        if reader.size == size:
            digest = hashlib.sha256()
            for chunk in reader.read(0, size):
                digest.update(chunk)
            return digest.hexdigest()
    return None


def _card(folder: str, pointer: Pointer, force: bool) -> bytes | None:
    """A mask's card, to be written anew with what people wrote into it; with ``force`` None for one that is none."""
    try:
        return _read(join(folder, OBJECTS, f"{pointer.card}.md"), MAX_CARD)
    except (FormatError, RemoteError):
        if force:
            return None
        raise


def _read(path: str, limit: int) -> bytes | None:
    with contextlib.suppress(MissingError, ForbiddenError):
        return read_small(path, limit)
    return None


def _download(path: str, address: str, pointer: Pointer | None = None) -> Path:
    """A file in the local cache, fetched by one process at a time; none is fetched that is there and ``pointer``'s."""
    place = path if is_url(path) else str(Path(path).absolute())
    key = hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()
    target = cache.folder() / "downloads" / f"{key}{SUFFIX}"
    files.make_folder(target.parent)
    with files.locked(target.with_suffix(f"{SUFFIX}.lock")) if pointer else contextlib.nullcontext():
        if pointer and target.is_file() and _digest(str(target), target.stat().st_size) == pointer.mask:
            return target
        with files.atomic_file(target) as file:
            digest = hashlib.sha256()
            for chunk in read_whole(path, target.parent):
                digest.update(chunk)
                file.write(chunk)
            if pointer and digest.hexdigest() != pointer.mask:
                raise IntegrityError(f"{address}: damaged: not the file that the index says", hint=PUSH_AGAIN)
    return target


def _write(folder: str, name: str, content: bytes) -> None:
    """Make a file so that others see all of it or nothing. Raises RemoteError."""
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.spec import AbstractFileSystem

    place = join(folder, name)
    system, there = file_system(place)
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    try:
        if isinstance(system, LocalFileSystem):
            parent = Path(there).parent
            ask(place, parent.mkdir, exist_ok=True, doing="written")
            files.sync_folder(parent.parent)
            files.write_atomic(there, content)
        elif protocols & AT_ONCE:
            ask(place, system.pipe_file, there, content, doing="written")
        elif type(system).mv is not AbstractFileSystem.mv:  # that would copy
            ask(place, _write_and_move, system, there, content, doing="written")
        else:
            raise _only_read(folder)
    except MissingError as error:
        raise MissingError(f"{public_name(folder)}: no such folder or bucket", hint="Make it first.") from error


def _write_and_move(system: Any, path: str, content: bytes) -> None:
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{secrets.token_hex(8)}.tmp"
    system.makedirs(folder, exist_ok=True)
    try:
        system.pipe_file(temporary, content)
        system.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            system.rm_file(temporary)
        raise


def _only_read(path: str) -> RemoteError:
    return RemoteError(
        f"{public_name(path)}: masks cannot be pushed there, only read",
        hint="Push to a folder here, or to an object store such as s3://bucket/folder.",
    )
