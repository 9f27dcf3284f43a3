"""``load_model`` and ``pipeline``: a mask's task, live in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskhub.api.parameters import BaseLike, MaskLike, MasksLike
from maskhub.errors import extra

if TYPE_CHECKING:
    import torch
    from transformers import Pipeline, PreTrainedModel

    from maskhub.runtime.live import Tasks


@extra("train", "load_model")
def load_model(
    base: BaseLike,
    mask: MaskLike,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: Any = None,
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> PreTrainedModel:
    """The transformers model of the mask's task, with masked weights, in evaluation mode.

    ``dtype`` and ``device_map`` are those of transformers' ``from_pretrained``, ``device`` is where it goes. ``verify``
    checks every base tensor's digest. Raises BaseMismatchError where the base is not the mask's, and
    FormatError where the mask names no task.

    >>> import maskhub
    >>> type(maskhub.load_model("base", "task.msk")).__name__
    'BertForSequenceClassification'
    """
    from maskhub.runtime.load import load_model

    return load_model(
        base, mask, dtype=dtype, device=device, device_map=device_map, verify=verify, revision=revision, token=token
    )


@extra("train", "pipeline")
def pipeline(
    mask: MaskLike,
    base: BaseLike | None = None,
    task: str | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: Any = None,
    revision: str | None = None,
    token: str | None = None,
    **options: Any,
) -> Pipeline:
    """A ``transformers.pipeline`` of the mask's task, in one call.

    ``base`` is the one that the mask names, if left; ``dtype``, ``device`` and ``device_map`` are as ``load_model`` has
    them, and ``options`` go to ``transformers.pipeline``. Raises as ``load_model`` does, and CheckpointError where the
    base that the mask names cannot be had.

    >>> import maskhub
    >>> classify = maskhub.pipeline("task.msk", "base")
    >>> sorted(classify("free prize")[0])
    ['label', 'score']
    """
    from maskhub.runtime.load import pipeline

    return pipeline(
        mask, base, task,
        dtype=dtype, device=device, device_map=device_map, revision=revision, token=token, **options,
    )  # fmt: skip


@extra("train", "load_tasks")
def load_tasks(
    base: BaseLike,
    masks: MasksLike | Mapping[str, MaskLike],
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    memory: int | str = "256MB",
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> Tasks:
    """Many tasks live on one base: its weights are in memory once, and each task costs its coded bytes and its head.

    ``masks`` are masks by the tasks' names, or masks that are called by their files' names, or a folder or a repo of
    them. ``memory`` is how many bytes of masks stay decoded, besides the one in use. ``verify`` checks every tensor of
    the base. Raises BaseMismatchError for a mask of another base, and FormatError for one that names no task.

    >>> import maskhub
    >>> tasks = maskhub.load_tasks("base", {"spam": "task.msk"})
    >>> tasks.predict(["free prize", "see you"], ["spam", "spam"])[0].keys()
    dict_keys(['text', 'label', 'score'])
    """
    from maskhub.runtime.live import load_tasks

    return load_tasks(
        base, masks, device=device, dtype=dtype, memory=memory, verify=verify, revision=revision, token=token
    )
