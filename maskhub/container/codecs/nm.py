"""``nm``: N:M patterns, one symbol for 16 neighbouring weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskhub.container.codecs import pco
from maskhub.container.codecs.codec import Target
from maskhub.errors import ArgumentError, CodecError
from maskhub.masks.mask import Mask, clear_padding, packed_size
from maskhub.storage.tensor import Bytes

GROUPS: tuple[Literal[2, 4, 8, 16], ...] = (2, 4, 8, 16)  # the strictest pattern first: each 1:2 is a 2:4
WORD = 16  # weights a symbol: a whole number of groups, and few enough patterns for 16 bits


@dataclass(frozen=True)
class NM:
    """For masks that keep exactly ``n`` of each ``m`` neighbours in the last dimension (2:4, 4:8, ...).

    The packed bits are cut into 16-bit words, little-endian. A word's symbol is its rank among the words in which
    every group of ``m`` bits has ``n`` ones. Past the end of the tensor, groups keep their first ``n``.
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
            if rest == 0 and 0 < n < m and mask.shape and mask.shape[-1] % m == 0:
                codec = cls(n, m)
                symbols = codec._symbols(mask)
                if (symbols >= 0).all():
                    return codec, pco.compress(symbols, 16)
        raise CodecError("codec 'nm': the mask has no N:M pattern in its last dimension")

    @classmethod
    def choose(cls, pattern: str) -> Callable[[Mask, Target], tuple[Self, bytes]]:
        """Code masks by this pattern, ``2:4``, and no other."""
        found = re.fullmatch(r"([0-9]{1,2}):(2|4|8|16)", pattern)
        if not found or not 0 < int(found[1]) < int(found[2]):
            raise ArgumentError(
                f"codec {'nm:' + pattern[:100]!r}: no pattern of neighbours",
                hint="It is nm:N:M, as in nm:2:4: M is 2, 4, 8 or 16, and N below it.",
            )
        n, m = map(int, found.groups())
        return cls(n, m)._encode  # type: ignore[arg-type]

    def _encode(self, mask: Mask, target: Target) -> tuple[Self, bytes]:
        """Code a mask by this pattern; CodecError names the first group that breaks it."""
        self._check(mask.shape)
        symbols = self._symbols(mask)
        if (wrong := np.flatnonzero(symbols < 0)).size:
            first = int(wrong[0]) * WORD
            keep = mask.to_bool().reshape(-1)[first : first + WORD].reshape(-1, self.m).sum(axis=1)
            group = int(np.flatnonzero(keep != self.n)[0])
            at = [int(i) for i in np.unravel_index(first + group * self.m, mask.shape)]
            raise CodecError(f"codec 'nm': the group of {self.m} weights at {at} keeps {keep[group]}, not {self.n}")
        return self, pco.compress(symbols, 16)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        self._check(target.shape)
        symbols = pco.decompress(payload, -(-target.size // WORD), 16)
        patterns = _patterns(self.n, self.m)
        if symbols.size and symbols.max() >= patterns.size:
            raise CodecError(f"codec 'nm': a symbol is not below {patterns.size}")
        return clear_padding(patterns[symbols].view(np.uint8)[: packed_size(target.shape)], target.size)

    def _check(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] % self.m:
            raise CodecError(f"codec 'nm': {self.m} does not divide the last dimension of {list(shape)}")

    def _symbols(self, mask: Mask) -> NDArray[np.int32]:
        """The symbol of each word; -1 for one that has none."""
        patterns = _patterns(self.n, self.m)
        symbols = np.full(1 << WORD, -1, np.int32)
        symbols[patterns] = np.arange(patterns.size)
        words = np.append(mask.bits, np.uint8(0))[: mask.bits.size + mask.bits.size % 2].view("<u2")
        if mask.size % WORD:
            words[-1] |= patterns[0] << (mask.size % WORD) & 0xFFFF  # the lowest: each group's first n ones
        found: NDArray[np.int32] = symbols[words]
        return found


@cache
def _patterns(n: int, m: int) -> NDArray[np.uint16]:
    """All words whose groups of ``m`` bits have ``n`` ones, in rising order."""
    words = np.arange(1 << WORD, dtype=np.uint32)
    fits = np.ones(words.size, bool)
    for shift in range(0, WORD, m):
        fits &= np.bitwise_count(words >> shift & ((1 << m) - 1)) == n
    return words[fits].astype("<u2")
