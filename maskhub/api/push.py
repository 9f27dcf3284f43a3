"""``push``: a mask onto the Hub, or into a shared folder."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import Force, Mask, Parents, PathLike, Token
from maskhub.errors import ArgumentError, MaskhubError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.container.reader import MaskFile
    from maskhub.remote.entry import Pushed


def push(
    mask: Mask,
    remote: Annotated[str, Option("user/repo or user/repo/name on the Hub, or a folder here or at a URL.", "REMOTE")],
    *,
    name: Annotated[str | None, Option("What to call it there; else as the file is.", "NAME")] = None,
    message: Annotated[str | None, Option("Of the commit.", "TEXT", ("-m",))] = None,
    private: Annotated[bool, Option("Make a missing repo private.")] = False,
    revision: Annotated[str | None, Option("Branch of the repo; made if it is missing.", "BRANCH")] = None,
    create_pr: Annotated[bool, Option("Propose it as a pull request.")] = False,
    sign: Annotated[PathLike | None, Option("Sign it with the private Ed25519 key in this file.", "KEY")] = None,
    force: Force = False,
    parent: Parents = (),
    token: Token = None,
) -> Pushed:
    """Put a mask on the Hub, or into a shared folder, with a card that says what it is.

    Every byte of the mask is checked before. A missing repo is made; what is there already is left as it is.

    Raises RemoteError where the remote refuses it, or has another mask of that name.

    >>> import maskhub
    >>> maskhub.push("task.msk", "./shared").address
    './shared/task.msk'
    """
    from maskhub.container.reader import MaskFile
    from maskhub.container.writer import save
    from maskhub.masks.mask import MaskSet
    from maskhub.remote import folder, hub, signing
    from maskhub.remote.entry import Entry
    from maskhub.storage import address

    key = None if sign is None else signing.private_key(sign)  # first: what comes next takes long
    place = address.parse(remote)
    if name is not None and place.name not in (None, address.with_suffix(name)):
        raise ArgumentError(f"{remote}: names another mask than {name}", hint="Leave one of the names out.")
    if isinstance(place, address.Folder) and (private or create_pr or revision):
        raise ArgumentError(f"{remote}: --private, --create-pr and --revision are for the Hub", hint="Leave them out.")
    with contextlib.ExitStack() as stack:
        if isinstance(mask, MaskSet):
            name = name or place.name
            if name is None:
                raise ArgumentError("a mask in memory has no name", hint="Name it: name.")
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "mask.msk"
            save(mask, path)
            mask = path
        file = MaskFile(mask, parent, token=token)
        file.verify()
        signature = None if key is None else signing.sign(file.content(), key)
        called = place.name or address.with_suffix(address.file_name(file.path) if name is None else name)
        entry = Entry.of(file.maskset().summary(), called)
        if isinstance(place, address.Folder):
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


def _base_warning(file: MaskFile, token: str | None) -> str | None:
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.checkpoints.identify import base_warning, identify
    from maskhub.storage import address

    base = file.manifest.base
    if base.hub:
        return None
    found = None
    if address.exists(base.name):
        with contextlib.suppress(MaskhubError):
            found = identify(open_checkpoint(base.name), token=token)
    return base_warning(base.name, found, cure="maskhub pack MASK -o NEW.msk --base-name")
