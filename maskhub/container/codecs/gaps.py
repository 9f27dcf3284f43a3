"""``gaps``: distances between the rarer bit's positions, entropy-coded by pcodec."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

from maskhub.errors import CodecError
from maskhub.mask import Mask
from maskhub.tensor import Bytes

CONFIG = ChunkConfig(compression_level=8, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())


@dataclass(frozen=True)
class Gaps:
    """For masks without structure, which is what training makes.

    ``width`` is the number of bits of a stored distance: how many other bits lie between one occurrence of the
    rarer bit and the one before it (or the start). The rarer bit is 1 where at most half of the weights are kept.
    """

    width: Literal[16, 32]

    name: ClassVar[str] = "gaps"

    @classmethod
    def encode(cls, mask: Mask) -> tuple[Self, bytes]:
        rarer, count = _rarer(mask.size, mask.kept)
        positions = _positions(mask.bits if rarer else ~mask.bits)[:count]  # the inverted padding comes last
        gaps = np.diff(positions, prepend=-1) - 1
        width = width_for(int(gaps.max(initial=0)))
        return cls(width), compress(gaps, width)

    def decode(self, payload: Bytes, shape: tuple[int, ...], kept: int) -> Bytes:
        size = math.prod(shape)
        rarer, count = _rarer(size, kept)
        positions = decompress(payload, count, self.width)
        positions += 1
        np.cumsum(positions, out=positions)
        positions -= 1
        if count and positions[-1] >= size:  # distances are below 2**32, so the sum cannot overflow
            raise CodecError("codec 'gaps': a position lies past the end of the tensor")
        flags = np.full(size, 1 - rarer, np.uint8)
        flags[positions] = rarer
        return np.packbits(flags, bitorder="little")


def _rarer(size: int, kept: int) -> tuple[int, int]:
    """The bit that is coded, and how often it occurs."""
    return (1, kept) if kept <= size // 2 else (0, size - kept)


def _positions(bits: Bytes) -> NDArray[np.int64]:
    """Where the ones of packed bits are. Bytes of zeros are left out first: a third of the time for sparse bits."""
    places = np.flatnonzero(bits != 0)
    ones = np.flatnonzero(np.unpackbits(bits[places], bitorder="little").view(np.bool_))
    positions: NDArray[np.int64] = places[ones >> 3] * 8 + (ones & 7)
    return positions


def width_for(largest: int) -> Literal[16, 32]:
    """The narrowest stored width, in bits, that holds this value; CodecError beyond 32."""
    if largest >= 1 << 32:
        raise CodecError(f"codec 'gaps': a distance of {largest} does not fit 32 bits")
    return 16 if largest < 1 << 16 else 32


def compress(values: NDArray[np.signedinteger], width: int) -> bytes:
    """A standalone pcodec file of non-negative integers below ``2 ** width``; no bytes for no values."""
    return bytes(standalone.simple_compress(values.astype(f"u{width // 8}"), CONFIG)) if values.size else b""


def decompress(payload: Bytes, count: int, width: int) -> NDArray[np.int64]:
    """``count`` integers that ``compress`` stored; CodecError where the payload holds another number of them."""
    values = np.empty(count, f"u{width // 8}")
    if count == 0 and payload.size == 0:
        return values.astype(np.int64)
    try:
        progress = standalone.simple_decompress_into(payload.tobytes(), values)
    except (RuntimeError, TypeError) as error:
        raise CodecError(f"pcodec payload: {error}") from error
    if progress.n_processed != count or not progress.finished:
        raise CodecError(f"pcodec payload: it does not hold {count} values of {width} bits")
    return values.astype(np.int64)
