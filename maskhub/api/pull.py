"""``pull``: a mask from the Hub, or from a shared folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import BASE_HELP, BaseLike, Force, MaskLike, Parents, PathLike, Token
from maskhub.errors import CodecError, FormatError, IntegrityError, SignatureError
from maskhub.options import Option

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from maskhub.container.reader import MaskFile
    from maskhub.remote.entry import Fetched, Pulled
    from maskhub.storage.address import Folder, Hub
    from maskhub.storage.work import Progress


def pull(
    mask: Annotated[
        str,
        Option(
            "user/repo, user/repo/name or user/repo/name@revision on the Hub, or a mask in a shared folder.", "MASK"
        ),
    ],
    output: Annotated[PathLike | None, Option("Copy it here; else it stays in the cache.", "FILE", ("-o",))] = None,
    *,
    base: Annotated[
        BaseLike | None, Option(f"Check the fit to it, too. {BASE_HELP} One on the Hub is not downloaded.", "BASE")
    ] = None,
    require_signature: Annotated[
        PathLike | None, Option("Refuse it unless signed with the public key in this file.", "KEY")
    ] = None,
    force: Force = False,
    parent: Parents = (),
    token: Token = None,
    progress: Progress | None = None,
) -> Pulled:
    """Get a mask from the Hub or a shared folder, and check every byte of it.

    Raises RemoteError where it cannot be had, IntegrityError where it is damaged, BaseMismatchError for another base,
    and SignatureError.

    >>> import maskhub
    >>> _ = maskhub.push("task.msk", "./masks")
    >>> maskhub.pull("./masks/task", "here.msk").path
    PosixPath('here.msk')
    """
    from maskhub.remote import fit, signing
    from maskhub.remote.entry import Pulled
    from maskhub.storage import address
    from maskhub.storage.atomic import atomic_file, claim_file

    if output is not None:
        claim_file(Path(output), force=force)
    key = None if require_signature is None else signing.public_key(require_signature)
    place = address.parse(mask)
    found = _fetch(place, token, again=False, signed=key is not None)
    try:
        file = _checked(found, key, parent, token)
    except (FormatError, IntegrityError, CodecError, SignatureError):  # perhaps in the Hub's cache only
        if isinstance(place, address.Folder) or (key and found.signature is None):
            raise
        found = _fetch(place, token, again=True, signed=key is not None)
        file = _checked(found, key, parent, token)
    fits = None if base is None else fit.check_base(file, base, token=token, progress=progress)
    path = found.path
    if output is not None:
        path = Path(output)
        with atomic_file(path) as target:
            target.write(file.content())
    return Pulled(path, found.address, file.manifest.id, file.file_size, fits)


def _fetch(place: Hub | Folder, token: str | None, *, again: bool, signed: bool) -> Fetched:
    from maskhub.remote import folder, hub
    from maskhub.storage import address

    if isinstance(place, address.Hub):
        return hub.fetch(place, token=token, again=again, signed=signed)
    return folder.fetch(place, signed=signed)


def _checked(found: Fetched, key: Ed25519PublicKey | None, parent: Sequence[MaskLike], token: str | None) -> MaskFile:
    from maskhub.container.reader import MaskFile
    from maskhub.remote import signing

    file = MaskFile(found.path, parent, token=token)
    if key is not None:
        signing.check(file.content(), found.signature, key, found.address)
    file.verify()
    return file
