"""``open`` and ``save``: mask sets from files, and to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskhub.api.parameters import MaskLike, PathLike, mask_path

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet
    from maskhub.storage.work import Progress


def open(
    path: PathLike,
    parent: Sequence[MaskLike] = (),
    *,
    whole: bool = False,
    cached: bool = False,
    token: str | None = None,
) -> MaskSet:
    """Open a ``.msk`` file as a mask set. Masks are decoded, and checked, when their bits are asked for.

    ``path`` may be a URL, or ``user/repo/name`` on the Hub (with ``token``, if it is private): what is asked for is
    fetched then, or with ``whole`` all of it now. ``parent`` are masks that it may be coded against. With ``cached``
    bits come from the local cache, where they lie decoded, and are checked by the file's digests; the first time they
    are put there. All else is the file's.

    The seal is checked where the whole file is at hand: here, or fetched ``whole``. Of a URL that is read in parts the
    id must follow from what the file says, and each mask and tensor is checked; metrics and lineage are not.

    Raises FormatError for a file that is no mask, IntegrityError for a damaged one, and RemoteError where one cannot be
    had.

    >>> import maskhub
    >>> mask = maskhub.open("task.msk")
    >>> mask["pooler.dense.weight"].to_bool().shape
    (32, 32)
    """
    from maskhub.container.reader import open_mask

    return open_mask(path, parent, whole=whole, cached=cached, token=token)


def save(
    mask: MaskSet,
    path: PathLike,
    *,
    codec: str = "auto",
    parent: MaskSet | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a mask set to a ``.msk`` file, and give its path. An existing file is replaced with ``force`` alone.

    ``codec`` is a codec's name; ``auto`` takes the smallest for each tensor. With ``parent``, masks may be coded
    against it, and can then only be read where it is at hand.

    Raises ArgumentError for a codec that there is not, CodecError for one that cannot code a mask, and OutputError
    where the file exists or cannot be written.

    >>> import maskhub
    >>> maskhub.save(~maskhub.open("task.msk"), "inverted.msk")
    PosixPath('inverted.msk')
    """
    from maskhub.container import writer

    writer.save(mask, mask_path(path), codec=codec, parent=parent, force=force, progress=progress)
    return Path(path)
