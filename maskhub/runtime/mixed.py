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
from torch._dynamo import OptimizedModule
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from maskhub.errors import ArgumentError
from maskhub.runtime.dropped import Bits, Changes, Places

MASKABLE = (nn.Linear, Conv1D, nn.Embedding)  # layers that can be corrected


class UnfitError(Exception):
    """A model's layers do not see the rows of a batch one after the other."""


class _EncodedError(Exception):  # which ends a forward pass where the head begins
    def __init__(self, output: Any) -> None:
        self.output = output


@dataclass
class Rows:
    """Which rows of what a layer sees belong to which task: from, to, and what it drops. Others are the base's.

    A layer that sees something else than so many rows, first of all dimensions, is unfit. Where there are as many
    tokens as rows, it is not ``sure`` that it does. ``given`` are the places of what the model reads, as ids of words.
    """

    parts: Sequence[tuple[int, int, Changes]]
    count: int
    given: Set[int] = frozenset()
    sure: bool = True
    _seen: tuple[Tensor, int] | None = None  # what was turned last, as several layers read one input
    _turned: Tensor = field(default_factory=lambda: torch.empty(0))

    def scale(self, found: int) -> None:
        """Be for layers that see several rows for each."""
        factor, rest = divmod(found, self.count)
        if rest or not factor:
            raise UnfitError
        self.parts = [(a * factor, b * factor, changes) for a, b, changes in self.parts]
        self.count = found

    def columns(self, inputs: Tensor) -> Tensor:
        """Rows x tokens x features as rows x features x tokens."""
        seen = inputs, -1 if inputs.is_inference() else inputs._version  # which of inference mode are not counted
        if self._seen is None or self._seen[0] is not inputs or self._seen[1] != seen[1] or seen[1] < 0:
            self._seen, self._turned = seen, self.apart(inputs).transpose(1, 2).contiguous()
        return self._turned

    def apart(self, tensor: Tensor) -> Tensor:
        """What a layer sees or gives as rows x tokens x features."""
        if self.count > 1:
            if tensor.shape[0] != self.count:
                raise UnfitError
            self.sure &= tensor.ndim == 2 or tensor.shape[1] != self.count
        return tensor.reshape(self.count, -1, tensor.shape[-1])


def encoder_of(model: PreTrainedModel) -> nn.Module | None:
    """The part of a model below its head; None where that is no part of its own."""
    found = getattr(model, model.base_model_prefix, None)
    return found if isinstance(found, nn.Module) else None


def can_mix(model: PreTrainedModel, names: Mapping[int, str], masked: Set[str]) -> bool:
    """Whether all masked tensors are weights of layers that can be corrected; ``names`` tells them by ``id``.

    Compiled layers are not, since they heed no hooks. Neither are halves, stored or by autocast: these round too much.
    """
    if encoder_of(model) is None or torch.is_autocast_enabled(model.device.type):
        return False
    for module in model.modules():
        if module is not model and (module._compiled_call_impl is not None or isinstance(module, OptimizedModule)):
            return False
        for leaf, parameter in module._parameters.items():
            if parameter is not None and names.get(id(parameter)) in masked:
                fits = type(module) in MASKABLE and leaf == "weight" and plain(module)
                if not fits or parameter.dtype not in (torch.float32, torch.float64):
                    return False
    return True


def plain(module: nn.Module) -> bool:
    """Whether an embedding only looks up."""
    return not isinstance(module, nn.Embedding) or module.max_norm is None


def encode(model: PreTrainedModel, names: Mapping[int, str], batch: dict[str, Any], rows: Rows) -> Any:
    """What the part of a model below its head makes of a batch, whose rows belong to several tasks."""
    encoder = encoder_of(model)
    if encoder is None:
        raise ArgumentError(f"{type(model).__name__} has no part below its head, for rows of the base")
    rows.given = {value.data_ptr() for value in batch.values() if isinstance(value, Tensor)}

    def before(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        rows.scale(next(value for value in (*arguments, *options.values()) if isinstance(value, Tensor)).shape[0])

    def after(module: Any, arguments: Any, output: Any) -> None:
        raise _EncodedError(output)

    with contextlib.ExitStack() as stack:
        stack.callback(encoder.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(encoder.register_forward_hook(after).remove)
        for hook in _corrections(encoder, names, rows, {n for _, _, c in rows.parts for n in c}):
            stack.callback(hook.remove)
        try:
            type(model).forward(model, **batch)
        except _EncodedError as stop:
            return stop.output
    raise UnfitError


def decide(
    model: PreTrainedModel, names: Mapping[int, str], batch: dict[str, Any], encoded: Any, changes: Changes
) -> Any:
    """What the head of a task's model makes of what was encoded of a batch, all rows of which are for this task."""
    prefix = model.base_model_prefix
    encoder = model._modules[prefix]
    rows = Rows([(0, 1, changes)], 1)  # all as one
    with contextlib.ExitStack() as stack:
        model._modules[prefix] = _Replay(encoded)
        stack.callback(model._modules.__setitem__, prefix, encoder)
        for hook in _corrections(model, names, rows, changes.keys()):
            stack.callback(hook.remove)
        return type(model).forward(model, **batch)


def rows_of(batch: Mapping[str, Any]) -> int:
    """How many rows a batch has."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


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


def _corrections(model: nn.Module, names: Mapping[int, str], rows: Rows, masked: Set[str]) -> Iterator[Any]:
    """Hooks that correct the layers of a model whose weights are masked."""
    for module in model.modules():
        weight = module._parameters.get("weight")
        name = names.get(id(weight)) if weight is not None else None
        if name is not None and name in masked:
            yield module.register_forward_hook(_correction(name, rows))


def _correction(name: str, rows: Rows) -> Callable[[Any, Any, Tensor], Tensor]:
    def correct(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inputs = arguments[0]
        if isinstance(module, nn.Embedding):
            return _looked_up(module, name, rows, inputs, output)
        answer = rows.apart(output)
        for a, b, changes in rows.parts:
            change = changes.get(name)
            if isinstance(change, Places):
                _subtract(module, change, rows, inputs, answer, a, b)
            elif isinstance(change, Bits):
                weight = module.weight.masked_fill(change.flags(module.weight.view(-1)).view_as(module.weight), 0)
                part = rows.apart(inputs)[a:b]
                product = part @ (weight if isinstance(module, Conv1D) else weight.t())
                answer[a:b] = product if module.bias is None else product + module.bias
        return answer.view_as(output)

    return correct


def _subtract(module: Any, change: Places, rows: Rows, inputs: Tensor, answer: Tensor, a: int, b: int) -> None:
    dropped = change.rows(module.weight, transposed=isinstance(module, Conv1D))
    columns = rows.columns(inputs)[a:b]
    side_by_side = columns[0] if len(columns) == 1 else columns.transpose(0, 1).reshape(columns.shape[1], -1)
    product = dropped @ side_by_side
    answer[a:b].view(-1, len(product)).sub_(product.t())  # in two dimensions torch is quicker


def _looked_up(module: Any, name: str, rows: Rows, ids: Tensor, output: Tensor) -> Tensor:
    answer, width = output.clone(), module.embedding_dim
    if rows.count > 1 and (ids.data_ptr() not in rows.given or len(ids) != rows.count):  # as those of positions
        raise UnfitError
    for a, b, changes in rows.parts:
        change = changes.get(name)
        if change is None:
            continue
        part = slice(a, b) if rows.count > 1 else slice(None)
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
