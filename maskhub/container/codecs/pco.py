"""Lists of non-negative integers, entropy-coded by pcodec, and lists of positions as the distances between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from maskhub.container.codecs.codec import most
from maskhub.errors import CodecError
from maskhub.storage.tensor import Bytes

LEVEL = 12  # the distances of a random mask take it no longer than 8, and come 0.1 % closer to the bound
PASS = 1 << 16  # distances, and about positions times 64, that are worked on at a time, to bound memory

Width = Literal[16, 32]


def width_for(largest: int) -> Width:
    """The narrowest stored width, in bits, that holds this value; CodecError beyond 32."""
    if largest >= 1 << 32:
        raise CodecError(f"a distance of {largest} does not fit 32 bits")
    return 16 if largest < 1 << 16 else 32


def compress(values: NDArray[np.integer], width: Width, pages: Sequence[int] | None = None) -> bytes:
    """A standalone pcodec file of non-negative integers below ``2 ** width``; no bytes for no values.

    ``pages`` splits the values into chunks that are modelled each on their own. CodecError for values that take so
    few bytes that ``decompress`` would not believe it.
    """
    if not values.size:
        return b""
    paging = {} if pages is None else {"paging_spec": PagingSpec.exact_page_sizes(list(pages))}
    config = ChunkConfig(compression_level=LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op(), **paging)
    payload = bytes(standalone.simple_compress(values.astype(f"u{width // 8}"), config))
    _check_expansion(len(payload), values.size, width)
    return payload


def decompress(payload: Bytes, count: int, width: Width) -> NDArray[np.unsignedinteger]:
    """``count`` integers that ``compress`` stored; CodecError where the payload holds another number of them."""
    _check_expansion(payload.size, count, width)
    values: NDArray[np.unsignedinteger] = np.empty(count, f"u{width // 8}")
    if count == 0:
        if payload.size:
            raise CodecError(f"pcodec payload: {payload.size} bytes for no values")
        return values
    try:
        progress = standalone.simple_decompress_into(payload.tobytes(), values)
    except (RuntimeError, TypeError) as error:
        raise CodecError(f"pcodec payload: {error}") from error
    if progress.n_processed != count or not progress.finished:
        raise CodecError(f"pcodec payload: it does not hold {count} values of {width} bits")
    return values


def _check_expansion(size: int, count: int, width: Width) -> None:
    """Equal values take next to no bytes: a few hundred could fill any memory."""
    if count * width // 8 > most(size):
        raise CodecError(f"pcodec payload: {size} bytes for {count} values of {width} bits")


def ones(bits: Bytes) -> NDArray[np.int64]:
    """Where the ones of packed bits are. Bytes of zeros are left out first: a third of the time for sparse bits."""
    places = np.flatnonzero(bits != 0)
    found = np.flatnonzero(np.unpackbits(bits[places], bitorder="little").view(np.bool_))
    positions: NDArray[np.int64] = places[found >> 3] * 8 + (found & 7)
    return positions


def distances(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many other places lie between each position and the one before it (or the start)."""
    return np.diff(positions, prepend=-1) - 1


def flip(bits: Bytes, gaps: NDArray[np.unsignedinteger], size: int) -> None:
    """Invert, in place, the bits whose positions have these distances. CodecError for one at ``size`` or beyond."""
    start = 0  # the first position that the next distance counts from
    for first in range(0, gaps.size, PASS):
        positions = np.cumsum(gaps[first : first + PASS] + np.int64(1), dtype=np.int64)
        positions += start - 1
        if positions[-1] >= size:  # each distance is below 2**32, so no sum overflows
            raise CodecError("a position lies past the end of the tensor")
        start = int(positions[-1]) + 1
        low = int(positions[0]) >> 3 << 3
        if start - low > 64 * PASS:  # few positions, far apart
            np.bitwise_xor.at(bits, positions >> 3, np.uint8(1) << (positions & 7).astype(np.uint8))
        else:
            flags = np.zeros(start - low, np.uint8)
            flags[positions - low] = 1
            packed = np.packbits(flags, bitorder="little")
            bits[low >> 3 : (low >> 3) + packed.size] ^= packed
