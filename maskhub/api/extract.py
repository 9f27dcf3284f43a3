"""``extract``: the mask of a dense checkpoint, which is what ``pack`` does, asked the way ``apply`` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from maskhub.api.pack import pack
from maskhub.api.parameters import Base, BaseName, Force, Like, PathLike, Revision, Token
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet
    from maskhub.storage.work import Progress


def extract(
    base: Base,
    dense: Annotated[PathLike, Option("What was built, or pruned, from it.", "DENSE")],
    output: Annotated[
        PathLike | None, Option("The mask to write; DENSE's name with .msk, here, if left.", "FILE", ("-o",))
    ] = None,
    *,
    like: Like = None,
    base_name: BaseName = None,
    force: Force = False,
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> MaskSet:
    """Recover the mask of a dense checkpoint: apply, undone.

    The id is that of the mask it was built from, unless a weight that it drops was 0 in the base already. No checkpoint
    tells where training began, so the file of a mask that train made gets about twice as large, but with --like it is
    as small. The same as pack with a base.

    Raises as ``pack`` does.

    >>> import maskhub
    >>> _ = maskhub.apply("base", "task.msk", "built")
    >>> maskhub.extract("base", "built").id == maskhub.open("task.msk").id
    True
    """
    return pack(
        dense,
        output,
        base=base,
        like=like,
        base_name=base_name,
        force=force,
        revision=revision,
        token=token,
        progress=progress,
    )
