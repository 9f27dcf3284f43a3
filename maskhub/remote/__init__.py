"""Masks elsewhere: pushed to, pulled from and listed on the Hub, or in a folder on any file system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from maskhub.container.reader import MaskFile
from maskhub.errors import CodecError, FormatError, IntegrityError, RemoteError, SignatureError
from maskhub.masks.mask import MaskSet
from maskhub.remote import fit, folder, hub, signing
from maskhub.remote.entry import Entry, Fetched, Listed, Pulled, Pushed, PushOptions
from maskhub.storage import address
from maskhub.storage.address import Hub
from maskhub.storage.atomic import atomic_file, claim_file
from maskhub.storage.work import Progress

DEFAULTS = PushOptions()


def push(
    mask: str | Path,
    to: str,
    options: PushOptions = DEFAULTS,
    *,
    sign: str | Path | None = None,
    parents: Iterable[str | Path | MaskSet] = (),
) -> Pushed:
    """Put a mask on a remote: ``user/repo`` or ``user/repo/name`` on the Hub, or a folder here or at a URL.

    Every byte of it is checked before. ``sign`` is the file of a private key to sign it with. Raises RemoteError where
    the remote refuses it, or has another mask of that name.
    """
    file = MaskFile(mask, parents, token=options.token)
    file.verify()
    if sign is not None:
        options = replace(options, signature=signing.sign(file.content(), sign))
    place = address.parse(to)
    name = place.name or address.with_suffix(address.file_name(file.path) if options.name is None else options.name)
    if options.name is not None and name != address.with_suffix(options.name):
        raise RemoteError(f"{to}: names another mask than {options.name}", hint="Leave one of the names out.")
    entry = Entry.of(file.maskset().summary(), name)
    if isinstance(place, Hub):
        return hub.push(file, entry, place, options)
    if options.private or options.create_pr or options.revision:
        raise RemoteError(f"{to}: --private, --create-pr and --revision are for the Hub", hint="Leave them out.")
    return folder.push(file, entry, place, options)


def pull(
    source: str,
    output: str | Path | None = None,
    *,
    replace: bool = False,
    base: str | Path | None = None,
    key: str | Path | None = None,
    token: str | None = None,
    parents: Iterable[str | Path | MaskSet] = (),
    progress: Progress | None = None,
) -> Pulled:
    """Get a mask from a remote; it counts as here when every byte of it has been checked.

    It lies in a cache, or is copied to ``output``. ``base``, a checkpoint here or a model on the Hub, must be the one
    that it was made for, and its signature by the public key in the file ``key``. Raises RemoteError where the mask
    cannot be had, IntegrityError where it is damaged, BaseMismatchError, and SignatureError.
    """
    if output is not None:
        claim_file(Path(output), replace=replace)
    parents = tuple(parents)
    found = _fetch(source, token, again=False, signed=key is not None)
    try:
        file = _checked(found, key, parents, token)
    except (FormatError, IntegrityError, CodecError, SignatureError):  # perhaps in the cache only
        found = _fetch(source, token, again=True, signed=key is not None)
        file = _checked(found, key, parents, token)
    fits = None if base is None else fit.check_base(file, base, token=token, progress=progress)
    path = found.path
    if output is not None:
        path = Path(output)
        with atomic_file(path) as target:
            target.write(file.content())
    return Pulled(path, found.address, file.manifest.id, file.file_size, fits)


def list_masks(
    where: str | None = None,
    *,
    base: str | None = None,
    author: str | None = None,
    search: str | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[Listed]:
    """The masks on the Hub, or those in one repo or folder, as their cards or else their headers tell.

    ``base`` is the Hub id or name of the model they must be for. Raises RemoteError.
    """
    place = address.parse(where) if where else None
    if place is None or isinstance(place, Hub):
        return hub.entries(place, base=base, author=author, search=search, limit=limit, token=token)
    if author:
        raise RemoteError(f"{where}: --author is for the Hub", hint="Leave it out.")
    return folder.entries(place, base=base, search=search)[:limit]


def _fetch(source: str, token: str | None, *, again: bool, signed: bool) -> Fetched:
    place = address.parse(source)
    if isinstance(place, Hub):
        return hub.fetch(place, token=token, again=again, signed=signed)
    return folder.fetch(place, signed=signed)


def _checked(
    found: Fetched, key: str | Path | None, parents: Iterable[str | Path | MaskSet], token: str | None
) -> MaskFile:
    file = MaskFile(found.path, parents, token=token)
    if key is not None:
        signing.check(file.content(), found.signature, key, found.address)
    file.verify()
    return file
