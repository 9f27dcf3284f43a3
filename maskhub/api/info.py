"""``info``: what a mask is, or what each of several is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, overload

from maskhub.api.parameters import MASK_HELP, Force, MaskLike, MasksLike, Parents, Picture, Token, names_of, several
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.masks.summary import MaskSummary


@overload
def info(masks: MaskLike, **options: Any) -> MaskSummary: ...


@overload
def info(masks: Sequence[MaskLike], **options: Any) -> list[MaskSummary]: ...


def info(  # type: ignore[misc]  # options are Any in the overloads, and named here
    masks: Annotated[MasksLike, Option(f"{MASK_HELP} Or several.", "MASK")],
    *,
    plot: Picture = None,
    force: Force = False,
    parent: Parents = (),
    token: Token = None,
) -> MaskSummary | list[MaskSummary]:
    """Show what a mask is: task, base, size, bits a weight, sparsity, codecs, lineage; of several, a row for each.

    Decodes nothing. Of a remote mask only what comes before the bits is fetched, in one request (and one more to the
    Hub), and cannot be checked by the seal, as a file here is; verify checks the rest.

    The picture of one mask shows what it drops, by layer and matrix; that of several masks of one base the bytes that
    tasks like these take, on disk and in memory, over their number.

    Gives a list for a list of masks. Raises FormatError for a file that is no mask, RemoteError where one cannot be
    had, and BaseMismatchError for a picture of masks of different bases.

    >>> import maskhub
    >>> maskhub.info("task.msk").weights
    17408
    >>> [summary.metrics["accuracy"] for summary in maskhub.info(["a.msk", "b.msk"])]
    [0.9, 0.9]
    """
    from maskhub.container.reader import open_mask
    from maskhub.masks.mask import MaskSet

    given = several(masks)
    if plot is not None:
        from maskhub.pictures import plots

        plots.claim_picture(Path(plot), force=force)
    whole = plot is not None and len(given) == 1
    sets = [open_mask(mask, parent, whole=whole, token=token) for mask in given]
    summaries = [maskset.summary() for maskset in sets]
    if plot is not None and len(sets) > 1:
        from maskhub.masks.compose import common_tensors

        common_tensors(sets, names_of(given))
        plots.save_growth(summaries, plot)
    elif plot is not None:
        name = Path(summaries[0].file).name if summaries[0].file else "a mask"
        plots.save_picture(plots.sparsity_map(sets[0].masks, f"Dropped weights of {name}"), plot)
    return summaries[0] if isinstance(masks, str | Path | MaskSet) else summaries
