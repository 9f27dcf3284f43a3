"""A batch whose rows belong to many tasks: computed once for all of them where that is right, else task by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from maskhub.errors import ArgumentError, UnknownTaskError
from maskhub.runtime.mixed import Rows, UnfitError, can_mix, decide, encode, encoder_of, part_of, rows_of
from maskhub.runtime.store import BASE, Store

NEAR, NEAR_HALF = 1e-4, 0.1  # how far a mixed batch may be from the exact one, by the largest logit; of halves


class Batches:
    """Batches of a store's tasks, and of which kinds it is known whether mixing is right."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mixes: dict[tuple[type, frozenset[str]], bool] = {}  # of a class and masked tensors

    def compute(self, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to the rows of a batch, each for the task of its name. Raises UnknownTaskError."""
        store = self._store
        _check_batch(names, batch)
        logits: dict[int, Tensor] = {}
        with store.disable_tasks(), torch.no_grad():
            for chosen in self._kinds(names):
                part = {key: value[chosen] if isinstance(value, Tensor) else value for key, value in batch.items()}
                logits |= zip(chosen, self._together([names[row] for row in chosen], part), strict=True)
        return [logits[row] for row in range(len(names))]

    def _kinds(self, names: Sequence[str]) -> list[list[int]]:
        """Rows of tasks whose models are alike but for their heads, task by task; the base's are with any."""
        for name in names:
            if name != BASE:
                self._store.mask(name)
        told = sorted({*names} - {BASE}) or self._store.task_names[:1]
        if not told:
            raise UnknownTaskError("no task is loaded", hint="Load one: load_task.")
        kinds: dict[tuple[type, int], list[int]] = {}
        for row in sorted(range(len(names)), key=lambda row: (names[row] == BASE, names[row])):
            model = self._store[told[0] if names[row] == BASE else names[row]]
            kinds.setdefault((type(model), id(encoder_of(model))), []).append(row)
        return list(kinds.values())

    def _together(self, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to rows of one kind, which lie task by task."""
        spans = [(name, *span) for name, span in _spans(names)]
        model = self._store[names[0] if names[0] != BASE else self._store.task_names[0]]
        if len(spans) > 1 or names[0] == BASE:
            masked = frozenset(tensor for name, _, _ in spans if name != BASE for tensor in self._store.mask(name))
            key = type(model), masked
            if self._mixes.get(key, True):
                for used in {model, *(self._store[name] for name, _, _ in spans if name != BASE)}:
                    self._store.live.check_ready(used)
                    self._store.live.check_places(used)
                answers, sure = self._mixed(model, masked, spans, batch)
                if answers is not None and sure and key not in self._mixes:
                    self._mixes[key] = self._right(spans, batch, answers)
                elif answers is not None and key not in self._mixes:
                    self._prove(key, model, names[:-1], _rows(batch, 0, len(names) - 1))
                if answers is not None and self._mixes.get(key):
                    return answers
        return [answer for name, a, b in spans for answer in self._exact(name, model, _rows(batch, a, b))]

    def _prove(
        self, key: tuple[type, frozenset[str]], model: PreTrainedModel, names: Sequence[str], batch: dict[str, Any]
    ) -> None:
        """Find out whether mixing is right by all rows but one, of a batch with as many tokens as rows."""
        spans = [(name, *span) for name, span in _spans(names)]
        masked = frozenset(tensor for name, _, _ in spans if name != BASE for tensor in self._store.mask(name))
        if len(spans) > 1 and masked == key[1]:
            answers, sure = self._mixed(model, masked, spans, batch)
            if answers is not None and sure:
                self._mixes[key] = self._right(spans, batch, answers)

    def _exact(self, name: str, model: PreTrainedModel, batch: dict[str, Any]) -> list[Tensor]:
        count = rows_of(batch)
        if name != BASE:
            return _answers(name, self._store[name](**batch), count)
        with self._store.disable_tasks():
            return _hidden(encode(model, {}, batch, Rows([], count)), count)

    def _right(self, spans: Sequence[tuple[str, int, int]], batch: dict[str, Any], answers: Sequence[Tensor]) -> bool:
        """Whether a mixed batch, the first of its kind, has the answers that each task has alone, but for rounding."""
        for name, a, b in spans:
            if name != BASE:
                right = self._exact(name, self._store[name], _rows(batch, a, b))
                near = NEAR if right[0].dtype in (torch.float32, torch.float64) else NEAR_HALF
                scale = max(float(one.abs().max()) for one in right)
                if not all((x - y).abs().max() <= near * (1 + scale) for x, y in zip(right, answers[a:b], strict=True)):
                    return False
        return True

    def _mixed(
        self, model: PreTrainedModel, masked: Set[str], spans: Sequence[tuple[str, int, int]], batch: dict[str, Any]
    ) -> tuple[list[Tensor] | None, bool]:
        """The answers to a batch whose layers are computed once, None where they cannot be.

        And whether it is sure that the layers saw rows, and not tokens, one after the other.
        """
        names = {id(weight): name for name, weight in self._store.shared.weights.items()}
        if not can_mix(model, names, masked):
            return None, False
        count, answers = rows_of(batch), []
        with self._store.disable_tasks():
            changes = {name: {} if name == BASE else self._store.changes(name) for name, _, _ in spans}
            rows = Rows([(a, b, changes[name]) for name, a, b in spans], count)
            try:
                encoded = encode(model, names, batch, rows)
            except UnfitError:
                return None, False
            for name, a, b in spans:
                part = part_of(encoded, a, b, count)
                if name == BASE:
                    answers += _hidden(part, b - a)
                else:
                    output = decide(self._store[name], names, _rows(batch, a, b), part, changes[name])
                    answers += _answers(name, output, b - a)
        return answers, rows.sure


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
