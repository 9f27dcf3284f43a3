"""``push``: a mask onto the Hub, or into a shared folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import Force, Mask, Parents, PathLike, Token
from maskhub.options import Option

if TYPE_CHECKING:
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
    from maskhub.remote import push

    return push(
        mask,
        remote,
        name=name,
        message=message,
        private=private,
        revision=revision,
        create_pr=create_pr,
        sign=sign,
        force=force,
        parents=parent,
        token=token,
    )
