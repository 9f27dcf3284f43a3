"""What tasks drop, decoded: of those used last, as much as a budget of bytes allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

from maskhub.masks.mask import Mask
from maskhub.runtime.dropped import Changes, Dropped, dropped, words
from maskhub.runtime.threads import Threads


class Decoded:
    """Decoded masks by tasks' names, of which those not used for longest are forgotten first."""

    def __init__(self, budget: int, threads: Threads) -> None:
        self.budget, self._threads = budget, threads
        self._kept: OrderedDict[str, Changes] = OrderedDict()  # the last used one last
        self._bytes: dict[str, int] = {}  # of each

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        return sum(self._bytes.values())

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
        self.settle([name])
        return self._kept[name]

    def settle(self, names: Iterable[str]) -> None:
        """Keep to the budget, once more was made of some tasks.

        Second forms go first, then whole tasks, all but the one used last: of both those not used for longest.
        """
        for name in self._kept.keys() & {*names}:
            self._count(name)
        over = self.nbytes - self.budget
        for name in list(self._kept) if over > 0 else []:
            if over <= 0:
                break
            for change in self._kept[name].values():
                change.slim()
            over -= self._bytes[name] - self._count(name)
        while over > 0 and len(self._kept) > 1:
            name, _ = self._kept.popitem(last=False)
            over -= self._bytes.pop(name)

    def _count(self, name: str) -> int:
        self._bytes[name] = sum(change.nbytes for change in self._kept[name].values())
        return self._bytes[name]

    def clear(self) -> None:
        self._kept.clear()
        self._bytes.clear()

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)
        self._bytes.pop(name, None)
