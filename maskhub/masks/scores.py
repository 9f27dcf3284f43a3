"""Initial scores from a portable generator, so that anyone who knows the seed can rebuild them, bit for bit.

Draws are integers: 16 bits a weight from Philox4x64-10, keyed by the seed and the tensor's name, read raw.
Nothing depends on a float library but the last step, which training needs and decoding does not.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

LEVELS = 1 << 16  # a draw is an integer from 0 to LEVELS - 1


def draw(seed: int, name: str, count: int, start: int = 0) -> NDArray[np.uint16]:
    """``count`` uniform 16-bit draws for the tensor ``name``, from number ``start`` (a multiple of 16) on: uint16.

    The Philox key is the first 16 bytes of the BLAKE3 digest of ``scores SEED NAME``, as two little-endian 64-bit
    words; the first block has the counter 1; each 64-bit output gives four draws, its lowest 16 bits first.
    """
    key = np.frombuffer(blake3(f"scores {seed} {name}".encode()).digest()[:16], "<u8")
    generator = np.random.Philox(key=key)
    generator.advance(start // 16)  # each step of the counter gives four 64-bit outputs
    words = generator.random_raw((count + 3) // 4)
    return np.asarray(words, "<u8").view("<u2")[:count].astype(np.uint16, copy=False)


class Initial(msgspec.Struct, frozen=True):
    """The mask that training began with, as a reader can rebuild it: a weight with a draw of ``cut`` or more is kept.

    ``low`` and ``high`` bound the scores that the draws stood for; decoding does not need them.
    """

    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    cut: Annotated[int, msgspec.Meta(ge=0, le=LEVELS)]
    low: int | float
    high: int | float
    generator: Literal["philox4x64-10"] = "philox4x64-10"


class UniformScores(msgspec.Struct, frozen=True):
    """Scores uniform on ``[low, high)``: the middles of ``LEVELS`` equal steps, picked by ``draw``."""

    seed: int
    low: float
    high: float

    @classmethod
    def for_sparsity(cls, sparsity: float, threshold: float, seed: int, margin: float = 2e-2) -> UniformScores:
        """Scores of which a share ``sparsity`` lies at or under ``threshold`` (maskbert's initialisation).

        The range is ``[-margin, (margin + threshold) / sparsity - margin]``, which needs ``threshold > -margin``.
        """
        return cls(seed, -margin, (margin + threshold) / sparsity - margin)

    def levels(self, name: str, count: int) -> NDArray[np.uint16]:
        """Which step each score of the tensor ``name`` lies in: uint16."""
        return draw(self.seed, name, count)

    def scores(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The initial scores of the tensor ``name``: float32, of ``shape``."""
        return self.values(self.levels(name, math.prod(shape))).reshape(shape)

    def initial(self, threshold: float) -> Initial:
        """What a reader needs to rebuild the initial mask."""
        return Initial(self.seed, self.cut(threshold), self.low, self.high)

    def cut(self, threshold: float) -> int:
        """The first level whose score is above ``threshold``: weights with a lower one start dropped."""
        return int(np.count_nonzero(self._table() <= np.float32(threshold)))

    def values(self, levels: NDArray[np.uint16]) -> NDArray[np.float32]:
        """The score in the middle of each step: float32."""
        table, values = self._table(), np.empty(levels.size, np.float32)
        for start in range(0, levels.size, LEVELS):  # as much as a cache holds
            part = slice(start, start + LEVELS)
            np.take(table, levels[part], out=values[part], mode="wrap")  # no level is out of range
        return values

    def _table(self) -> NDArray[np.float32]:
        # Rounded operations in float64, one after the other, then one to float32: the same on every platform.
        step = (self.high - self.low) / LEVELS
        return ((np.arange(LEVELS) + 0.5) * step + self.low).astype(np.float32)
