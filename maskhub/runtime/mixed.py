"""Batches with rows of many tasks: each layer computes the base's product, and corrects each task's rows.

The live weights are the base's. What a task drops of a layer is a sparse matrix, so its rows cost little more than the
base's. That rounds otherwise than the dense model of the task does, by a few units in the last place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from maskhub.runtime.dropped import Bits, Changes, Places

MASKABLE = (nn.Linear, Conv1D, nn.Embedding)  # layers that can be corrected


class UnfitError(Exception):
    """A model's layers do not see the rows of a batch one after the other."""


class _EncodedError(Exception):  # which ends a forward pass where the head begins
    def __init__(self, output: Any) -> None:
        self.output = output


@dataclass
class Rows:
    """Which rows of what a layer sees belong to which task: from, to, and what it drops. Others are the base's."""

    parts: Sequence[tuple[int, int, Changes]]
    count: int
    seen: Tensor | None = None  # what was turned last, as several layers read one input
    turned: Tensor = field(default_factory=lambda: torch.empty(0))

    def of(self, found: int) -> Rows:
        """The same for a layer that sees several rows for each."""
        factor, rest = divmod(found, self.count)
        if rest or not factor:
            raise UnfitError
        return Rows([(a * factor, b * factor, changes) for a, b, changes in self.parts], found)

    def columns(self, inputs: Tensor) -> Tensor:
        """Rows x tokens x features as rows x features x tokens."""
        if self.seen is not inputs:
            self.seen, self.turned = inputs, self._as_rows(inputs).transpose(1, 2).contiguous()
        return self.turned

    def _as_rows(self, tensor: Tensor) -> Tensor:
        if tensor.shape[0] % self.count:
            raise UnfitError
        return tensor.reshape(self.count, -1, tensor.shape[-1])


def can_mix(model: nn.Module, names: Mapping[int, str], masked: Set[str]) -> bool:
    """Whether all masked tensors are weights of layers that can be corrected; ``names`` tells them by ``id``."""
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            known = parameter is not None and names.get(id(parameter)) in masked
            if known and not (type(module) in MASKABLE and leaf == "weight" and plain(module)):
                return False
    return True


def plain(module: nn.Module) -> bool:
    """Whether an embedding only looks up."""
    return not isinstance(module, nn.Embedding) or module.max_norm is None


def encode(model: PreTrainedModel, names: Mapping[int, str], batch: dict[str, Any], rows: Rows) -> Any:
    """What the part of a model below its head makes of a batch, whose rows belong to several tasks."""
    encoder = getattr(model, model.base_model_prefix)
    scaled: list[Rows] = []

    def before(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        first = next(value for value in (*arguments, *options.values()) if isinstance(value, Tensor))
        scaled[:] = [rows.of(first.shape[0])]

    def after(module: Any, arguments: Any, output: Any) -> None:
        raise _EncodedError(output)

    with contextlib.ExitStack() as stack:
        stack.callback(encoder.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(encoder.register_forward_hook(after).remove)
        for hook in _corrections(encoder, names, lambda: scaled[0], {n for _, _, c in rows.parts for n in c}):
            stack.callback(hook.remove)
        try:
            model.forward(**batch)
        except _EncodedError as stop:
            return stop.output
    raise UnfitError


def decide(
    model: PreTrainedModel, names: Mapping[int, str], batch: dict[str, Any], encoded: Any, changes: Changes
) -> Any:
    """What the head of a task's model makes of what was encoded of a batch, all rows of which are for this task."""
    prefix = model.base_model_prefix
    encoder = getattr(model, prefix)
    count = rows_of(batch)
    rows = Rows([(0, count, changes)], count)
    with contextlib.ExitStack() as stack:
        model._modules[prefix] = _Replay(encoded)
        stack.callback(model._modules.__setitem__, prefix, encoder)
        for hook in _corrections(model, names, lambda: rows, changes.keys()):
            stack.callback(hook.remove)
        return model.forward(**batch)


def rows_of(batch: Mapping[str, Any]) -> int:
    """How many rows a batch has."""
    return next(int(value.shape[0]) for value in batch.values() if isinstance(value, Tensor) and value.ndim)


class _Replay(nn.Module):
    """Gives what was computed before."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.output


def part_of(output: Any, a: int, b: int, count: int) -> Any:
    """Rows ``a`` to ``b``, of ``count``, of what was encoded, which may have several rows for each."""

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            each = value.shape[0] // count
            return value[a * each : b * each]
        return tuple(map(part, value)) if isinstance(value, tuple) else None  # no cache of keys and values

    return type(output)(**{key: part(value) for key, value in output.items()})


def _corrections(
    model: nn.Module,
    names: Mapping[int, str],
    rows: Callable[[], Rows],
    masked: Set[str],
) -> Iterator[Any]:
    """Hooks that correct the layers of a model whose weights are masked."""
    for module in model.modules():
        weight = module._parameters.get("weight")
        name = names.get(id(weight)) if weight is not None else None
        if name is not None and name in masked:
            yield module.register_forward_hook(_correction(name, rows))


def _correction(name: str, rows: Callable[[], Rows]) -> Callable[[Any, Any, Tensor], Tensor]:
    def correct(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        now, inputs = rows(), arguments[0]
        if isinstance(module, nn.Embedding):
            return _looked_up(module, name, now, inputs, output)
        answer = now._as_rows(output)
        for a, b, changes in now.parts:
            change = changes.get(name)
            if isinstance(change, Places):
                _subtract(module, change, now, inputs, answer, a, b)
            elif isinstance(change, Bits):
                weight = module.weight.masked_fill(change.flags(module.weight.view(-1)).view_as(module.weight), 0)
                part = now._as_rows(inputs)[a:b]
                product = part @ (weight if isinstance(module, Conv1D) else weight.t())
                answer[a:b] = product if module.bias is None else product + module.bias
        return answer.view_as(output)

    return correct


def _subtract(module: Any, change: Places, rows: Rows, inputs: Tensor, answer: Tensor, a: int, b: int) -> None:
    dropped = change.rows(module.weight, transposed=isinstance(module, Conv1D))
    columns = rows.columns(inputs)[a:b]
    count, _, tokens = columns.shape
    side_by_side = columns[0] if count == 1 else columns.transpose(0, 1).reshape(columns.shape[1], -1)
    product = (dropped @ side_by_side.to(dropped.dtype)).view(-1, count, tokens)
    answer[a:b] -= product.permute(1, 2, 0).to(answer.dtype)


def _looked_up(module: Any, name: str, rows: Rows, ids: Tensor, output: Tensor) -> Tensor:
    answer, width = output.clone(), module.embedding_dim
    if ids.shape[0] % rows.count:
        raise UnfitError
    each = ids.shape[0] // rows.count
    for a, b, changes in rows.parts:
        change = changes.get(name)
        if change is None:
            continue
        part = slice(a * each, b * each)
        wanted, place = torch.unique(ids[part], return_inverse=True)
        found = module.weight[wanted].clone()
        if isinstance(change, Bits):
            flags = change.flags(module.weight.view(-1)).view_as(module.weight)
            found[flags[wanted]] = 0
        elif isinstance(change, Places):
            where = torch.searchsorted(wanted, change.places // width)
            there = where < wanted.numel()
            where = where[there]
            there_places = change.places[there]
            same = wanted[where] == there_places // width
            found[where[same], (there_places[same] % width).long()] = 0
        answer[part] = found[place]
    return answer
