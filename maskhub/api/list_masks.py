"""``list_masks``: masks on the Hub, or in a shared folder."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import BaseLike, Token
from maskhub.errors import ArgumentError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.remote.entry import Listed


def list_masks(
    remote: Annotated[
        str | None, Option("A repo on the Hub, or a folder here or at a URL; else the whole Hub.", "REMOTE")
    ] = None,
    *,
    base: Annotated[
        BaseLike | None, Option("For this base: its Hub id, its name, or a checkpoint here.", "BASE")
    ] = None,
    author: Annotated[str | None, Option("Of this user or organization.", "USER")] = None,
    search: Annotated[str | None, Option("In the repo's name.", "TEXT")] = None,
    limit: Annotated[int, Option("At most this many.", "N")] = 30,
    token: Token = None,
) -> list[Listed]:
    """List masks on the Hub, or in a repo or a shared folder: task, base, size, bits a weight, metrics.

    They are read from cards, or else from the masks' manifests.

    Raises RemoteError.

    >>> import maskhub
    >>> _ = maskhub.push("task.msk", "./store")
    >>> [one.address for one in maskhub.list_masks("./store")]
    ['./store/task.msk']
    """
    from maskhub.remote import fit, folder, hub
    from maskhub.storage import address

    if limit < 1:
        raise ArgumentError(f"limit: {limit} is not at least 1")
    place = address.parse(remote) if remote else None
    chosen = fit.chooser(base)
    if isinstance(place, address.Folder):
        if author:
            raise ArgumentError(f"{remote}: --author is for the Hub", hint="Leave it out.")
        found = folder.entries(place, search=search)
    else:
        named = str(base) if isinstance(base, str | Path) and not address.exists(base) else None
        most = limit if named or base is None else None  # what is chosen here can be anywhere
        found = hub.entries(place, base=named, author=author, search=search, limit=most, token=token)
    return list(itertools.islice((one for one, opener in found if chosen(one.entry, opener)), limit))
