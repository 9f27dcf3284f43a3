"""Live weights: a switch in place from what one task drops to what another does, and guards against all others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import BaseChangedError, listed
from maskhub.runtime.dropped import Changes, Dropped, words
from maskhub.runtime.threads import Threads
from maskhub.storage.torch import to_torch

SAMPLE = 64  # weights of a tensor that are looked at on a switch
LOOKS = 4  # tensors that are looked at on a switch, in turn
CURE = "Load the tasks anew; for another device or dtype, pass it to load_tasks."


class LiveWeights:
    """Weights of which tasks drop some in turn. Nobody else may change them, which is looked at on each switch.

    ``weights`` are the base's by its tensors' names; more may come. ``applied`` is what is, or may be, dropped of them.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], threads: Threads) -> None:
        self.weights = weights
        self.applied: dict[str, Dropped] = {}
        self._threads = threads
        self._elements: dict[str, Tensor] = {}  # each weight's, as words; they hold its memory, whatever becomes of it
        self._samples: dict[str, tuple[Tensor, Tensor]] = {}  # of each weight a few places, and the base's values there
        # Of the part that tasks share the places of its weights: a module's parameters, a name there, and the weight's.
        self._places: WeakKeyDictionary[nn.Module, list[tuple[dict[str, Any], str, str]]] = WeakKeyDictionary()
        self._versions: dict[str, int] = {}  # how often each was changed; none while a switch changes it
        self._turn = 0

    def swap(self, new: Changes) -> None:
        """Put the base's values back, and drop what the new task drops.

        Each step may be done twice, and ``applied`` names all that may be dropped: so an interruption anywhere leaves
        what the next switch puts right.
        """

        def swap(tensor: str) -> None:
            elements = self._elements[tensor]
            self._versions.pop(tensor, None)
            if (old := self.applied.get(tensor)) is not None:
                old.restore(elements)
                del self.applied[tensor]
            if (change := new.get(tensor)) is not None:
                self.applied[tensor] = change
                change.drop(elements)
            self._versions[tensor] = elements._version

        with torch.no_grad():
            self._threads.each(swap, list({**self.applied, **new}))

    def watch(self, part: nn.Module) -> None:
        """Remember where a part has the weights, and how new ones are, while the live weights are the base's."""
        if part not in self._places:
            names = {id(weight): name for name, weight in self.weights.items()}
            self._places[part] = [
                (module._parameters, leaf, names[id(weight)])
                for module in part.modules()
                for leaf, weight in module._parameters.items()
                if id(weight) in names
            ]
        for name, weight in self.weights.items():
            if name not in self._versions:
                elements = words(weight)
                places = torch.randint(max(weight.numel(), 1), (SAMPLE if weight.numel() else 0,), device=weight.device)
                self._elements[name] = elements
                self._samples[name] = places, elements[places]
                self._versions[name] = elements._version

    def check(self) -> None:
        """BaseChangedError where somebody else moved, cast or changed the weights since the last switch.

        Of what torch does not count as a change, as of ``.data``, a sample is looked at, of a few tensors each time.
        """
        for name, version in self._versions.items():
            weight, elements = self.weights[name], self._elements[name]
            same = weight.data_ptr() == elements.data_ptr() and weight.nbytes == elements.nbytes
            if not same or weight.device != elements.device or weight._version != version:
                raise BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)
        names = list(self._samples)
        for name in names[self._turn : self._turn + LOOKS]:
            places, right = self._samples[name]
            found = self._elements[name][places]
            wrong = found != right
            if name in self.applied:  # some are dropped
                wrong &= found != 0
            if wrong.any():
                raise BaseChangedError(f"{name} was changed by someone else", hint=CURE)
        self._turn = (self._turn + LOOKS) % max(len(names), 1)

    def check_places(self, *parts: nn.Module) -> None:
        """BaseChangedError where somebody else put another parameter into one of the weights' places in these parts.

        Without parts, in all of them.
        """
        for parameters, leaf, name in chain.from_iterable(self._places[part] for part in parts or self._places):
            if parameters.get(leaf) is not self.weights[name]:
                raise BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)

    def compare(self, base: Checkpoint) -> None:
        """Compare every weight with the base on the disk, while none is dropped. Raises BaseChangedError."""
        self.check_places()
        differ = []
        for name, weight in self.weights.items():
            right = to_torch(base.read(name)).to(device=weight.device, dtype=weight.dtype)
            if not torch.equal(words(weight), words(right)):
                differ.append(name)
        if differ:
            raise BaseChangedError(f"changed by someone else since they were loaded: {listed(differ)}", hint=CURE)
