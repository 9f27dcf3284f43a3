"""Lists of non-negative integers below 2**32 by Rice's code, with a parameter for each 128 of them.

For distances whose density changes along the list: it comes within a few thousandths of what an ideal code takes that
knows the density everywhere, and has no tables to store. ``spec/format.md`` ("Rice lists") has it bit by bit.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from maskhub.container.codecs import pco
from maskhub.errors import CodecError
from maskhub.storage.tensor import Bytes

CHUNK = 128  # values with one parameter
PARAMETERS = 32  # a value is stored as ``value >> k`` in unary, and its lowest k bits as they are: k is below this


def compress(values: NDArray[np.integer]) -> bytes:
    """The list of these values; no bytes for none."""
    if not values.size:
        return b""
    chosen = _choose(values)
    k = np.repeat(chosen, CHUNK)[: values.size]
    change = np.diff(chosen, prepend=0)
    unary = np.concatenate([np.where(change < 0, -2 * change - 1, 2 * change), values >> k])
    ends = np.cumsum(unary + 1)
    flags = np.zeros(ends[-1], np.uint8)
    flags[ends - 1] = 1
    low = [(values[start:stop, None] >> np.arange(k[start])) & 1 for start, stop in _runs(k)]
    rest = np.concatenate([part.astype(np.uint8).reshape(-1) for part in low])
    return np.packbits(flags, bitorder="little").tobytes() + np.packbits(rest, bitorder="little").tobytes()


def decompress(payload: Bytes, count: int) -> tuple[NDArray[np.uint32], Bytes]:
    """``count`` values that a payload begins with, and what follows them; CodecError where it holds no such list.

    A value takes a bit at least, so that a payload gives no more values than it has bits.
    """
    if not count:
        return np.empty(0, np.uint32), payload
    chunks = -(-count // CHUNK)
    total = np.cumsum(np.bitwise_count(payload), dtype=np.int64)
    end = int(np.searchsorted(total, chunks + count)) + 1  # bytes with all that is in unary
    ones = np.flatnonzero(np.unpackbits(payload[:end], bitorder="little").view(np.bool_))
    if ones.size < chunks + count:
        raise CodecError(f"a list of {count} values is cut short")
    unary = pco.distances(ones)
    if ones.size > chunks + count:
        raise CodecError("a list has bits behind its last value")
    zigzag, high = unary[:chunks], np.zeros((chunks, CHUNK), np.int64)
    high.reshape(-1)[:count] = unary[chunks:]
    k = np.cumsum(np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2))
    if k.min() < 0 or k.max() >= PARAMETERS:
        raise CodecError("a list has a parameter that is not below 32")
    if (high.max(axis=1) >> (32 - k)).any():
        raise CodecError("a list has a value of 2**32 or more")
    begin = np.cumsum(k * CHUNK) - k * CHUNK  # of each chunk its first bit
    size = int(begin[-1] + k[-1] * (count - (chunks - 1) * CHUNK))
    stop = end + (size + 7) // 8
    if stop > payload.size:
        raise CodecError(f"a list of {count} values is cut short")
    if size % 8 and payload[stop - 1] >> size % 8:
        raise CodecError("a list has bits behind its last value")
    low = np.concatenate([payload[end:stop], np.zeros(8, np.uint8)])
    words: NDArray[np.uint64] = np.ndarray(low.size - 7, "<u8", low, strides=(1,))  # one begins at each byte
    first = begin[:, None] + np.arange(CHUNK) * k[:, None]
    found = words.take(first >> 3, mode="clip")  # no value is behind the last one
    found >>= (first & 7).view(np.uint64)
    found &= ((1 << k) - 1).view(np.uint64)[:, None]
    found |= (high << k[:, None]).view(np.uint64)
    return found.reshape(-1)[:count].astype(np.uint32), payload[stop:]


def _choose(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """For each chunk the parameter that costs the fewest bits, and those of changing it."""
    padded = np.zeros(-(-values.size // CHUNK) * CHUNK, np.int64)
    padded[: values.size] = values
    chunks = padded.reshape(-1, CHUNK)
    sizes = np.full(len(chunks), CHUNK)
    sizes[-1] = values.size - (len(chunks) - 1) * CHUNK
    choices = np.arange(PARAMETERS)
    costs = np.stack([(chunks >> k).sum(axis=1) + sizes * k for k in choices], axis=1)
    chosen, before = [], 0
    for cost in costs:
        change = choices - before
        before = int(np.argmin(cost + 2 * np.abs(change) - (change < 0)))
        chosen.append(before)
    return np.array(chosen, np.int64)


def _runs(k: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where values lie that have one parameter and follow one another."""
    edges = [0, *(np.flatnonzero(np.diff(k)) + 1).tolist(), k.size]
    return list(pairwise(edges))
