"""``verify``: is a mask whole, and does it fit a base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import CheckedBase, Mask, Parents, Revision, Token
from maskhub.errors import ArgumentError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.storage.work import Progress


@dataclass(frozen=True)
class Verified:
    """What was found to be right: numbers of masks and dense tensors, and of base tensors where a ``base`` was given.

    ``file`` and ``file_bytes`` are None for a mask in memory, ``cached`` where the mask was not put into the cache.
    """

    file: str | None
    id: str
    file_bytes: int | None
    masks: int
    dense: int
    base_name: str
    base: str | None = None
    base_tensors: int | None = None
    cached: Path | None = None


def verify(
    mask: Mask,
    *,
    base: CheckedBase = None,
    cache: Annotated[bool, Option("Keep it decoded in the local cache: to open at once, and as a parent.")] = False,
    parent: Parents = (),
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> Verified:
    """Check every byte of a mask, and with a base every tensor of the base it was made for.

    Raises IntegrityError, FormatError or CodecError naming the first thing that is wrong, and BaseMismatchError for
    another base.

    >>> import maskhub
    >>> maskhub.verify("task.msk", base="base").base_tensors
    39
    """
    from maskhub.checkpoints.apply import check_structure, verify_base
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.checkpoints.match import match
    from maskhub.container.reader import MaskFile, in_cache
    from maskhub.masks.mask import MaskSet

    if base is None and revision:
        raise ArgumentError("--revision is for a base", hint="Give one: --base.")
    file = None
    if isinstance(mask, MaskSet):
        maskset = mask
    else:
        file = MaskFile(mask, parent, whole=True, token=token)
        maskset = file.maskset()
    checkpoint = None
    if base is not None:
        checkpoint = match(open_checkpoint(base, revision=revision, token=token), [maskset])
        check_structure(checkpoint, maskset)  # then masks may be as large as the base is
    if file is not None:
        file.verify()
    if checkpoint is not None:
        verify_base(checkpoint, maskset, progress=progress)
    kept = in_cache(maskset, verify=True) if cache else None
    return Verified(
        file=str(file.path) if file else None,
        id=maskset.id,
        file_bytes=file.file_size if file else None,
        masks=len(maskset.masks),
        dense=len(maskset.dense),
        base_name=maskset.base.name,
        base=checkpoint.name if checkpoint else None,
        base_tensors=len(maskset.base.tensors) if checkpoint else None,
        cached=Path(kept.path) if kept else None,
    )
