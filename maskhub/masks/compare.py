"""How masks differ, in numbers: two of them tensor by tensor, or many pair by pair. On packed bits.

A mask is the set of the weights that it keeps.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskhub.errors import ArgumentError, check_choice, library
from maskhub.masks.compose import common_tensors
from maskhub.masks.mask import Mask, MaskSet, count_ones
from maskhub.masks.names import locate, order
from maskhub.storage.tensor import Bytes, RawTensor
from maskhub.storage.work import Progress, workers

CHUNK = 1 << 16  # bytes of each mask that are counted together: what all pairs take of them fits a cache

Key = TypeVar("Key")


def chance(weights: int, kept_a: Any, kept_b: Any) -> tuple[Any, Any]:
    """Mean and variance of how many weights two masks both keep, at random (hypergeometric).

    They keep so many each of ``weights``; counts may be arrays.
    """
    if weights == 0:
        return kept_a * 0.0, kept_b * 0.0
    expected = kept_a * (kept_b / weights)
    return expected, expected * (1 - kept_a / weights) * (weights - kept_b) / max(1, weights - 1)


@dataclass(frozen=True)
class Overlap:
    """Two masks of the same weights, counted.

    ``kept_a`` and ``kept_b`` are how many weights each keeps, ``both`` how many both keep. ``expected`` and
    ``variance`` are those of ``both`` for masks that keep as many in each tensor, but at random (hypergeometric, and
    summed over tensors); ``most`` is by how many more than ``expected`` the two would share, were they equal. Overlaps
    of different tensors are added with ``+``.
    """

    weights: int = 0
    kept_a: int = 0
    kept_b: int = 0
    both: int = 0
    expected: float = 0.0
    variance: float = 0.0
    most: float = 0.0

    @classmethod
    def of_counts(cls, weights: int, kept_a: int, kept_b: int, both: int) -> Overlap:
        """The overlap in one tensor."""
        expected, variance = chance(weights, kept_a, kept_b)
        most = math.sqrt(variance * max(0, weights - 1))
        return cls(weights, kept_a, kept_b, both, float(expected), float(variance), most)

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    @property
    def only_a(self) -> int:
        return self.kept_a - self.both

    @property
    def only_b(self) -> int:
        return self.kept_b - self.both

    @property
    def either(self) -> int:
        return self.kept_a + self.kept_b - self.both

    @property
    def neither(self) -> int:
        return self.weights - self.either

    @property
    def density_a(self) -> float:
        return self.kept_a / self.weights if self.weights else 0.0

    @property
    def density_b(self) -> float:
        return self.kept_b / self.weights if self.weights else 0.0

    @property
    def hamming(self) -> int:
        """Number of weights that one keeps and the other drops."""
        return self.only_a + self.only_b

    @property
    def differing(self) -> float:
        """Share of all weights that one keeps and the other drops."""
        return self.hamming / self.weights if self.weights else 0.0

    @property
    def jaccard(self) -> float:
        """Weights that both keep, of those that either keeps; 1 where neither keeps any."""
        return self.both / self.either if self.either else 1.0

    @property
    def jaccard_dropped(self) -> float:
        """Weights that both drop, of those that either drops; 1 where neither drops any."""
        return self.neither / (self.weights - self.both) if self.weights > self.both else 1.0

    @property
    def dissimilarity(self) -> float:
        """``|A - B|_1 / (|A|_1 + |B|_1)`` (Zhao et al. 2020): 0 for equal masks, 1 for disjoint ones."""
        return self.hamming / (self.kept_a + self.kept_b) if self.kept_a + self.kept_b else 0.0

    @property
    def z(self) -> float | None:
        """Standard deviations by which ``both`` exceeds ``expected``; None where only one value is possible."""
        return (self.both - self.expected) / math.sqrt(self.variance) if self.variance > 0 else None

    @property
    def correlation(self) -> float | None:
        """What the two share beyond chance, of what equal ones would: 0 by chance, 1 for equal masks.

        In one tensor this is Pearson's correlation of the two masks (phi). Unlike ``z`` it does not grow with the
        number of weights. None where only one value is possible.
        """
        return (self.both - self.expected) / self.most if self.most > 0 else None

    def numbers(self) -> dict[str, int | float | None]:
        """All counts and measures by name."""
        return {name: getattr(self, name) for name in NUMBERS}


NUMBERS = (
    "weights", "kept_a", "kept_b", "density_a", "density_b", "both", "only_a", "only_b", "neither",
    "hamming", "differing", "jaccard", "jaccard_dropped", "dissimilarity", "correlation", "expected", "variance", "z",
)  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """One number for two masks: the name of ``Overlap``'s property, what it is, and its unit."""

    name: str
    label: str
    unit: str

    def __call__(self, overlap: Overlap) -> float:
        """The measure of an overlap; NaN where it is not defined."""
        value = getattr(overlap, self.name)
        return math.nan if value is None else float(value)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("jaccard_dropped", "dropped by both, of what either drops", ""),
        Measure("correlation", "correlation: 0 by chance, 1 if equal", ""),
        Measure("dissimilarity", "dissimilarity |A - B| / (|A| + |B|)", ""),
        Measure("hamming", "Hamming distance", "weights"),
        Measure("differing", "share of weights that differ", ""),
        Measure("jaccard", "kept by both, of what either keeps", ""),
    )
}


@dataclass(frozen=True)
class TensorDiff:
    """One tensor that both have masks for.

    ``parameter`` is the task model's name of it; ``layer`` and ``kind`` are as ``names.locate`` has them.
    """

    name: str
    parameter: str
    shape: tuple[int, ...]
    layer: int | None
    kind: str
    overlap: Overlap


@dataclass(frozen=True)
class DenseDiff:
    """A dense tensor that differs.

    What each has (dtype and shape), None for nothing; and how many ``values`` differ where these are the same.
    """

    name: str
    a: str | None
    b: str | None
    values: int | None


@dataclass(frozen=True)
class FieldDiff:
    """A field of base, task, initial mask, metrics or lineage that differs; None where one lacks it."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Diff:
    """Two mask sets of one base.

    ``a`` and ``b`` are what they are called, ``ids`` their ids; ``tensors`` holds what both mask.

    ``same_start`` says that both were trained from the same initial mask: they share what training left of it, so
    that more overlap than ``expected`` does not yet mean that their tasks have something in common.
    """

    a: str
    b: str
    ids: tuple[str, str]
    total: Overlap
    tensors: tuple[TensorDiff, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    dense: tuple[DenseDiff, ...]
    fields: tuple[FieldDiff, ...]
    same_start: bool

    @property
    def same(self) -> bool:
        """Whether masks, dense tensors and task are the same; what the files note besides may differ."""
        return self.same_mask and not self.other_task

    @property
    def same_mask(self) -> bool:
        """Whether masks and dense tensors are the same, if perhaps for another task."""
        return not (self.total.hamming or self.only_in_a or self.only_in_b or self.dense)

    @property
    def other_task(self) -> bool:
        """Whether the tasks differ."""
        return any(field.field.startswith("task.") for field in self.fields)

    @cached_property
    def layers(self) -> dict[int | None, Overlap]:
        """The overlap in each layer; that of matrices outside all layers, None, comes last."""
        return self._grouped(lambda tensor: tensor.layer)

    @cached_property
    def kinds(self) -> dict[str, Overlap]:
        """The overlap in the matrices of each kind."""
        kinds = self._grouped(lambda tensor: tensor.kind)
        return {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: order(None, kind))}

    @cached_property
    def cells(self) -> dict[tuple[int | None, str], Overlap]:
        """The overlap by layer and kind."""
        return self._grouped(lambda tensor: (tensor.layer, tensor.kind))

    def _grouped(self, key: Callable[[TensorDiff], Key]) -> dict[Key, Overlap]:
        groups: dict[Key, Overlap] = {}
        for tensor in sorted(self.tensors, key=lambda tensor: order(tensor.layer, tensor.kind)):
            groups[key(tensor)] = groups.get(key(tensor), Overlap()) + tensor.overlap
        return groups

    def to_frame(self) -> Any:
        """A pandas data frame with a row for each tensor. Raises LibraryError where pandas is missing."""
        rows = (
            {"layer": t.layer, "kind": t.kind, "parameter": t.parameter, "shape": t.shape, **t.overlap.numbers()}
            for t in self.tensors
        )
        frame = _pandas().DataFrame(rows, index=[t.name for t in self.tensors])
        return frame.astype({"layer": "Int64"})  # whole numbers, also where some tensors are outside all layers


@dataclass(frozen=True, eq=False)
class Matrix:
    """A measure of each pair of many masks, over the ``tensors`` that all of them have.

    ``values`` are float64, square, symmetric; NaN where the measure is not defined. ``same`` says whether all are the
    same masks for the same task.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    same: bool
    measure: str
    values: NDArray[np.float64]
    tensors: int
    weights: int

    def rows(self) -> list[list[int | float | None]]:
        """``values`` as Python's numbers: counts are whole, and None is what is not defined."""
        number = int if MEASURES[self.measure].unit == "weights" else float
        return [[None if math.isnan(value) else number(value) for value in row] for row in self.values]

    def to_frame(self) -> Any:
        """A pandas data frame with a row and a column for each mask. Raises LibraryError where pandas is missing."""
        return _pandas().DataFrame(self.values, list(self.names), list(self.names))


def _pandas() -> Any:
    return library("pandas", "data frames", "pandas")


def diff(a: MaskSet, b: MaskSet, names: tuple[str, str] = ("A", "B"), progress: Progress | None = None) -> Diff:
    """How two mask sets of one base differ. Tensors that are known to be the same are not decoded.

    ``names`` are what they are called, and ``progress`` is called with tensors done and in all. Raises
    BaseMismatchError for different bases, and ArgumentError where shapes differ or no tensor is masked in both.
    """
    common = common_tensors((a, b), names)
    tensors = []
    with ThreadPoolExecutor(workers()) as pool:  # decoding works outside the interpreter lock
        for name, counted in zip(common, pool.map(lambda n: overlap(a[n], b[n]), common), strict=True):
            layer, kind = locate(name)
            tensors.append(TensorDiff(name, a.base.parameter(name), a[name].shape, layer, kind, counted))
            if progress:
                progress(len(tensors), len(common))
    return Diff(
        *names,
        ids=(a.id, b.id),
        total=sum((tensor.overlap for tensor in tensors), Overlap()),
        tensors=tuple(tensors),
        only_in_a=tuple(sorted(a.masks.keys() - b.masks.keys())),
        only_in_b=tuple(sorted(b.masks.keys() - a.masks.keys())),
        dense=tuple(_dense(a.dense, b.dense)),
        fields=tuple(_fields("", _notes(a), _notes(b))),
        same_start=a.initial is not None and a.initial == b.initial,
    )


def overlap(a: Mask, b: Mask) -> Overlap:
    """How two masks of one tensor differ. Raises ArgumentError where their shapes do."""
    if a.shape != b.shape:
        raise ArgumentError(f"masks of different shapes: {list(a.shape)} and {list(b.shape)}")
    known = vars(a).get("digest")  # hashing costs more than counting
    if a is b or (known and known == vars(b).get("digest")):
        return Overlap.of_counts(a.size, a.kept, a.kept, a.kept)
    bits_a, bits_b = a.bits, b.bits
    return Overlap.of_counts(a.size, count_ones(bits_a), count_ones(bits_b), count_ones(bits_a & bits_b))


def matrix(
    masksets: Mapping[str, MaskSet], measure: str = "jaccard_dropped", progress: Progress | None = None
) -> Matrix:
    """A measure of each pair of named mask sets of one base, over the tensors that all of them have.

    ``measure`` is a name of ``MEASURES``; each mask is decoded once. Raises as ``diff`` does, and ArgumentError for an
    unknown measure.
    """
    check_choice("measure", measure, MEASURES)
    sets = list(masksets.values())
    common = common_tensors(sets, list(masksets))
    count = len(sets)
    weights = 0
    both = np.zeros((count, count), np.int64)
    expected = np.zeros((count, count))
    variance = np.zeros((count, count))
    most = np.zeros((count, count))
    with ThreadPoolExecutor(workers()) as pool:
        for done, name in enumerate(common, 1):
            size = sets[0][name].size
            found = _both(list(pool.map(lambda maskset, name=name: maskset[name].bits, sets)))
            kept = np.diag(found)
            mean, spread = chance(size, kept[:, None], kept[None, :])
            weights, both, expected, variance = weights + size, both + found, expected + mean, variance + spread
            most = most + np.sqrt(spread * max(0, size - 1))
            if progress:
                progress(done, len(common))
    kept = np.diag(both)
    values = np.zeros((count, count))
    for i, j in zip(*np.triu_indices(count), strict=True):
        counts = (int(kept[i]), int(kept[j]), int(both[i, j]))
        pair = Overlap(weights, *counts, expected[i, j], variance[i, j], most[i, j])
        values[i, j] = values[j, i] = MEASURES[measure](pair)
    ids = tuple(maskset.id for maskset in sets)
    same = all((one.id, one.task) == (sets[0].id, sets[0].task) for one in sets)
    return Matrix(tuple(masksets), ids, same, measure, values, len(common), weights)


def _both(masks: Sequence[Bytes]) -> NDArray[np.int64]:
    """How many set bits each two packed masks have in common: square."""
    both = np.zeros((len(masks), len(masks)), np.int64)
    for start in range(0, masks[0].size, CHUNK):
        rows = np.zeros((len(masks), CHUNK), np.uint8)
        for row, bits in zip(rows, masks, strict=True):
            part = bits[start : start + CHUNK]
            row[: part.size] = part
        words = rows.view(np.uint64)
        for i in range(len(masks)):
            both[i, i:] += np.bitwise_count(words[i] & words[i:]).sum(axis=1, dtype=np.uint32)
    return np.triu(both) + np.triu(both, 1).T


def _dense(a: Mapping[str, RawTensor], b: Mapping[str, RawTensor]) -> Iterator[DenseDiff]:
    for name in sorted({*a, *b}):
        one, other = a.get(name), b.get(name)
        alike = one and other and (one.dtype, one.shape) == (other.dtype, other.shape)
        values = int(np.count_nonzero(one.words() != other.words())) if one and other and alike else None
        if values != 0:
            yield DenseDiff(name, _spec(one), _spec(other), values)


def _spec(tensor: RawTensor | None) -> str | None:
    return None if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def _notes(maskset: MaskSet) -> dict[str, Any]:
    """What belongs to a mask set besides masks and dense tensors."""
    base = msgspec.to_builtins(maskset.base)
    return {
        "base": {**base, "root": None, "tensors": len(maskset.base.tensors)},
        **{key: msgspec.to_builtins(getattr(maskset, key)) or {} for key in ("task", "initial", "metrics", "lineage")},
    }


def _fields(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[FieldDiff]:
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping | None) and isinstance(other, Mapping | None) and (one or other):
            yield from _fields(f"{prefix}{key}.", one or {}, other or {})
        elif one != other:
            yield FieldDiff(prefix + key, one, other)
