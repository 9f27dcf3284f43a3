"""Running task models over examples: their answers, alone or put together, and the metrics of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from maskhub import tasks
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import DataError, FormatError
from maskhub.masks.mask import MaskSet
from maskhub.runtime.load import load_model, load_processor
from maskhub.storage.work import Progress
from maskhub.tasks.examples import Examples
from maskhub.tasks.metrics import IGNORED
from maskhub.tasks.task import TaskType

BATCH = 32
LENGTH = 128  # tokens, where the mask says none

Answers = tuple[NDArray[Any], NDArray[Any]]  # predictions and labels


def predict(
    model: PreTrainedModel,
    processor: Any,
    examples: Examples,
    *,
    max_length: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Predictions in the order of the examples, in batches that are each padded to their longest.

    They are logits (examples x classes), or what the examples' kind of task makes of them. ``processor`` is a
    tokenizer or an image processor.
    """
    names = examples.label_names
    return _run([model], processor, examples, names, None, max_length, batch_size, progress)[0]


def measure(
    model: PreTrainedModel, processor: Any, examples: Examples, *, max_length: int | None = None
) -> dict[str, float]:
    """Metrics of any model of the examples' kind of task, masked or not; it knows their ``label_names``."""
    names = examples.label_names
    predicted, labels = _run([model], processor, examples, names, None, max_length, BATCH, None)
    return tasks.REGISTRY[examples.task].measure(predicted, labels, names)


def evaluate(
    base: str | Path | Checkpoint,
    masks: MaskSet | Sequence[MaskSet],
    examples: Examples,
    *,
    ensemble: str | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Metrics of a mask's task model on examples, or of several masks' models together.

    ``ensemble`` says how several answers become one, after Zhao et al. 2020: the mean of ``logits`` or of ``probs``,
    or by ``vote``. Raises DataError for labels that the task does not know, FormatError for masks of
    different tasks.
    """
    masksets = [masks] if isinstance(masks, MaskSet) else list(masks)
    kind = check_ensemble(masksets, ensemble)
    task = masksets[0].task
    assert task is not None
    if examples.task != kind.name:
        raise DataError(f"{examples.source}: holds examples for {examples.task}, and the mask's task is {kind.name}")
    names = tasks.label_names(task)
    checkpoint = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    models = [load_model(checkpoint, maskset) for maskset in masksets]
    if torch.cuda.is_available():
        for model in models:
            model.to("cuda")  # type: ignore[arg-type]
    processor = load_processor(checkpoint, masksets[0])
    predicted, labels = _run(models, processor, examples, names, ensemble, task.max_length, BATCH, progress)
    return kind.measure(predicted, labels, names)


def check_ensemble(masksets: Sequence[MaskSet], ensemble: str | None = None) -> TaskType:
    """The kind of task of all these masks. Raises FormatError where they cannot be evaluated so."""
    kind = tasks.of_mask(masksets[0].task)
    if ensemble is None and len(masksets) > 1:
        raise FormatError(
            "several masks need a way to put their answers together", hint="Name one of: logits, probs, vote."
        )
    if ensemble is not None and ensemble not in kind.ensembles:
        ways = ", ".join(kind.ensembles)
        raise FormatError(f"no ensemble {ensemble!r} for {kind.name}", hint=f"It can be one of: {ways}.")
    for number, other in enumerate(masksets[1:], 2):
        if other.base.root != masksets[0].base.root:
            raise FormatError(f"mask {number} of the ensemble has another base than the first")
        if tasks.of_mask(other.task) is not kind or _asked(other) != _asked(masksets[0]):
            what = "its kind, labels, tokenizer or length differ"
            raise FormatError(f"mask {number} of the ensemble is for another task than the first: {what}")
    return kind


def _asked(maskset: MaskSet) -> tuple[Any, ...]:
    """What two masks must have in common to answer together."""
    assert maskset.task is not None
    return tasks.label_names(maskset.task), maskset.task.tokenizer, maskset.task.max_length


def _run(
    models: Sequence[PreTrainedModel],
    processor: Any,
    examples: Examples,
    names: tuple[str, ...],
    ensemble: str | None,
    max_length: int | None,
    batch_size: int,
    progress: Progress | None,
) -> Answers:
    kind = tasks.REGISTRY[examples.task]
    rows = kind.encode(examples, processor, names, max_length or LENGTH)
    collate = kind.collator(processor)
    predictions: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for start in range(0, len(rows), batch_size):
        chosen = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = collate([{key: value for key, value in row.items() if key != "length"} for row in chosen])
        wanted = batch.pop("labels")
        with torch.inference_mode():
            answers = [model(**{k: v.to(model.device) for k, v in batch.items()}).logits.float() for model in models]
            answer = _together(answers, ensemble)
            predicted = kind.reduce(answer, wanted.to(answer.device)) if kind.reduce else answer
        predictions.append(predicted.cpu().numpy())
        labels.append(wanted.numpy())
        if progress:
            progress(min(start + batch_size, len(rows)), len(rows))
    return _joined(predictions), _joined(labels)


def _together(answers: Sequence[Tensor], ensemble: str | None) -> Tensor:
    """Several models' logits as one's. Equal votes are told apart by the mean probability."""
    if ensemble is None:
        return answers[0]
    stacked = torch.stack(list(answers))
    if ensemble == "logits":
        return stacked.mean(0)
    odds = stacked.softmax(-1).mean(0)
    if ensemble == "probs":
        return odds.log()
    votes = torch.nn.functional.one_hot(stacked.argmax(-1), stacked.shape[-1]).sum(0)
    return votes + odds / 2


def _joined(batches: list[NDArray[Any]]) -> NDArray[Any]:
    """Batches as one array; rows of tokens are padded to the longest."""
    if batches[0].ndim == 2 and len({batch.shape[1] for batch in batches}) > 1:
        width = max(batch.shape[1] for batch in batches)
        batches = [np.pad(batch, ((0, 0), (0, width - batch.shape[1])), constant_values=IGNORED) for batch in batches]
    return np.concatenate(batches)
