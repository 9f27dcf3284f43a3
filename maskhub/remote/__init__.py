"""Masks elsewhere: pushed to, pulled from and listed on the Hub, or in a folder on any file system."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.identify import base_warning, identify
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import ArgumentError, CodecError, FormatError, IntegrityError, MaskhubError, SignatureError
from maskhub.masks.mask import MaskSet
from maskhub.remote import fit, folder, hub, signing
from maskhub.remote.entry import Entry, Fetched, Listed, Pulled, Pushed
from maskhub.storage import address
from maskhub.storage.address import Folder, Hub
from maskhub.storage.atomic import atomic_file, claim_file
from maskhub.storage.work import Progress


def push(
    mask: str | Path | MaskSet,
    to: str,
    *,
    name: str | None = None,
    message: str | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    sign: str | Path | None = None,
    force: bool = False,
    parents: Iterable[str | Path | MaskSet] = (),
    token: str | None = None,
) -> Pushed:
    """Put a mask on a remote: ``user/repo`` or ``user/repo/name`` on the Hub, or a folder here or at a URL.

    Every byte of it is checked before. ``name`` is what it is called there, else as its file is; ``force`` replaces
    another mask of that name. ``sign`` is the file of a private key to sign it with. ``message``, ``private`` (for a
    repo that is made), ``revision`` and ``create_pr`` are for the Hub. Raises ArgumentError for options that do not go
    together, and RemoteError where the remote refuses the mask, or has another one of that name.
    """
    place = address.parse(to)
    if name is not None and place.name not in (None, address.with_suffix(name)):
        raise ArgumentError(f"{to}: names another mask than {name}", hint="Leave one of the names out.")
    if isinstance(place, Folder) and (private or create_pr or revision):
        raise ArgumentError(f"{to}: --private, --create-pr and --revision are for the Hub", hint="Leave them out.")
    with contextlib.ExitStack() as stack:
        if isinstance(mask, MaskSet):
            name = name or place.name
            if name is None:
                raise ArgumentError("a mask in memory has no name", hint="Name it: name.")
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "mask.msk"
            save(mask, path)
            mask = path
        file = MaskFile(mask, parents, token=token)
        file.verify()
        signature = None if sign is None else signing.sign(file.content(), sign)
        called = place.name or address.with_suffix(address.file_name(file.path) if name is None else name)
        entry = Entry.of(file.maskset().summary(), called)
        if isinstance(place, Folder):
            pushed = folder.push(file, entry, place, signature=signature, force=force)
        else:
            pushed = hub.push(
                file,
                entry,
                place,
                signature=signature,
                message=message,
                private=private,
                revision=revision,
                create_pr=create_pr,
                force=force,
                token=token,
            )
        return replace(pushed, warning=_base_warning(file, token))


def pull(
    mask: str,
    output: str | Path | None = None,
    *,
    base: str | Path | Checkpoint | None = None,
    require_signature: str | Path | None = None,
    force: bool = False,
    parents: Iterable[str | Path | MaskSet] = (),
    token: str | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Get a mask from a remote; it counts as here when every byte of it has been checked.

    It lies in a cache, or is copied to ``output``, which ``force`` replaces. ``base``, a checkpoint here or a model on
    the Hub, must be the one that it was made for, and its signature by the public key in the file
    ``require_signature``. Raises RemoteError where the mask cannot be had, IntegrityError where it is damaged,
    BaseMismatchError, and SignatureError.
    """
    if output is not None:
        claim_file(Path(output), force=force)
    parents = tuple(parents)
    key = require_signature
    found = _fetch(mask, token, again=False, signed=key is not None)
    try:
        file = _checked(found, key, parents, token)
    except (FormatError, IntegrityError, CodecError, SignatureError):  # perhaps in the cache only
        found = _fetch(mask, token, again=True, signed=key is not None)
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
    base: str | Path | Checkpoint | None = None,
    author: str | None = None,
    search: str | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[Listed]:
    """The masks on the Hub, or those in one repo or folder, as their cards or else their headers tell.

    ``base`` is the model they must be for: by its Hub id or name, or a checkpoint here, which they then fit by their
    digests, whatever they call it. Raises RemoteError.
    """
    place = address.parse(where) if where else None
    chosen = fit.chooser(base)
    if isinstance(place, Folder):
        if author:
            raise ArgumentError(f"{where}: --author is for the Hub", hint="Leave it out.")
        found = folder.entries(place, search=search)
    else:
        named = str(base) if isinstance(base, str | Path) and not address.exists(base) else None
        most = limit if named or base is None else None  # what is chosen here can be anywhere
        found = hub.entries(place, base=named, author=author, search=search, limit=most, token=token)
    return list(itertools.islice((one for one, opener in found if chosen(one.entry, opener)), limit))


def _fetch(source: str, token: str | None, *, again: bool, signed: bool) -> Fetched:
    place = address.parse(source)
    if isinstance(place, Hub):
        return hub.fetch(place, token=token, again=again, signed=signed)
    return folder.fetch(place, signed=signed)


def _base_warning(file: MaskFile, token: str | None) -> str | None:
    base = file.manifest.base
    if base.hub:
        return None
    found = None
    if address.exists(base.name):
        with contextlib.suppress(MaskhubError):
            found = identify(open_checkpoint(base.name), token=token)
    return base_warning(base.name, found, cure="maskhub pack MASK -o NEW.msk --base-name")


def _checked(
    found: Fetched, key: str | Path | None, parents: Iterable[str | Path | MaskSet], token: str | None
) -> MaskFile:
    file = MaskFile(found.path, parents, token=token)
    if key is not None:
        signing.check(file.content(), found.signature, key, found.address)
    file.verify()
    return file
