"""``Mask`` (one tensor's packed bits) and ``MaskSet`` (a task: named masks and what belongs to them)."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskhub.errors import ArgumentError
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import Bytes, RawTensor

if TYPE_CHECKING:
    from maskhub.masks.summary import MaskSummary


def packed_size(shape: tuple[int, ...]) -> int:
    """Bytes of a packed mask of this shape."""
    return (math.prod(shape) + 7) // 8


@dataclass(frozen=True, eq=False)
class Mask:
    """Which weights of one tensor are kept.

    ``bits`` is a uint8 array of ``ceil(size / 8)`` bytes: row-major, least significant bit first, 1 = keep,
    the last byte padded with 0.
    """

    shape: tuple[int, ...]
    bits: Bytes

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint8 or self.bits.shape != (packed_size(self.shape),):
            raise ArgumentError(f"a mask of shape {self.shape} needs {packed_size(self.shape)} packed bytes")
        if self.size % 8 and self.bits[-1] >> (self.size % 8):
            raise ArgumentError("the padding of the last byte must be 0")

    @classmethod
    def from_bool(cls, keep: ArrayLike) -> Mask:
        """Pack an array of booleans, or of 0 and 1; True = keep. ArgumentError for any other value."""
        array = np.asarray(keep)
        if array.dtype != np.bool_:
            wrong = array[(array != 0) & (array != 1)].reshape(-1)
            if wrong.size:
                raise ArgumentError(
                    f"a mask is made of booleans, or of 0 and 1, and this {array.dtype} array holds {wrong[0]}",
                    hint="Compare it with a threshold first.",
                )
        return cls(array.shape, np.packbits(array.reshape(-1).astype(bool, copy=False), bitorder="little"))

    def to_bool(self) -> NDArray[np.bool_]:
        """The mask as a boolean array of ``shape``; True = keep."""
        flags = np.unpackbits(self.bits, count=self.size, bitorder="little")
        return flags.view(np.bool_).reshape(self.shape)

    @property
    def size(self) -> int:
        """Number of weights, kept or dropped."""
        return math.prod(self.shape)

    @cached_property
    def kept(self) -> int:
        """Number of weights kept."""
        return count_ones(self.bits)

    @property
    def sparsity(self) -> float:
        """Share of weights dropped, 0 to 1 (0 for an empty tensor)."""
        return 1 - self.kept / self.size if self.size else 0.0

    @cached_property
    def digest(self) -> str:
        return digest.mask_digest(self.shape, self.bits)

    def __and__(self, other: Mask) -> Mask:
        """The weights that both keep. Like all operators on packed bits; ArgumentError for different shapes."""
        return self._combined(np.bitwise_and, other)

    def __or__(self, other: Mask) -> Mask:
        """The weights that either keeps."""
        return self._combined(np.bitwise_or, other)

    def __xor__(self, other: Mask) -> Mask:
        """The weights that one of the two keeps."""
        return self._combined(np.bitwise_xor, other)

    def __sub__(self, other: Mask) -> Mask:
        """The weights that this mask keeps and the other drops."""
        return self._combined(without, other)

    def __invert__(self) -> Mask:
        """The weights that this mask drops."""
        return Mask(self.shape, clear_padding(~self.bits, self.size))

    def _combined(self, operation: Callable[[Bytes, Bytes], Bytes], other: Mask) -> Mask:
        if not isinstance(other, Mask):
            return NotImplemented
        if self.shape != other.shape:
            raise ArgumentError(f"masks of different shapes: {self.shape} and {other.shape}")
        return Mask(self.shape, operation(self.bits, other.bits))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def counted(self) -> bool:
        """Whether ``kept`` can be told without decoding."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Whether every weight is kept, as far as that can be told without making bits."""
        return self.kept == self.size

    def dropped(self) -> NDArray[np.integer]:
        """Where the dropped weights are, rising, as places in the flat tensor."""
        return ones(~self.bits)[: self.size - self.kept]  # without the padding

    def trust_shape(self) -> None:
        """A base has a tensor of this shape: bits may be made, however few bytes they come from."""

    def __repr__(self) -> str:
        counts = f", kept={self.kept}, sparsity={self.sparsity:.4f}" if self.counted else ""
        return f"Mask(shape={self.shape}{counts})"


class LazyMask(Mask):
    """A mask whose bits are made each time they are asked for. ``kept`` and ``digest`` may be known beforehand.

    ``keeps_all`` tells what the property of that name does, ``dropped`` what the method does, where there is a quicker
    way than by bits, and ``trust_shape`` is called where the method is.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        make: Callable[[], Bytes],
        *,
        keeps_all: Callable[[], bool] = lambda: False,
        dropped: Callable[[], NDArray[np.integer]] | None = None,
        trust_shape: Callable[[], object] = lambda: None,
        **known: int | str,
    ) -> None:
        ways = {"_make": make, "_keeps_all": keeps_all, "_dropped": dropped, "_trust_shape": trust_shape}
        self.__dict__.update(shape=shape, **ways, **known)

    @property
    def keeps_all(self) -> bool:
        found: bool = self.__dict__["_keeps_all"]()
        return found

    def dropped(self) -> NDArray[np.integer]:
        quick: Callable[[], NDArray[np.integer]] | None = self.__dict__["_dropped"]
        return super().dropped() if quick is None else quick()

    def trust_shape(self) -> None:
        self.__dict__["_trust_shape"]()

    @property
    def bits(self) -> Bytes:
        bits: Bytes = self.__dict__["_make"]()
        return bits

    @property
    def counted(self) -> bool:
        return "kept" in self.__dict__


def ones(bits: Bytes) -> NDArray[np.int64]:
    """Where the ones of packed bits are. Bytes of zeros are left out first: a third of the time for sparse bits."""
    places = np.flatnonzero(bits != 0)
    found = np.flatnonzero(np.unpackbits(bits[places], bitorder="little").view(np.bool_))
    positions: NDArray[np.int64] = places[found >> 3] * 8 + (found & 7)
    return positions


def without(bits: Bytes, others: Bytes) -> Bytes:
    """The set bits of the first that are not set in the second."""
    return bits & ~others


def clear_padding(bits: Bytes, size: int) -> Bytes:
    """``bits`` with what follows the first ``size`` of them set to 0, in place."""
    if size % 8:
        bits[-1] &= (1 << size % 8) - 1
    return bits


def count_ones(bits: Bytes) -> int:
    """Number of set bits in a uint8 array."""
    whole = bits.size // 8 * 8
    words = bits[:whole].view(np.uint64) if bits.flags.c_contiguous else bits[:whole]
    return int(np.bitwise_count(words).sum(dtype=np.int64)) + int(np.bitwise_count(bits[whole:]).sum(dtype=np.int64))


@dataclass(frozen=True)
class Stored:
    """What is known of a mask set's file without decoding.

    Name, size and format version of the file, the text of its manifest, the bytes and the codec of each mask, and what
    tells the ids of the masks that it is coded against, with the file of each that is at hand.
    """

    path: str
    bytes: int
    version: str
    manifest: str
    sizes: Mapping[str, int]
    codecs: Mapping[str, str]
    chain: Callable[[], list[tuple[str, str | None]]]


@dataclass(frozen=True, eq=False, repr=False)
class MaskSet(Mapping[str, Mask]):
    """A task: one mask for each masked base tensor, dense tensors trained beside them, and where all belongs.

    It is a mapping of its ``masks``, by the base checkpoint's tensor names; ``dense`` is keyed by the task model's
    parameter names. Masks may be decoded each time their bits are asked for. ``initial`` is the mask that training
    began with, and ``stored`` the file that the set was opened from: a changed copy has none.

    Mask sets are equal that have the same ``id``.
    """

    base: BaseBinding
    masks: Mapping[str, Mask]
    dense: Mapping[str, RawTensor] = field(default_factory=dict)
    task: Task | None = None
    initial: Initial | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # manifest keys this version does not know
    stored: Stored | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.masks) - set(self.base.tensors)):
            raise ArgumentError(f"masked tensors that the base binding does not list: {', '.join(unknown)}")
        if unknown := sorted(set(self.base.parameters) - set(self.base.tensors)):
            raise ArgumentError(f"parameters of tensors that the base binding does not list: {', '.join(unknown)}")
        parameters = Counter([*map(self.base.parameter, self.base.tensors), *self.dense])
        if twice := sorted(name for name, count in parameters.items() if count > 1):
            raise ArgumentError(f"two tensors for one parameter of the task model: {', '.join(twice)}")

    def __getitem__(self, name: str) -> Mask:
        return self.masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskSet) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def told_otherwise(self, other: MaskSet) -> list[str]:
        """What differs of what equal ids say nothing about: the base's name, initial mask, metrics, lineage."""
        told = (field.name for field in dataclasses.fields(self) if field.name not in ("masks", "dense", "stored"))
        return [name for name in told if getattr(self, name) != getattr(other, name)]

    def __repr__(self) -> str:
        """What is known without decoding."""
        masks = f"{len(self)} of {self.weights:,} weights"
        if all(mask.counted for mask in self.values()):
            masks += f", sparsity {self.sparsity:.4f}"
        lines = [
            *([f"task={self.task.type!r}"] if self.task else []),
            f"base={self.base.name!r}",
            *([f"id={self.id!r}"] if "id" in self.__dict__ else []),
            f"masks=<{masks}>",
            *([f"dense=<{len(self.dense)}>"] if self.dense else []),
        ]
        return "MaskSet(" + "".join(f"\n    {line}," for line in lines) + "\n)"

    def _repr_html_(self) -> str:
        """For notebooks: what ``maskhub info`` shows."""
        from maskhub.masks.summary import to_html  # which stands above this module

        return to_html(self.summary())

    @property
    def weights(self) -> int:
        """Number of masked weights, kept or dropped."""
        return sum(mask.size for mask in self.values())

    @property
    def sparsity(self) -> float:
        """Share of the masked weights that are dropped, 0 to 1 (0 where there are none)."""
        return 1 - sum(mask.kept for mask in self.values()) / self.weights if self.weights else 0.0

    def summary(self) -> MaskSummary:
        """All of it in numbers. Of an opened file nothing is decoded, and its sizes and codecs are told."""
        from maskhub.masks.summary import summarize

        return summarize(self)

    def save(self, path: str | Path, **options: Any) -> Any:
        """``maskhub.save(self, path, **options)``."""
        import maskhub

        return maskhub.save(self, path, **options)

    def __and__(self, other: MaskSet) -> MaskSet:
        """``maskhub.compose("a & b", ..., head_from="a")``: tensor by tensor, when a mask's bits are asked for.

        As all operators it gives the head and task of the mask set on its left.
        """
        return self._composed("a & b", other)

    def __or__(self, other: MaskSet) -> MaskSet:
        return self._composed("a | b", other)

    def __xor__(self, other: MaskSet) -> MaskSet:
        return self._composed("a ^ b", other)

    def __sub__(self, other: MaskSet) -> MaskSet:
        return self._composed("a - b", other)

    def __invert__(self) -> MaskSet:
        return self._composed("~a")

    def _composed(self, expression: str, *others: MaskSet) -> MaskSet:
        from maskhub.masks.compose import compose  # which stands above this module

        if not all(isinstance(other, MaskSet) for other in others):
            return NotImplemented  # type: ignore[no-any-return]
        return compose(expression, dict(zip("ab", (self, *others), strict=False)), head_from="a")

    def with_base_name(self, name: str) -> MaskSet:
        """The same, with another name for the base; the id stays."""
        return dataclasses.replace(self, base=msgspec.structs.replace(self.base, name=name))

    @cached_property
    def id(self) -> str:
        """Content id: the same for the same base, bits, dense tensors and task, however they are stored."""
        masks = {name: mask.digest for name, mask in self.masks.items()}
        dense = {name: digest.tensor_digest(t.dtype, t.shape, t.data) for name, t in self.dense.items()}
        return content_id(self.base, masks, dense, self.task)


def content_id(base: BaseBinding, masks: Mapping[str, str], dense: Mapping[str, str], task: Task | None) -> str:
    """The id of a mask set with these digests of masks and dense tensors."""
    parameters = {name: base.parameter(name) for name in base.tensors}
    return digest.mask_id(base.root, masks, dense, parameters, None if task is None else msgspec.to_builtins(task))
