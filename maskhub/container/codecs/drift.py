"""``drift``: only what training changed of the mask that it began with.

A reader rebuilds the initial draws. A weight is the likelier to have changed sides the nearer its draw lay to the cut.
So weights are put in that order, in which changes are dense first and then vanish, and the changes are coded as
distances along it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from maskhub.container.codecs import pco, rice
from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask, ones, packed_size
from maskhub.masks.scores import LEVELS, Initial, draw
from maskhub.storage.tensor import Bytes

BLOCK = 1 << 20  # weights that are put in order together: bounds memory, and fits a cache
FAR = 0.001  # share of changes that may lie beyond the window, which then is small and quick to sort
MANY = 0.2  # share of weights that start dropped, of which no list of places is kept
LIMIT = 1 << 31  # weights in a tensor: no sum of distances below 2**32 overflows


@dataclass(frozen=True)
class Drift:
    """For masks that training made from recorded initial scores. It has no parameters."""

    name: ClassVar[str] = "drift"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        initial = _initial(target)
        changes = np.empty_like(mask.bits)
        nearness: list[NDArray[np.uint16]] = []
        for start, keep, distance in _blocks(initial, target):
            place = slice(start // 8, start // 8 + (keep.size + 7) // 8)
            changes[place] = mask.bits[place] ^ np.packbits(keep, bitorder="little")
            nearness.append(distance[ones(changes[place])])
        distances = np.concatenate([*nearness, np.empty(0, np.uint16)])
        window = 1 + int(np.quantile(distances, 1 - FAR, method="higher")) if distances.size else 0
        ranks: list[NDArray[np.int64]] = []
        far: list[NDArray[np.int64]] = []
        before = 0  # near weights in earlier blocks
        for start, keep, distance in _blocks(initial, target):
            place = slice(start // 8, start // 8 + (keep.size + 7) // 8)
            changed = np.unpackbits(changes[place], count=keep.size, bitorder="little").view(np.bool_)
            order = _order(distance, window)
            found = np.flatnonzero(changed[order])
            ranks.append(found + before)
            far.append(start + np.flatnonzero(changed & (distance >= window)))
            before += order.size
        lists = [pco.distances(np.concatenate([*places, np.empty(0, np.int64)])) for places in (ranks, far)]
        head = b"".join(_leb128(number) for number in (window, lists[0].size, lists[1].size))
        return cls(), head + b"".join(map(rice.compress, lists))

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        return self._read(payload, target)[0]

    def dropped(self, payload: Bytes, target: Target) -> tuple[Bytes, NDArray[np.int32] | None]:
        """What ``decode`` gives, and where the dropped weights are, rising; None where that takes as long as by bits.

        They are those that started dropped or changed sides, and not both.
        """
        bits, at_first, changes = self._read(payload, target)
        if at_first is None:
            return bits, None
        return bits, np.setxor1d(np.concatenate(at_first), np.concatenate(changes), assume_unique=True)

    def _read(
        self, payload: Bytes, target: Target
    ) -> tuple[Bytes, list[NDArray[np.int32]] | None, list[NDArray[np.int32]]]:
        """The bits, the places of weights that started dropped, where these are at hand, and those of changes."""
        initial = _initial(target)
        try:
            window, rest = _read_leb128(payload)
            near, rest = _read_leb128(rest)
            far, rest = _read_leb128(rest)
            if window > LEVELS or near + far > min(target.size, 8 * rest.size):
                raise CodecError("the payload's head claims what cannot be")
            gaps, rest = rice.decompress(rest, near)
            far_gaps, rest = rice.decompress(rest, far)
        except CodecError as error:
            raise CodecError(f"codec 'drift': {error.message}") from error
        beyond = np.cumsum(far_gaps + np.int64(1), dtype=np.int64) - 1
        if far and beyond[-1] >= target.size:
            raise CodecError("codec 'drift': a far change lies past the end of the tensor")
        if rest.size:
            raise CodecError(f"codec 'drift': {rest.size} bytes follow the end of the payload")
        bits = np.empty(packed_size(target.shape), np.uint8)
        ranks = np.cumsum(gaps + np.int64(1), dtype=np.int64) - 1
        before = taken = 0
        at_first: list[NDArray[np.int32]] | None = [np.empty(0, np.int32)]
        changes = [beyond.astype(np.int32)]
        for block in target.draws.blocks(initial, target, window) if target.draws else _near(initial, target, window):
            first = block.start // 8
            bits[first : first + block.packed.size] = block.packed
            stop = int(np.searchsorted(ranks, before + block.near))
            if stop > taken:  # to put weights in order takes most of the time
                changed = block.order().take(ranks[taken:stop] - before)
                _invert(bits[first : first + block.packed.size], changed)
                changes.append(changed.astype(np.int32) + np.int32(block.start))
            taken, before = stop, before + block.near
            at_first = None if at_first is None or block.dropped is None else [*at_first, block.dropped]
        if taken < near:
            raise CodecError("codec 'drift': a change lies past the end of the tensor")
        _invert(bits, beyond)
        return bits, at_first, changes


class Block(NamedTuple):
    """Weights from ``start`` on: their initial mask, how many are near the cut, and what puts these in order.

    ``dropped`` are the places in the tensor of those that start dropped, where a list of them is kept.
    """

    start: int
    packed: Bytes
    near: int
    order: Callable[[], NDArray[np.integer]]
    dropped: NDArray[np.int32] | None = None


class Draws:
    """What masks have in common that began with the same scores: kept from the second on, so that more decode quickly.

    For each tensor that is its initial mask, as bits and, where it drops few, as places, and the order of the weights
    near the cut, up to the farthest that a mask asked for.
    """

    def __init__(self) -> None:
        self._asked: set[tuple[Initial, str, int]] = set()
        self._known: dict[tuple[Initial, str, int], tuple[int, list[_Known]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(one.nbytes for _, blocks in self._known.values() for one in blocks)

    def blocks(self, initial: Initial, target: Target, window: int) -> Iterator[Block]:
        """The blocks of a tensor, and of each the weights nearer to the cut than ``window``."""
        key = initial, target.name, target.size
        if key not in self._asked:  # there may never be a second one
            self._asked.add(key)
            yield from _near(initial, target, window)
            return
        farthest, known = self._known.get(key, (-1, []))
        if farthest < window:
            reach = min(window + window // 4, LEVELS)  # others go a little further
            known = [_Known.of(*block, reach) for block in _blocks(initial, target)]
            self._known[key] = reach, known
        for one in known:
            count = int(one.counts[window])
            yield Block(one.start, one.packed, count, partial(one.nearest, count), one.dropped)


@dataclass(frozen=True)
class _Known:
    """A block: ``order`` has the near weights, nearest first, and ``counts`` how many are nearer than each distance."""

    start: int
    packed: Bytes
    order: NDArray[np.int32]
    counts: NDArray[np.int64]
    dropped: NDArray[np.int32] | None

    @classmethod
    def of(cls, start: int, keep: Bytes, distance: NDArray[np.uint16], window: int) -> _Known:
        order = _order(distance, window).astype(np.int32)
        counts = np.zeros(window + 1, np.int64)
        np.cumsum(np.bincount(distance[order], minlength=window)[:window], out=counts[1:])
        few = np.count_nonzero(keep) >= (1 - MANY) * keep.size
        dropped = (start + np.flatnonzero(keep == 0)).astype(np.int32) if few else None
        return cls(start, np.packbits(keep, bitorder="little"), order, counts, dropped)

    def nearest(self, count: int) -> NDArray[np.int32]:
        return self.order[:count]

    @property
    def nbytes(self) -> int:
        dropped = 0 if self.dropped is None else self.dropped.nbytes
        return self.packed.nbytes + self.order.nbytes + self.counts.nbytes + dropped


def _near(initial: Initial, target: Target, window: int) -> Iterator[Block]:
    for start, keep, distance in _blocks(initial, target):
        count = int(np.count_nonzero(distance < window))
        packed = np.packbits(keep, bitorder="little")
        yield Block(start, packed, count, partial(_order, distance, window))


def _invert(bits: Bytes, places: NDArray[np.integer]) -> None:
    np.bitwise_xor.at(bits, places >> 3, np.uint8(1) << (places & 7).astype(np.uint8))


def _leb128(number: int) -> bytes:
    """An integer as LEB128 has it: seven bits a byte, the lowest first, and a bit that says whether more follow."""
    low, more = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _leb128(more) if more else bytes([low])


def _read_leb128(payload: Bytes) -> tuple[int, Bytes]:
    """An integer below 2**35 that a payload begins with, in its shortest form, and what follows it."""
    for size in range(1, 6):
        last = payload[size - 1 : size]
        if not last.size:
            break
        if last[0] < 0x80:
            if size > 1 and not last[0]:
                break
            return sum((int(byte) & 0x7F) << 7 * place for place, byte in enumerate(payload[:size])), payload[size:]
    raise CodecError("the payload's head is cut short, or not as LEB128 has it")


def _initial(target: Target) -> Initial:
    if target.initial is None:
        raise CodecError("codec 'drift': the mask's initial scores are not recorded")
    if target.size >= LIMIT:
        raise CodecError(f"codec 'drift': a tensor of {target.size} weights, and {LIMIT} is the limit")
    return target.initial


def _blocks(initial: Initial, target: Target) -> Iterator[tuple[int, Bytes, NDArray[np.uint16]]]:
    """Start, initial mask (1 = keep, a byte a weight) and distance from the cut, block by block.

    A draw of ``cut`` or more starts kept, at distance ``draw - cut``; else the distance is ``cut - 1 - draw``.
    """
    for start in range(0, target.size, BLOCK):
        drawn = draw(initial.seed, target.name, min(BLOCK, target.size - start), start)
        keep = (drawn >= initial.cut).view(np.uint8)
        above = drawn - np.uint16(initial.cut & 0xFFFF)  # wraps around below the cut, where its complement is right
        yield start, keep, above ^ (keep - np.uint16(1))  # which is all ones where it is dropped


def _order(distance: NDArray[np.uint16], window: int) -> NDArray[np.int64]:
    """Indices of the weights nearer to the cut than ``window``: nearest first, equals by index."""
    near = np.flatnonzero(distance < window)
    if near.size > distance.size // 2:  # to sort the others with them is quicker than to leave them out
        return np.argsort(np.where(distance < window, distance, LEVELS - 1), kind="stable")[: near.size]
    return near[np.argsort(distance[near], kind="stable")]
