"""``info``: what a mask is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskhub.api.parameters import Force, Mask, Parents, Picture, Token

if TYPE_CHECKING:
    from maskhub.masks.summary import MaskSummary


def info(
    mask: Mask, *, plot: Picture = None, force: Force = False, parent: Parents = (), token: Token = None
) -> MaskSummary:
    """Show what a mask is: task, base, size, bits a weight, sparsity, codecs, lineage.

    Decodes nothing. Of a remote mask only what comes before the bits is fetched, in one request (and one more to the
    Hub), and cannot be checked by the seal, as a file here is; verify checks the rest.

    Raises FormatError for a file that is no mask, and RemoteError where one cannot be had.

    >>> import maskhub
    >>> maskhub.info("task.msk").weights
    17408
    """
    from maskhub.container.reader import open_mask

    if plot is not None:
        from maskhub.pictures.plots import claim_picture, save_picture, sparsity_map

        claim_picture(Path(plot), force=force)
    maskset = open_mask(mask, parent, whole=plot is not None, token=token)
    summary = maskset.summary()
    if plot is not None:
        name = Path(summary.file).name if summary.file else "a mask"
        save_picture(sparsity_map(maskset.masks, f"Dropped weights of {name}"), plot)
    return summary
