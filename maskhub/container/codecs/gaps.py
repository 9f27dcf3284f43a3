"""``gaps``: distances between the rarer bit's positions, entropy-coded by pcodec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from maskhub.container.codecs import pco
from maskhub.container.codecs.codec import Target
from maskhub.masks.mask import Mask, clear_padding, ones, packed_size
from maskhub.storage.tensor import Bytes


@dataclass(frozen=True)
class Gaps:
    """For masks without structure.

    ``width`` is the number of bits of a stored distance: how many other bits lie between one occurrence of the
    rarer bit and the one before it (or the start). The rarer bit is 1 where at most half of the weights are kept.
    """

    width: pco.Width

    name: ClassVar[str] = "gaps"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        rarer, count = _rarer(mask.size, mask.kept)
        gaps = pco.distances(ones(mask.bits if rarer else ~mask.bits)[:count])  # the inverted padding comes last
        width = pco.width_for(int(gaps.max(initial=0)))
        return cls(width), pco.compress(gaps, width)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        rarer, count = _rarer(target.size, target.kept)
        gaps = pco.decompress(payload, count, self.width)
        bits = np.full(packed_size(target.shape), 0 if rarer else 0xFF, np.uint8)
        pco.flip(bits, gaps, target.size)
        return clear_padding(bits, target.size)


def _rarer(size: int, kept: int) -> tuple[int, int]:
    """The bit that is coded, and how often it occurs."""
    return (1, kept) if kept <= size // 2 else (0, size - kept)
