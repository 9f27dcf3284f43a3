"""What tasks drop, decoded: of those used last, as much as a budget of bytes allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from maskhub.masks.mask import Mask
from maskhub.runtime.dropped import Changes, Dropped, dropped, words
from maskhub.runtime.threads import Threads


class Decoded:
    """Decoded masks by tasks' names, of which those not used for longest are forgotten first."""

    def __init__(self, budget: int, threads: Threads) -> None:
        self.budget, self._threads = budget, threads
        self._kept: OrderedDict[str, Changes] = OrderedDict()  # the last used one last

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        return sum(change.nbytes for changes in self._kept.values() for change in changes.values())

    def of(self, name: str, masks: Mapping[str, Mask], weights: Mapping[str, Tensor]) -> Changes:
        """What a task drops: decoded before, or now, and checked."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        found: dict[str, Dropped | None] = {}

        def decode(tensor: str) -> None:  # codecs and hashes work outside the interpreter lock
            found[tensor] = dropped(masks[tensor], words(weights[tensor]))

        self._threads.each(decode, list(masks))
        self._kept[name] = {tensor: change for tensor in masks if (change := found[tensor]) is not None}
        while len(self._kept) > 1 and self.nbytes > self.budget:
            self._kept.popitem(last=False)
        return self._kept[name]

    def clear(self) -> None:
        self._kept.clear()

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)
