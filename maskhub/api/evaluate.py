"""``evaluate``: the metrics of a mask, or of several together, on examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from maskhub.api.parameters import (
    Base,
    LabelColumn,
    Masks,
    PairColumn,
    Parents,
    PathLike,
    Revision,
    TextColumn,
    Token,
    several,
)
from maskhub.errors import extra
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.storage.work import Progress


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` of one mask, or of several put together by ``ensemble``, on so many examples of a file.

    ``masks`` are their ids. The task's first metric comes first.
    """

    masks: tuple[str, ...]
    file: str
    examples: int
    metrics: dict[str, float]
    ensemble: str | None = None


@extra("train", "evaluate")
def evaluate(
    base: Base,
    masks: Masks,
    *,
    file: Annotated[PathLike, Option("CSV, TSV, JSON lines or Parquet; a folder of images.", "FILE")],
    ensemble: Annotated[
        str | None, Option("Put several masks' answers together: logits, probs or vote; else a row for each.", "WAY")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    parent: Parents = (),
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure a mask's task model on labelled examples.

    The examples are read as the mask's task needs them. Several masks are measured one by one, or put together: an
    ensemble takes the mean of ``logits`` or of ``probs``, or a ``vote`` (Zhao et al. 2020).

    Raises DataError for labels that the task does not know, FormatError for masks of different tasks, and
    BaseMismatchError for another base.

    >>> import maskhub
    >>> maskhub.evaluate("base", "task.msk", file="test.csv")[0].metrics["accuracy"]
    0.5
    """
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container.reader import open_mask
    from maskhub.runtime.evaluate import evaluate as measure
    from maskhub.tasks import of_mask
    from maskhub.tasks.data import read_file
    from maskhub.tasks.examples import Columns

    sets = [open_mask(mask, parent, whole=True, token=token) for mask in several(masks)]
    examples = read_file(file, Columns(text_column, pair_column, label_column), of_mask(sets[0].task).name)
    found = measure(
        open_checkpoint(base, revision=revision, token=token), sets, examples, ensemble=ensemble, progress=progress
    )
    ids = [(one.id,) for one in sets] if ensemble is None else [tuple(one.id for one in sets)]
    return [
        Evaluation(who, str(file), len(examples), metrics, ensemble) for who, metrics in zip(ids, found, strict=True)
    ]
