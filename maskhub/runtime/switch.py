"""Live weights: a switch in place from what one task drops to what another does, and guards against all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import ArgumentError, BaseChangedError, listed
from maskhub.runtime.dropped import Changes, Dropped, words
from maskhub.runtime.mixed import encoder_of
from maskhub.runtime.threads import Threads
from maskhub.storage.torch import to_torch

SAMPLE = 64  # weights of a tensor that are looked at on a switch
LOOKS = 4  # tensors that are looked at on a switch, in turn
CURE = "Load the tasks anew; for another device or dtype, pass it to load_tasks."


class Watched:
    """A weight as it was when it was first seen: where it lies, how often it was changed, and some of its values."""

    def __init__(self, weight: Tensor) -> None:
        self.elements = words(weight)  # they hold its memory, whatever becomes of it
        self.version: int | None = weight._version  # None while a switch changes it
        count = weight.numel()
        self._places = torch.randint(max(count, 1), (SAMPLE if count else 0,), device=weight.device)
        self._sample = self.elements[self._places]

    def check(self, weight: Tensor, name: str) -> None:
        """BaseChangedError where somebody moved, cast or changed it, as far as torch counts that as a change."""
        there = self.elements
        same = weight.data_ptr() == there.data_ptr() and weight.nbytes == there.nbytes
        if not same or weight.device != there.device or self.version not in (None, weight._version):
            raise _changed(name)

    def look(self, name: str, *, dropped: bool = False) -> None:
        """BaseChangedError where a sample has other values; some may be ``dropped``."""
        found = self.elements[self._places]
        wrong = found != self._sample
        if dropped:
            wrong &= found != 0
        if wrong.any():
            raise BaseChangedError(f"{name} was changed by someone else", hint=CURE)


@dataclass
class Own:
    """A parameter that one task has alone, and where it is."""

    parameters: dict[str, Any]
    leaf: str
    name: str
    weight: nn.Parameter

    def __post_init__(self) -> None:
        self._watched, self._digest = Watched(self.weight), _digest(self.weight)

    def check(self) -> None:
        if self.parameters.get(self.leaf) is not self.weight:
            raise _changed(self.name)
        self._watched.check(self.weight, self.name)
        self._watched.look(self.name)

    def differs(self) -> bool:
        return _digest(self.weight) != self._digest


def _digest(weight: Tensor) -> bytes:
    return blake2b(words(weight).cpu().numpy().tobytes()).digest()


def _changed(name: str) -> BaseChangedError:
    return BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)


class LiveWeights:
    """Weights of which tasks drop some in turn. Nobody else may change them, which is looked at on each switch.

    ``weights`` are the base's by its tensors' names; more may come. ``applied`` is what is, or may be, dropped of them.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], threads: Threads) -> None:
        self.weights = weights
        self.applied: dict[str, Dropped] = {}
        self._threads = threads
        self._watched: dict[str, Watched] = {}
        # Of the part that tasks share, and of each model beside it, the places of the base's weights: a module's
        # parameters, a name there, and the weight's. And what a model has of its own.
        self._places: WeakKeyDictionary[nn.Module, list[tuple[dict[str, Any], str, str]]] = WeakKeyDictionary()
        self._own: WeakKeyDictionary[nn.Module, list[Own]] = WeakKeyDictionary()
        self._turn = 0

    def clear(self) -> None:
        """Let go of all weights."""
        for kept in (self.applied, self._watched, self._places, self._own):
            kept.clear()

    def swap(self, new: Changes) -> None:
        """Put the base's values back, and drop what the new task drops.

        Each step may be done twice, and ``applied`` names all that may be dropped: so an interruption anywhere leaves
        what the next switch puts right.
        """

        def swap(tensor: str) -> None:
            watched = self._watched[tensor]
            elements, watched.version = watched.elements, None
            if (old := self.applied.get(tensor)) is not None:
                old.restore(elements)
                del self.applied[tensor]
            if (change := new.get(tensor)) is not None:
                self.applied[tensor] = change
                change.drop(elements)
            watched.version = elements._version

        with torch.no_grad():
            self._threads.each(swap, list({**self.applied, **new}))

    def watch(self, model: PreTrainedModel) -> None:
        """Remember where a model has which weights, and how new ones are, while the live weights are the base's."""
        names = {id(weight): name for name, weight in self.weights.items()}
        encoder = encoder_of(model)
        below = set() if encoder is None else {*encoder.modules()}
        if encoder is not None and encoder not in self._places:
            self._places[encoder] = [
                (module._parameters, leaf, names[id(weight)])
                for module in encoder.modules()
                for leaf, weight in module._parameters.items()
                if id(weight) in names
            ]
        self._places[model], self._own[model] = [], []
        for path, module in model.named_modules(memo=below):
            for leaf, weight in module._parameters.items():
                if id(weight) in names:
                    self._places[model].append((module._parameters, leaf, names[id(weight)]))
                elif weight is not None:
                    self._own[model].append(Own(module._parameters, leaf, f"{path}.{leaf}".lstrip("."), weight))
        for name, weight in self.weights.items():
            if name not in self._watched:
                self._watched[name] = Watched(weight)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def copied(self, state: dict[str, Any]) -> dict[str, Any]:
        """What ``state_dict`` tells, with copies of the weights that a switch changes; what is tied stays tied."""
        live = {weight.data_ptr() for weight in self.weights.values()}
        copies: dict[int, Tensor] = {}
        for name, tensor in state.items():
            if isinstance(tensor, Tensor) and (place := tensor.data_ptr()) in live:
                if place not in copies:
                    copies[place] = tensor.detach().clone()
                state[name] = copies[place]
        return state

    def check(self) -> None:
        """BaseChangedError where somebody else moved, cast or changed the weights since the last switch.

        Of what torch does not count as a change, as of ``.data``, a sample is looked at, of a few tensors each time.
        """
        for name, watched in self._watched.items():
            watched.check(self.weights[name], name)
        names = list(self._watched)
        for name in names[self._turn : self._turn + LOOKS]:
            self._watched[name].look(name, dropped=name in self.applied)
        self._turn = (self._turn + LOOKS) % max(len(names), 1)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check_ready(self, *models: PreTrainedModel) -> None:
        """ArgumentError for models in training mode, whose dropout would be all tasks'."""
        seen: set[nn.Module] = set()  # what several share is looked at once
        if any(module.training for model in models for _, module in model.named_modules(memo=seen)):
            raise ArgumentError(
                "a live task's model, or a part of it, is in training mode; live weights are for reading",
                hint="Call .eval(); to train, use maskhub.load_model or maskhub train.",
            )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check_places(self, *models: PreTrainedModel) -> None:
        """BaseChangedError where somebody else put other parameters into these models, or changed their heads.

        Without models, in all of them.
        """
        parts = (part for model in models for part in (model, encoder_of(model)) if part is not None)
        self.check_parts(*dict.fromkeys(parts))  # one that several share once
        for own in chain.from_iterable(self._own[model] for model in models or [*self._own]):
            own.check()

    def check_parts(self, *parts: nn.Module) -> None:
        """The same for the base's weights alone, in these parts of models, or in all."""
        for parameters, leaf, name in chain.from_iterable(self._places.get(p, ()) for p in parts or [*self._places]):
            if parameters.get(leaf) is not self.weights[name]:
                raise _changed(name)

    def compare(self, base: Checkpoint) -> None:
        """Compare every weight with the base on the disk, while none is dropped. Raises BaseChangedError."""
        self.check_places()
        differ = []
        for name, weight in self.weights.items():
            right = to_torch(base.read(name)).to(device=weight.device, dtype=weight.dtype)
            if not torch.equal(words(weight), words(right)):
                differ.append(name)
        differ += [own.name for owned in [*self._own.values()] for own in owned if own.differs()]
        if differ:
            raise BaseChangedError(f"changed by someone else since they were loaded: {listed(differ)}", hint=CURE)
