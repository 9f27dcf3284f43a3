"""``apply``: dense checkpoints from a base and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import (
    Base,
    Masks,
    Parents,
    PathLike,
    Revision,
    Token,
    names_of,
    several,
)
from maskhub.errors import ArgumentError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.masks.binding import Task
    from maskhub.storage.work import Progress


@dataclass(frozen=True)
class Built:
    """A dense checkpoint that was written to the folder ``path``, of ``bytes`` in all; ``mask`` is the mask's id."""

    path: Path
    bytes: int
    base: str
    mask: str
    verified: bool
    task: Task | None


def apply(
    base: Base,
    masks: Masks,
    output: Annotated[
        PathLike | None,
        Option("A new folder; of several masks, where their folders go. Masks' names if left.", "DIR", ("-o",)),
    ] = None,
    *,
    verify: Annotated[bool, Option("Check that the base is the one the mask was made for.")] = True,
    shard_size: Annotated[
        int | str | None, Option("At most this much a file: 5GB, 500MB; as the base is if left.", "SIZE")
    ] = None,
    dtype: Annotated[
        str | None, Option("Cast floating-point tensors on the way: f32, f16, bf16 or f64.", "DTYPE")
    ] = None,
    code: Annotated[bool, Option("Copy the base's own Python files.")] = False,
    parent: Parents = (),
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> list[Built]:
    """Write the dense checkpoint of a mask's task: the base with its dropped weights 0.

    Plain ``from_pretrained`` loads it. Several masks are built in one pass over the base, each in a folder called as
    the mask; all of them appear, or none (a kill or a power cut in the moment in which they do can leave some, whole).

    Gives what was built, one for each mask.

    Raises BaseMismatchError where the base is another one than a mask's, and OutputError where a folder cannot be
    written; nothing is left behind then.

    >>> import maskhub
    >>> built = maskhub.apply("base", "task.msk", "dense", dtype="bf16", shard_size="5GB")
    >>> built[0].path
    PosixPath('dense')
    """
    from maskhub.checkpoints.apply import build
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container.reader import open_mask
    from maskhub.storage.atomic import claim_folder

    wanted = several(masks)
    if len(wanted) == 1 and output is not None:
        folders = [Path(output)]
    else:
        if len(wanted) == 1 and not isinstance(wanted[0], str | Path):
            raise ArgumentError("a mask in memory has no name for a folder", hint="Name one: output.")
        folders = [Path(output or ".") / name for name in names_of(wanted)]
    for folder in folders:
        claim_folder(folder)  # before anything is downloaded
    sets = [open_mask(mask, parent, whole=True, token=token) for mask in wanted]
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    build(
        checkpoint,
        list(zip(sets, folders, strict=True)),
        verify=verify,
        shard_size=shard_size,
        dtype=dtype,
        code=code,
        progress=progress,
    )
    return [
        Built(folder, _size(folder), checkpoint.name, one.id, verify, one.task)
        for one, folder in zip(sets, folders, strict=True)
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
