"""``nm``: N:M patterns, one symbol a group of M neighbouring weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Annotated, ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskhub.container.codecs import pco
from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.mask import Mask
from maskhub.tensor import Bytes

GROUPS = (2, 4, 8, 16)  # the strictest pattern first: each 1:2 is a 2:4


@dataclass(frozen=True)
class NM:
    """For masks that keep exactly ``n`` of each ``m`` neighbours in the last dimension (2:4, 4:8, ...).

    A group's symbol is the rank of its bits, read as a number whose lowest bit is the first weight, among the numbers
    of ``m`` bits with ``n`` ones.
    """

    n: Annotated[int, msgspec.Meta(ge=1, le=15)]
    m: Literal[2, 4, 8, 16]

    name: ClassVar[str] = "nm"

    def __post_init__(self) -> None:
        if self.n >= self.m:
            raise CodecError(f"codec 'nm': {self.n}:{self.m} is no pattern; N is below M")

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        for m in GROUPS:
            n, rest = divmod(mask.kept * m, mask.size) if mask.size else (0, 1)
            if rest or not 0 < n < m or not mask.shape or mask.shape[-1] % m:
                continue
            codec = cls(n, m)  # type: ignore[arg-type]
            symbols = codec._symbols(mask)
            if (symbols >= 0).all():
                return codec, pco.compress(symbols, 16)
        raise CodecError("codec 'nm': the mask has no N:M pattern in its last dimension")

    def encode_as(self, mask: Mask) -> bytes:
        """Code a mask by this pattern; CodecError names the first group that breaks it."""
        if not mask.shape or mask.shape[-1] % self.m:
            raise CodecError(f"codec 'nm': {self.m} does not divide the last dimension of {list(mask.shape)}")
        symbols = self._symbols(mask)
        if (wrong := np.flatnonzero(symbols < 0)).size:
            at = np.unravel_index(int(wrong[0]) * self.m, mask.shape)
            kept = int(mask.to_bool()[at[:-1]][at[-1] : at[-1] + self.m].sum())
            raise CodecError(
                f"codec 'nm': the group of {self.m} weights at {[int(i) for i in at]} keeps {kept}, not {self.n}"
            )
        return pco.compress(symbols, 16)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        if target.size % self.m:
            raise CodecError(f"codec 'nm': {self.m} does not divide a tensor of {target.size} weights")
        symbols = pco.decompress(payload, target.size // self.m, 16)
        patterns = _patterns(self.n, self.m)
        if symbols.size and symbols.max() >= patterns.size:
            raise CodecError(f"codec 'nm': a symbol is not below {patterns.size}")
        return _join(patterns[symbols], self.m)

    def _symbols(self, mask: Mask) -> NDArray[np.int16]:
        """The rank of each group's pattern; -1 for one that is none."""
        ranks = np.full(1 << self.m, -1, np.int16)
        ranks[_patterns(self.n, self.m)] = np.arange(comb(self.m, self.n))
        symbols: NDArray[np.int16] = ranks[_split(mask.bits, self.m)[: mask.size // self.m]]
        return symbols


@cache
def _patterns(n: int, m: int) -> NDArray[np.uint16]:
    """All numbers of ``m`` bits with ``n`` ones, in rising order."""
    numbers = np.arange(1 << m, dtype=np.uint32)
    patterns: NDArray[np.uint32] = numbers[np.bitwise_count(numbers) == n]
    return patterns.astype(np.uint16)


def _split(bits: Bytes, m: int) -> NDArray[np.unsignedinteger]:
    """Packed bits as numbers of ``m`` bits."""
    if m >= 8:
        return bits.view(f"<u{m // 8}")
    shifts = np.arange(0, 8, m, dtype=np.uint8)
    parts: Bytes = bits[:, None] >> shifts & np.uint8((1 << m) - 1)
    return parts.reshape(-1)


def _join(numbers: NDArray[np.uint16], m: int) -> Bytes:
    """What ``_split`` split; a last byte is filled up with 0."""
    if m >= 8:
        return numbers.astype(f"<u{m // 8}").view(np.uint8)
    each = 8 // m
    padded = np.zeros(-(-numbers.size // each) * each, np.uint8)
    padded[: numbers.size] = numbers
    shifts = np.arange(0, 8, m, dtype=np.uint8)
    joined: Bytes = np.bitwise_or.reduce(padded.reshape(-1, each) << shifts, axis=1, dtype=np.uint8)
    return joined
