"""Flips of a mask: weights on the other side than the mask that training began with has them, by what they matter.

Fewer of them make a smaller file. Which bytes a file takes is measured by coding it, not by a formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskhub.container.writer import coded_bytes, file_bytes
from maskhub.errors import ArgumentError, FormatError
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage.atomic import atomic_file
from maskhub.storage.safetensors import TensorFile, write_tensors
from maskhub.storage.tensor import RawTensor

NEAR = 0.99  # of the bytes asked for, from which on a file is near enough
TRIES = 12


@dataclass(frozen=True)
class Flips:
    """Of each tensor the initial mask, and its flips: their places, rising, and how much each matters."""

    initial: Initial | None
    first: Mapping[str, Mask]
    places: Mapping[str, NDArray[np.int64]]
    values: Mapping[str, NDArray[np.float32]]

    @property
    def count(self) -> int:
        return sum(map(len, self.places.values()))

    def only(self, flags: Mapping[str, NDArray[np.bool_]]) -> Flips:
        """Some of them."""
        places = {name: places[flags[name]] for name, places in self.places.items()}
        return Flips(self.initial, self.first, places, {n: values[flags[n]] for n, values in self.values.items()})

    def highest(self, count: int) -> dict[str, NDArray[np.bool_]]:
        """Of each tensor which flips are among the ``count`` that matter most; of equal ones the first."""
        together = np.concatenate([np.empty(0, np.float32), *self.values.values()])
        flags = np.zeros(together.size, np.bool_)
        flags[np.argsort(-together, kind="stable")[:count]] = True
        ends = np.cumsum([len(each) for each in self.values.values()])[:-1]
        return dict(zip(self.values, np.split(flags, ends), strict=True))

    def masks(self, count: int) -> dict[str, Mask]:
        """The masks with the ``count`` flips that matter most."""
        return {
            name: flipped(self.first[name], self.places[name][flags]) for name, flags in self.highest(count).items()
        }

    def fitting(self, limit: float) -> int:
        """How many flips make masks of at most ``limit`` bytes, and nearly that; all where these take less."""
        bytes_of = {0: self._bytes(0), self.count: self._bytes(self.count)}
        low, high = 0, self.count
        if bytes_of[high] <= limit:
            return high
        for _ in range(TRIES):
            share = (limit * (1 + NEAR) / 2 - bytes_of[low]) / (bytes_of[high] - bytes_of[low])
            guess = min(max(low + round((high - low) * share), low + 1), high - 1)
            if guess <= low or bytes_of[low] >= NEAR * limit:
                break
            bytes_of[guess] = self._bytes(guess)
            low, high = (guess, high) if bytes_of[guess] <= limit else (low, guess)
        return low

    def _bytes(self, count: int) -> int:
        return coded_bytes(self.masks(count), self.initial, "auto" if self.initial is None else "drift")


def read_flips(path: Path, maskset: MaskSet) -> Flips:
    """The flips of a mask set, as ``write_flips`` recorded them. Raises FormatError where they are not of its masks."""
    file = TensorFile(path)
    if file.metadata.get("mask") != maskset.id:
        raise FormatError(f"{path}: holds the flips of another mask", hint="Get it again from the run.")
    places, values, first = {}, {}, {}
    for name, mask in maskset.items():
        found: list[NDArray[Any]] = [file.read(f"{name}.{part}").numpy() for part in ("places", "values")]
        if len(found[0]) != len(found[1]) or np.any(found[0] < 0) or np.any(found[0] >= mask.size):
            raise FormatError(f"{path}: {name}: its flips are not those of the mask")
        places[name], values[name] = found[0].astype(np.int64), found[1].astype(np.float32)
        first[name] = flipped(mask, places[name])
    return Flips(maskset.initial, first, places, values)


def write_flips(path: Path, flips: Flips, mask: str) -> None:
    """Record where the flips of the mask with this id are, and what each matters."""
    tensors = {f"{name}.places": RawTensor.from_numpy(places.astype(np.int32)) for name, places in flips.places.items()}
    tensors |= {f"{name}.values": RawTensor.from_numpy(values) for name, values in flips.values.items()}
    with atomic_file(path) as file:
        write_tensors(file, tensors, {"mask": mask})


def flipped(mask: Mask, places: NDArray[np.int64]) -> Mask:
    """A mask with the weights at these places on their other side."""
    bits = np.array(mask.bits)
    np.bitwise_xor.at(bits, places >> 3, (1 << (places & 7)).astype(np.uint8))
    return Mask(mask.shape, bits)


def budget(maskset: MaskSet, size: int) -> float:
    """The bytes that masks may take in a file of ``size`` bytes, all of it. ``maskset`` has the initial masks.

    Raises ArgumentError where the rest alone, with the head, takes more.
    """
    least = file_bytes(maskset)
    if size < least:
        raise ArgumentError(
            f"size: {size:,} bytes, and what a file holds besides flips takes {least:,}",
            hint="Ask for more than that.",
        )
    return size - least + coded_bytes(maskset.masks, maskset.initial)


def fit(maskset: MaskSet, flips: Flips, size: int) -> int:
    """How many of the flips a file of ``size`` bytes holds. Raises ArgumentError where it holds none.

    All, where they take less.
    """
    whole = file_bytes(maskset)
    if whole <= size:
        return flips.count
    limit = budget(dataclasses.replace(maskset, masks=flips.masks(0)), size)
    while True:  # the manifest's own bytes change a little, too
        count = flips.fitting(limit)
        taken = file_bytes(dataclasses.replace(maskset, masks=flips.masks(count)))
        if not count:
            raise ArgumentError(f"size: {size:,} bytes leave no room for flips", hint="Ask for more.")
        if taken <= size:
            return count
        limit -= taken - size
