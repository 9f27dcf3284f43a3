"""``predict``: what a mask's task model answers to inputs of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from maskhub.api.parameters import Base, Mask, PairColumn, PathLike, Revision, TextColumn, Token
from maskhub.errors import extra
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.storage.work import Progress
    from maskhub.tasks.task import Answer

    Inputs: TypeAlias = Any
else:
    Inputs = Sequence[str]


@extra("train", "predict")
def predict(
    base: Base,
    mask: Mask,
    inputs: Annotated[Inputs, Option("Texts, or paths of images, as the task reads them.", "TEXT")] = (),
    *,
    file: Annotated[
        PathLike | None,
        Option("CSV, TSV, JSON lines or Parquet; a folder of images. Labels are not needed.", "FILE"),
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    top_k: Annotated[int | None, Option("Add so many of the likeliest labels or choices.", "K")] = None,
    max_new_tokens: Annotated[int, Option("Of a language model, how many tokens it goes on for.", "N")] = 64,
    batch_size: Annotated[int, Option("Examples a batch.", "N")] = 32,
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Try a mask's task model: labels and scores, tags, choices, numbers or text.

    Inputs are what the task reads: texts, words to be tagged, prompts to go on from, paths of images or of folders of
    them; pairs of texts and choices are read from a file.

    In Python inputs may also be pairs of texts, lists of words, or prompts with choices (``{"prompt": ..., "choices":
    [...]}``). Gives for each, in their order, a dictionary with what was asked and the answer: ``label`` and ``score``;
    ``entities``, or ``tags`` of words; ``index``, ``choice`` and ``score``; the ``score`` alone of a regression; or
    ``generated_text``.

    Raises ArgumentError for inputs that the task does not read, DataError for a file that cannot be used, and
    FormatError for a mask whose task cannot be asked.

    >>> import maskhub
    >>> sorted(maskhub.predict("base", "task.msk", "win a prize")[0])
    ['label', 'score', 'text']
    """
    from maskhub.runtime.predict import predict
    from maskhub.tasks.examples import Columns

    return predict(
        base,
        mask,
        inputs,
        file=file,
        columns=Columns(text_column, pair_column),
        top_k=top_k,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        revision=revision,
        token=token,
        progress=progress,
    )
