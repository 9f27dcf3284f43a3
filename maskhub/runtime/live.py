"""Many tasks live on one base: one copy of its weights, a switch in place, and batches with rows of many tasks."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.match import match
from maskhub.container.codecs.drift import Draws
from maskhub.container.reader import read_mask
from maskhub.errors import ArgumentError, MaskhubError
from maskhub.masks.mask import MaskSet
from maskhub.remote.places import masks_at
from maskhub.runtime.batches import Batches
from maskhub.runtime.evaluate import BATCH, LENGTH, collated
from maskhub.runtime.load import load_processor, pipeline_kind
from maskhub.runtime.predict import NEW_TOKENS, answers_of, check_counts, each_input
from maskhub.runtime.store import BASE, MEMORY, Memory, Store
from maskhub.storage.address import distinct_names
from maskhub.tasks import TaskType, label_names, of_mask
from maskhub.tasks.examples import Examples
from maskhub.tasks.task import Answer

ROW = re.compile(r"(?<=^inputs: row )\d+|(?<=, and row )\d+(?= has )")  # its number, in an error

__all__ = ["BASE", "Memory", "RowOutputs", "Tasks", "load_tasks"]


def load_tasks(
    base: str | Path | Checkpoint,
    masks: Any,
    *,
    device: Any = None,
    dtype: Any = None,
    memory: int | str = MEMORY,
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> Tasks:
    """Tasks that are live on a base, as ``maskhub.load_tasks`` gives them."""
    named = dict(masks) if isinstance(masks, Mapping) and not isinstance(masks, MaskSet) else _named(masks, token)
    draws = Draws()
    sets = {name: read_mask(mask, draws=draws, token=token) for name, mask in named.items()}
    checkpoint = match(open_checkpoint(base, revision=revision, token=token), sets.values())
    live = Tasks(checkpoint, device=device, dtype=dtype, memory=memory, verify=verify, draws=draws)
    for name, maskset in sets.items():
        live.load_task(maskset, name)
    return live


def _named(masks: Any, token: str | None) -> dict[str, Any]:
    """Masks by names that tell them apart: those given, or those of a folder or a repo."""
    given: list[Any] = [masks] if isinstance(masks, str | Path | MaskSet) else list(masks)
    if len(given) == 1 and not isinstance(given[0], MaskSet):
        given = [*masks_at(given[0], token)] or given
    called = [one if isinstance(one, str | Path) else f"task {i}" for i, one in enumerate(given, 1)]
    return dict(zip(distinct_names(called), given, strict=True))


@dataclass(frozen=True)
class RowOutputs:
    """What a batch with rows of several tasks gave: ``logits`` has a tensor for each row, in the rows' order."""

    logits: list[Tensor]


class Tasks(Store):
    """Tasks that are live on one base, as ``maskhub.load_tasks`` gives them.

    ``tasks[name]`` is a task's own model: using it switches to that task. All may be used from several threads: a lock
    gives each its own answers.
    """

    def __init__(self, base: Checkpoint, **options: Any) -> None:
        super().__init__(base, **options)
        self._batches = Batches(self)
        self._processors: dict[Any, Any] = {}

    def __call__(self, *, task_names: Sequence[str] | None = None, **batch: Any) -> Any:
        """Compute a batch: with the active task's model, or row by row for the task of each row's name.

        ``task_names`` has a name for each row, also ``"__base__"``. What comes back then has ``logits``, a list of a
        tensor for each row, in their order; of a row of the base it is the last hidden state. Rows of one task alone
        are exact; a batch of several rounds otherwise (``docs/live.md`` says how much). Raises UnknownTaskError.
        """
        if task_names is not None:
            return RowOutputs(logits=self._batches.compute(list(task_names), batch))
        with self.lock, torch.no_grad():
            if self.active_task is None:
                raise ArgumentError("no task is active", hint="Name the rows' tasks: task_names, or set_task.")
            return self[self.active_task](**batch)

    def pipeline(self, name: str, **options: Any) -> transformers.Pipeline:
        """A ``transformers.pipeline`` of a task; ``options`` go to it. Raises FormatError where there is none.

        Its tokenizer is its own, as what it cuts and pads is written into it.
        """
        task, model = self.mask(name).task, self[name]
        assert task is not None
        reader = "image_processor" if task.type == "image-classification" else "tokenizer"
        options = {
            reader: copy.deepcopy(self.processor(name)),
            "trust_remote_code": False,
            "device": model.device,
        } | options
        return transformers.pipeline(pipeline_kind(task.type), model=model, **options)  # type: ignore[arg-type]

    def processor(self, name: str) -> Any:
        """A task's tokenizer or image processor; tasks that have the same share one."""
        maskset = self.mask(name)
        assert maskset.task is not None
        key = maskset.task.tokenizer, maskset.task.type, maskset.task.config.get("pad_token_id")
        with self.lock:
            if key not in self._processors:
                self._processors[key] = load_processor(self.base, maskset)
            return self._processors[key]

    def predict(
        self,
        inputs: Any,
        names: str | Sequence[str] | None = None,
        *,
        top_k: int | None = None,
        max_new_tokens: int = NEW_TOKENS,
        batch_size: int = BATCH,
    ) -> list[Answer]:
        """What tasks answer to inputs, in their order, as ``maskhub.predict`` gives it.

        ``names`` is one task for all inputs (the active one, if left), or a name for each: those of several tasks are
        computed in batches together. Other threads wait until all are answered, since tasks share their tokenizers,
        too. Raises UnknownTaskError, and ArgumentError for what a task does not read.
        """
        counts = {"top_k": top_k, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
        check_counts(**counts)
        asked = each_input(inputs)
        with self.lock:
            named = self.active_task if names is None else names
            if named is None:
                raise ArgumentError("no task is active", hint="Name one, or one for each input: names.")
            if isinstance(named, str):
                return self._alone(named, asked, counts)
            each = list(named)
            if len(each) != len(asked):
                raise ArgumentError(f"{len(each)} task names for {len(asked)} inputs")
            answers: dict[int, Answer] = {}
            together: dict[tuple[int, TaskType], list[int]] = {}
            for row, name in enumerate(each):
                kind = of_mask(self.mask(name).task, "used to predict")
                together.setdefault((id(self.processor(name)), kind), []).append(row)
            for rows in together.values():
                with _numbered(rows):
                    said = self._together([asked[row] for row in rows], [each[row] for row in rows], counts)
                answers |= zip(rows, said, strict=True)
            return [answers[row] for row in range(len(asked))]

    def _alone(self, name: str, asked: list[Any], counts: dict[str, Any]) -> list[Answer]:
        """What one task answers, exactly."""
        maskset, kind = self.mask(name), of_mask(self.mask(name).task, "used to predict")
        if not asked:
            return []
        examples = Examples("inputs", kind.name, kind.given(asked), [])
        return answers_of(self[name], self.processor(name), maskset, examples, **counts)

    def _together(self, asked: list[Any], names: list[str], counts: dict[str, Any]) -> list[Answer]:
        """Answers of tasks that read alike: of one task alone exactly, of several in batches together."""
        kind, processor = of_mask(self.mask(names[0]).task), self.processor(names[0])
        examples = Examples("inputs", kind.name, kind.given(asked), [])
        if len(examples) != len(asked):  # of folders, whose images are as many examples
            raise ArgumentError(f"{len(asked)} inputs hold {len(examples)}", hint="Give each, with its task's name.")
        rows = {name: [row for row, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}
        answers: dict[int, Answer] = {}
        if len(rows) == 1 or kind.generates:
            for name, own in rows.items():
                with _numbered(own):
                    answers |= zip(own, self._alone(name, [asked[row] for row in own], counts), strict=True)
            return [answers[row] for row in range(len(asked))]
        encoded: dict[int, dict[str, Any]] = {}
        for name, own in rows.items():
            part = Examples("inputs", kind.name, kind.given([asked[row] for row in own]), [])
            encoded |= zip(own, kind.encode(part, processor, self._labels(name), self._length(name)), strict=True)
        lengths, device = [encoded[row].get("length", 1) for row in range(len(asked))], self[names[0]].device
        for chosen, batch, labels in collated(
            encoded, lengths, kind.collator(processor), device, batch_size=counts["batch_size"]
        ):
            logits = self(**batch, task_names=[names[row] for row in chosen]).logits
            for row, said, label in zip(chosen, logits, labels, strict=True):
                shown = said.float().cpu().numpy(), label.cpu().numpy(), self._labels(names[row])
                answers[row] = kind.answer(examples[row], processor, *shown, counts["top_k"] or 0)
        return [answers[row] for row in range(len(asked))]

    def _labels(self, name: str) -> tuple[str, ...]:
        task = self.mask(name).task
        assert task is not None
        return label_names(task)

    def _length(self, name: str) -> int:
        task = self.mask(name).task
        assert task is not None
        return task.max_length or LENGTH


@contextlib.contextmanager
def _numbered(rows: Sequence[int]) -> Iterator[None]:
    """Errors inside number some of the inputs; outside they tell which these are of all."""
    try:
        yield
    except MaskhubError as error:
        error.message = ROW.sub(lambda found: str(rows[int(found[0]) - 1] + 1), error.message)
        raise
