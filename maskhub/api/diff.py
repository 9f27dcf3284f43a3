"""``diff``: how masks differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, overload

from maskhub.api.parameters import Force, MaskLike, Parents, PathLike, Picture, Token, names_of
from maskhub.errors import ArgumentError, check_choice
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.masks.compare import Diff, Matrix
    from maskhub.storage.work import Progress


def _measures() -> Iterable[str]:
    from maskhub.masks.compare import MEASURES

    return MEASURES


Measure = Annotated[
    str,
    Option("What the matrix of more than two masks, the picture and --quiet show.", choices=_measures),
]
Report = Annotated[PathLike | None, Option("Write all of it as one page, with pictures: .html.", "FILE")]


@overload
def diff(a: MaskLike, b: MaskLike, /, **options: Any) -> Diff: ...


@overload
def diff(a: MaskLike, b: MaskLike, c: MaskLike, /, *more: MaskLike, **options: Any) -> Matrix: ...


def diff(  # type: ignore[misc]  # options are Any in the overloads, and named here
    *masks: Annotated[MaskLike, Option("Two masks of one base, or more: files, URLs or Hub names.", "MASK")],
    names: Sequence[str] | None = None,
    measure: Measure = "jaccard_dropped",
    plot: Picture = None,
    report: Report = None,
    force: Force = False,
    parent: Parents = (),
    token: Token = None,
    progress: Progress | None = None,
) -> Diff | Matrix:
    """Show how masks differ, in total, by layer and by kind of matrix, and what chance would give.

    Kept weights are counted over the tensors that all of the masks have. Of two masks, all else that differs is listed,
    too; more than two give a matrix of one measure.

    In Python two masks give a ``Diff`` and more a ``Matrix``; ``names`` are what they are called, else as their files
    are. Nothing is decoded of masks that are known to be the same.

    Raises BaseMismatchError for masks of different bases.

    >>> import maskhub
    >>> maskhub.diff("a.msk", "b.msk").total.weights
    17408
    >>> maskhub.diff("a.msk", "b.msk", "task.msk", measure="jaccard").values.shape
    (3, 3)
    """
    from maskhub.container.reader import open_mask
    from maskhub.masks import compare

    if len(masks) < 2:
        raise ArgumentError("at least two masks are compared", hint="Name another one.")
    check_choice("measure", measure, compare.MEASURES)
    if plot is not None:
        from maskhub.pictures import plots

        plots.claim_picture(Path(plot), force=force)
    if report is not None:
        from maskhub.pictures.report import claim_report, save_report

        claim_report(Path(report), force=force)
    parents = [[*parent, *(other for other in masks if other is not mask)] for mask in masks]
    sets = [open_mask(mask, known, token=token) for mask, known in zip(masks, parents, strict=True)]
    if len({one.id for one in sets}) > 1:  # else nothing is decoded, nor fetched
        sets = [open_mask(mask, known, whole=True, token=token) for mask, known in zip(masks, parents, strict=True)]
    called = list(names or names_of(masks))
    result: Diff | Matrix
    if len(sets) == 2:
        result = compare.diff(sets[0], sets[1], (called[0], called[1]), progress)
    else:
        result = compare.matrix(dict(zip(called, sets, strict=True)), measure, progress)
    if plot is not None:
        heat_map = plots.diff_map(result, measure) if isinstance(result, compare.Diff) else plots.matrix_map(result)
        plots.save_picture(heat_map, plot)
    if report is not None:
        save_report(result, sets, report, measure)
    return result
