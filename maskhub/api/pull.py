"""``pull``: a mask from the Hub, or from a shared folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import BASE_HELP, BaseLike, Force, Parents, PathLike, Token
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.remote.entry import Pulled
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
    from maskhub.remote import pull

    return pull(
        mask,
        output,
        base=base,
        require_signature=require_signature,
        force=force,
        parents=parent,
        token=token,
        progress=progress,
    )
