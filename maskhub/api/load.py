"""``load_model`` and ``pipeline``: a mask's task, live in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskhub.api.parameters import BaseLike, MaskLike
from maskhub.errors import extra

if TYPE_CHECKING:
    from transformers import Pipeline, PreTrainedModel


@extra("train", "load_model")
def load_model(
    base: BaseLike, mask: MaskLike, *, verify: bool = True, revision: str | None = None, token: str | None = None
) -> PreTrainedModel:
    """The transformers model of the mask's task, with masked weights, in evaluation mode.

    ``verify`` checks every base tensor's digest. Raises BaseMismatchError where the base is not the mask's, and
    FormatError where the mask names no task.

    >>> import maskhub
    >>> type(maskhub.load_model("base", "task.msk")).__name__
    'BertForSequenceClassification'
    """
    from maskhub.runtime.load import load_model

    return load_model(base, mask, verify=verify, revision=revision, token=token)


@extra("train", "pipeline")
def pipeline(
    mask: MaskLike,
    base: BaseLike | None = None,
    task: str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    **options: Any,
) -> Pipeline:
    """A ``transformers.pipeline`` of the mask's task, in one call.

    ``base`` is the one that the mask names, if left; ``options`` go to ``transformers.pipeline``. Raises as
    ``load_model`` does, and CheckpointError where the base that the mask names cannot be had.

    >>> import maskhub
    >>> classify = maskhub.pipeline("task.msk", "base")
    >>> sorted(classify("free prize")[0])
    ['label', 'score']
    """
    from maskhub.runtime.load import pipeline

    return pipeline(mask, base, task, revision=revision, token=token, **options)
