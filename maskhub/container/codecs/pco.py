"""Lists of non-negative integers, entropy-coded by pcodec, and lists of positions as the distances between them.

Of pcodec's format only a part is used, which is named in ``spec/format.md`` ("Lists of integers"). pcodec's own reader
takes more, and does not tell, so each chunk's head is looked at here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone, wrapped

from maskhub.container.codecs.codec import most
from maskhub.errors import CodecError
from maskhub.storage.tensor import Bytes

LEVEL = 12  # the distances of a random mask take it no longer than 8, and come 0.1 % closer to the bound
PASS = 1 << 16  # distances, and about positions times 64, that are worked on at a time, to bound memory

Width = Literal[16, 32]
TYPE: dict[int, int] = {16: 7, 32: 1}  # what pcodec calls their numbers
STANDALONE, MAJOR = 3, 4  # pcodec's versions: of the file, and of what is wrapped in it


def width_for(largest: int) -> Width:
    """The narrowest stored width, in bits, that holds this value; CodecError beyond 32."""
    if largest >= 1 << 32:
        raise CodecError(f"a distance of {largest} does not fit 32 bits")
    return 16 if largest < 1 << 16 else 32


def compress(values: NDArray[np.integer], width: Width) -> bytes:
    """A standalone pcodec file of non-negative integers below ``2 ** width``; no bytes for no values.

    CodecError for values that take so few bytes that ``decompress`` would not believe it.
    """
    if not values.size:
        return b""
    config = ChunkConfig(compression_level=LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
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
        _read_chunks(payload.tobytes(), values)
    except (RuntimeError, TypeError) as error:
        raise CodecError(f"pcodec payload: {error}") from error
    except IndexError:
        raise CodecError("pcodec payload: it is cut short") from None
    return values


def _read_chunks(payload: bytes, values: NDArray[np.unsignedinteger]) -> None:
    """Fill ``values`` with all that a file holds, chunk by chunk. IndexError where it ends too early."""
    width = values.itemsize * 8
    if payload[:4] != b"pco!" or payload[4] != STANDALONE:
        raise CodecError(f"pcodec payload: no file of pcodec's standalone version {STANDALONE}")
    if payload[5] not in (0, TYPE[width]):
        raise CodecError(f"pcodec payload: numbers of type {payload[5]}, not u{width}")
    at = 6 + (6 + 1 + payload[6] % 64 + 7) // 8  # the hint of the count is not looked at
    if payload[at] != MAJOR:
        raise CodecError(f"pcodec payload: format version {payload[at]}, and only {MAJOR} is read")
    file, _ = wrapped.FileDecompressor.new(payload[at : at + 2])
    at, done = at + 2, 0
    while payload[at]:
        if payload[at] != TYPE[width]:
            raise CodecError(f"pcodec payload: numbers of type {payload[at]}, not u{width}")
        count = int.from_bytes(payload[at + 1 : at + 4], "little") + 1
        if done + count > values.size:
            raise CodecError(f"pcodec payload: it does not hold {values.size} values, but more")
        at += 4
        mode, delta = payload[at] % 16, payload[at] >> 4
        if mode or delta:
            what = f"mode {mode}, and only 0 (classic)" if mode else f"delta encoding {delta}, and only 0 (none)"
            raise CodecError(f"pcodec payload: {what} is read")
        table = int.from_bytes(payload[at + 1 : at + 4], "little")
        state, bins = table % 16, table >> 4 & 0x7FFF
        head = (27 + bins * (state + width + width.bit_length()) + 7) // 8
        chunk, used = file.chunk_decompressor(payload[at : at + head], f"u{width}")
        at += used
        # The page's size is not told. What it can have at most is cut out: all the rest, each time, would take ages.
        page = payload[at : at + ((4 + count) * (state + width) + 7) // 8]
        progress, used = chunk.read_page_into(page, count, values[done : done + count])
        if progress.n_processed != count or not progress.finished:
            raise CodecError(f"pcodec payload: a chunk does not hold {count} values")
        at, done = at + used, done + count
    if done != values.size:
        raise CodecError(f"pcodec payload: it does not hold {values.size} values, but {done}")
    if at + 1 != len(payload):
        raise CodecError(f"pcodec payload: {len(payload) - at - 1} bytes follow its end")


def _check_expansion(size: int, count: int, width: Width) -> None:
    """Equal values take next to no bytes: a few hundred could fill any memory."""
    if count * width // 8 > most(size):
        raise CodecError(f"pcodec payload: {size} bytes for {count} values of {width} bits")


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
