"""A batch whose rows belong to many tasks: computed once for all of them where that is right, else task by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from maskhub.errors import ArgumentError, UnknownTaskError
from maskhub.runtime.mixed import Rows, UnfitError, can_mix, decide, encode, encoder_of, part_of, rows_of
from maskhub.runtime.store import BASE, Store

NEAR = 1e-5  # how far a new task may be from its exact logits in a mixed batch: a tenth of what later rows may


class Batches:
    """Batches of a store's tasks, and of which tasks it is known whether mixing is right."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mixes: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()  # of tasks' models

    def compute(self, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to the rows of a batch, each for the task of its name. Raises UnknownTaskError."""
        store = self._store
        _check_batch(names, batch)
        logits: dict[int, Tensor] = {}
        # Inference mode does not count changes.
        with store.disable_tasks(), torch.inference_mode(False), torch.no_grad():
            try:
                for model, chosen in self._kinds(names):
                    part = {key: value[chosen] if isinstance(value, Tensor) else value for key, value in batch.items()}
                    logits |= zip(chosen, self._together(model, [names[row] for row in chosen], part), strict=True)
            finally:
                store.decoded.settle(names)
        return [logits[row] for row in range(len(names))]

    def _kinds(self, names: Sequence[str]) -> list[tuple[PreTrainedModel, list[int]]]:
        """Rows of tasks whose models are alike but for their heads, with one of these, task by task.

        The base's rows are with any, and a task whose rows cannot be mixed is alone.
        """
        for name in names:
            if name != BASE:
                self._store.mask(name)
        told = sorted({*names} - {BASE}) or self._store.task_names[:1]
        if not told:
            raise UnknownTaskError("no task is loaded", hint="Load one: load_task.")
        kinds: dict[tuple[type, int, str | None], tuple[PreTrainedModel, list[int]]] = {}
        for row in sorted(range(len(names)), key=lambda row: (names[row] == BASE, names[row])):
            model = self._store[told[0] if names[row] == BASE else names[row]]
            alone = names[row] if names[row] != BASE and self._mixes.get(model) is False else None
            kinds.setdefault((type(model), id(encoder_of(model)), alone), (model, []))[1].append(row)
        return list(kinds.values())

    def _together(self, model: PreTrainedModel, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to rows of one kind, which lie task by task.

        Tasks that are new to mixed batches are computed alone, too. If all of their rows agree, they are known to mix.
        """
        spans = [(name, *span) for name, span in _spans(names)]
        exact: dict[str, list[Tensor]] = {}
        if len(spans) > 1 and (found := self._mixed(model, spans, batch)):
            answers, sure = found
            new = [span for span in spans if span[0] != BASE and self._store[span[0]] not in self._mixes]
            if new and not sure:  # there are as many tokens as rows: not so with one more row
                name, a, b = spans[-1]
                more = {k: torch.cat([v, v[-1:]]) if isinstance(v, Tensor) else v for k, v in batch.items()}
                _, sure = self._mixed(model, [*spans[:-1], (name, a, b + 1)], more) or ([], False)
            exact = {name: self._exact(name, model, _rows(batch, a, b)) for name, a, b in new}
            near = {name: _near(exact[name], answers[a:b]) for name, a, b in new if sure}
            self._mixes.update({self._store[name]: right for name, right in near.items()})
            if all(near.values()) and (sure or not new):
                return answers
        return [row for name, a, b in spans for row in exact.get(name) or self._exact(name, model, _rows(batch, a, b))]

    def _exact(self, name: str, model: PreTrainedModel, batch: dict[str, Any]) -> list[Tensor]:
        count = rows_of(batch)
        if name != BASE:
            return _answers(name, self._store[name](**batch), count)
        with self._store.disable_tasks():
            return _hidden(encode(model, {}, batch, Rows([], count)), count)

    def _mixed(
        self, model: PreTrainedModel, spans: Sequence[tuple[str, int, int]], batch: dict[str, Any]
    ) -> tuple[list[Tensor], bool] | None:
        """The answers to a batch whose layers are computed once, None where they cannot be.

        And whether it is sure that the layers saw rows, and not tokens, one after the other.
        """
        names = {id(weight): name for name, weight in self._store.shared.weights.items()}
        masked = {tensor for name, _, _ in spans if name != BASE for tensor in self._store.mask(name)}
        used = {model, *(self._store[name] for name, _, _ in spans if name != BASE)}
        self._store.live.check_ready(*used)
        self._store.live.check_places(*used)
        if not can_mix(model, names, masked):
            return None
        count, answers = rows_of(batch), []
        with self._store.disable_tasks():
            changes = {name: {} if name == BASE else self._store.changes(name) for name, _, _ in spans}
            rows = Rows([(a, b, changes[name]) for name, a, b in spans], count)
            try:
                encoded = encode(model, names, batch, rows)
            except UnfitError:
                return None
            for name, a, b in spans:
                part = part_of(encoded, a, b, count)
                if name == BASE:
                    answers += _hidden(part, b - a)
                else:
                    output = decide(self._store[name], names, _rows(batch, a, b), part, changes[name])
                    answers += _answers(name, output, b - a)
        return answers, rows.sure


def _near(right: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether a task's rows of a mixed batch are those that it has alone, but for rounding."""
    scale = max(float(one.abs().max()) for one in right)
    return all(bool((x - y).abs().max() <= NEAR * (1 + scale)) for x, y in zip(right, found, strict=True))


def _check_batch(names: Sequence[str], batch: Mapping[str, Any]) -> None:
    """ArgumentError for what cannot be taken apart into rows, one for each name."""
    if batch.get("labels") is not None:
        raise ArgumentError("a batch of several tasks takes no labels", hint="Leave them out.")
    for key, value in batch.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or len(value) != len(names)):
            raise ArgumentError(f"{len(names)} task names, and {key} has the shape {list(value.shape)}")
        if not isinstance(value, Tensor | bool | int | float | str | None):
            raise ArgumentError(f"{key} is a {type(value).__name__}, which cannot be taken apart into rows")
    if not any(isinstance(value, Tensor) for value in batch.values()):
        raise ArgumentError("a batch has tensors, with a row for each task name")


def _answers(name: str, output: Any, count: int) -> list[Tensor]:
    """What a task's model answers to each of so many rows."""
    logits = getattr(output, "logits", None)
    if logits is None or len(logits) != count:
        raise ArgumentError(f"task {name!r} gives no logits for each row of such a batch", hint="Use its model alone.")
    return list(logits)


def _hidden(encoded: Any, count: int) -> list[Tensor]:
    """The last hidden state of each of so many rows, whose choices lie one after the other."""
    last: Tensor = encoded[0]
    return list(last.reshape(count, -1, last.shape[-1]))


def _rows(batch: dict[str, Any], a: int, b: int) -> dict[str, Any]:
    return {key: value[a:b] if isinstance(value, Tensor) else value for key, value in batch.items()}


def _spans(names: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each run of equal names, from where to where."""
    a = 0
    for name, run in groupby(names):
        b = a + len(list(run))
        yield name, (a, b)
        a = b
