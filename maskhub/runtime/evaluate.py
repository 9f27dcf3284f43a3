"""Running task models over examples: their answers, alone or put together, and the metrics of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from maskhub import tasks
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.match import match
from maskhub.container.reader import open_mask
from maskhub.errors import DataError, FormatError, check_choice
from maskhub.masks.mask import MaskSet
from maskhub.runtime.load import load_model, load_processor
from maskhub.storage.work import Progress
from maskhub.tasks.examples import Examples
from maskhub.tasks.metrics import IGNORED
from maskhub.tasks.task import TaskType

BATCH = 32
LENGTH = 128  # tokens, where the mask says none


def logits_of(
    model: PreTrainedModel,
    processor: Any,
    examples: Examples,
    *,
    max_length: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """A model's logits in the order of the examples (examples x classes), or what their kind of task makes of them.

    ``processor`` is a tokenizer or an image processor.
    """
    batches = outputs(
        [model], processor, examples, examples.label_names,
        max_length=max_length, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    return _gathered(batches, tasks.REGISTRY[examples.task])[0]


def measure(
    model: PreTrainedModel, processor: Any, examples: Examples, *, max_length: int | None = None
) -> dict[str, float]:
    """Metrics of any model of the examples' kind of task, masked or not; it knows their ``label_names``."""
    kind, names = tasks.REGISTRY[examples.task], examples.label_names
    return kind.measure(*_gathered(outputs([model], processor, examples, names, max_length=max_length), kind), names)


def evaluate(
    base: str | Path | Checkpoint,
    masks: str | Path | MaskSet | Sequence[str | Path | MaskSet],
    examples: Examples,
    *,
    ensemble: str | None = None,
    batch_size: int = BATCH,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Metrics on examples of each mask, or by ``ensemble`` of all together, as ``maskhub.evaluate`` has them."""
    given = [masks] if isinstance(masks, str | Path | MaskSet) else list(masks)
    masksets = [open_mask(mask, whole=True, token=token) for mask in given]
    kinds = [tasks.of_mask(maskset.task) for maskset in masksets]
    if ensemble is not None:
        check_ensemble(masksets, ensemble)
    for kind in kinds:
        if examples.task != kind.name:
            raise DataError(
                f"{examples.source}: holds examples for {examples.task}, and the mask's task is {kind.name}"
            )
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    models = task_models(checkpoint, masksets)
    together = [[number] for number in range(len(masksets))] if ensemble is None else [list(range(len(masksets)))]
    metrics = []
    for number, group in enumerate(together):
        first = masksets[group[0]]
        assert first.task is not None
        names = tasks.label_names(first.task)
        batches = outputs(
            [models[one] for one in group], load_processor(checkpoint, first), examples, names,
            kind=kinds[number], ensemble=ensemble, max_length=first.task.max_length, batch_size=batch_size,
            progress=_part(progress, number, len(together)),
        )  # fmt: skip
        metrics.append(kinds[number].measure(*_gathered(batches, kinds[number]), names))
    return metrics


def task_model(base: Checkpoint, maskset: MaskSet) -> PreTrainedModel:
    """A mask's task model, on the GPU where there is one."""
    model = load_model(base, maskset)
    return model.to("cuda") if torch.cuda.is_available() else model  # type: ignore[arg-type]


def task_models(base: Checkpoint, masksets: Sequence[MaskSet]) -> list[PreTrainedModel]:
    """Masks' task models, of which several are live on one base: each switches to its task when it is used."""
    from maskhub.runtime.live import Tasks

    if len(masksets) == 1:
        return [task_model(base, masksets[0])]
    live = Tasks(match(base, masksets), device="cuda" if torch.cuda.is_available() else None)
    for number, maskset in enumerate(masksets):
        live.load_task(maskset, str(number))
    return [live[str(number)] for number in range(len(masksets))]


def check_ensemble(masksets: Sequence[MaskSet], ensemble: str) -> None:
    """Raises ArgumentError for a way that the task does not have, FormatError for masks that do not go together."""
    kind = tasks.of_mask(masksets[0].task)
    check_choice(f"ensemble of {kind.name} masks", ensemble, kind.ensembles)
    for number, other in enumerate(masksets[1:], 2):
        if other.base.root != masksets[0].base.root:
            raise FormatError(f"mask {number} of the ensemble has another base than the first")
        if tasks.of_mask(other.task) != kind or _asked(other) != _asked(masksets[0]):
            what = "its kind, labels, tokenizer or length differ"
            raise FormatError(f"mask {number} of the ensemble is for another task than the first: {what}")


def _asked(maskset: MaskSet) -> tuple[Any, ...]:
    """What two masks must have in common to answer together."""
    assert maskset.task is not None
    return tasks.label_names(maskset.task), maskset.task.tokenizer, maskset.task.max_length


def outputs(
    models: Sequence[PreTrainedModel],
    processor: Any,
    examples: Examples,
    names: tuple[str, ...],
    *,
    kind: TaskType | None = None,
    ensemble: str | None = None,
    max_length: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of examples of like length, the longest first: which rows, and their logits and labels, on one device.

    The rows are what the examples' kind of task encodes: one an example, but for blocks of running text. ``names`` are
    the classes that the models know, ``kind`` how their task reads, where that is not as all of its kind do.
    """
    from datasets import Dataset  # takes 80 MB of memory, which not everyone who has live tasks needs

    kind = kind or tasks.REGISTRY[examples.task]
    rows = kind.encode(examples, processor, names, max_length or LENGTH)
    lengths = rows["length"] if isinstance(rows, Dataset) else [1] * len(rows)
    for chosen, batch, labels in collated(
        rows, lengths, kind.collator(processor), models[0].device,
        batch_size=batch_size, source=examples.source, progress=progress,
    ):  # fmt: skip
        with torch.inference_mode():
            answer = _together([model(**batch).logits.float() for model in models], ensemble)
        yield chosen, answer, labels


def collated(
    rows: Any,
    lengths: Sequence[int],
    collate: Any,
    device: torch.device,
    *,
    batch_size: int,
    source: str = "inputs",
    progress: Progress | None = None,
) -> Iterator[tuple[list[int], dict[str, Tensor], Tensor]]:
    """Batches of encoded rows of like length: which rows, what a model reads of them, and their labels, on a device."""
    for chosen in in_batches(lengths, batch_size, source, progress):
        batch = collate([{key: value for key, value in rows[i].items() if key != "length"} for i in chosen])
        batch = {key: value.to(device) for key, value in batch.items()}
        labels = batch.pop("labels")
        yield chosen, batch, labels


def in_batches(lengths: Sequence[int], size: int, source: str, progress: Progress | None) -> Iterator[list[int]]:
    """Rows by their lengths, the longest first: batches of like rows are padded least, and memory is short at once.

    Raises DataError where a row has nothing to read.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    if lengths[order[-1]] == 0:
        raise DataError(f"{source}: row {order[-1] + 1} has no text that the tokenizer knows", hint="Leave it out.")
    for start in range(0, len(order), size):
        yield order[start : start + size]
        if progress:
            progress(min(start + size, len(order)), len(order))


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """The progress of one of several equal parts of the work."""
    return (lambda done, all: progress(number * all + done, count * all)) if progress else None


def _gathered(batches: Iterator[tuple[list[int], Tensor, Tensor]], kind: TaskType) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions and labels in the order of the rows; rows of tokens are padded to the longest."""
    found: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    for chosen, logits, labels in batches:
        predicted = kind.reduce(logits, labels)
        found |= dict(zip(chosen, zip(predicted.cpu().numpy(), labels.cpu().numpy(), strict=True), strict=True))
    predictions, wanted = zip(*(found[row] for row in range(len(found))), strict=True)
    return _stacked(predictions), _stacked(wanted)


def _stacked(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({row.shape for row in rows}) > 1:
        width = max(len(row) for row in rows)
        rows = [np.pad(row, (0, width - len(row)), constant_values=IGNORED) for row in rows]
    return np.stack(rows)


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
