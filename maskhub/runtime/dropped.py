"""The weights that a task drops, so that live weights become the task's and the base's again, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskhub.masks.mask import Mask

MANY = 0.2  # share of dropped weights from which bits take less memory than positions
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropped(Protocol):
    """What one task drops of one tensor. ``words`` are the tensor's elements as integers, flat, in place.

    ``nbytes`` counts the base's values, too, which are kept from the first use on.
    """

    nbytes: int

    def drop(self, words: Tensor) -> None:
        """Set them to 0. What they are the first time, the base's, is what ``restore`` puts back."""

    def restore(self, words: Tensor) -> None:
        """Give them the base's values again."""

    def slim(self) -> None:
        """Forget what was made for mixed batches, the second form."""


def words(weight: Tensor) -> Tensor:
    """A tensor's elements as integers of their width, flat, on the same memory."""
    return weight.detach().view(-1).view(WORDS[weight.element_size()])


def dropped(mask: Mask, words: Tensor) -> Dropped | None:
    """What a mask drops of a tensor, by its bits or its places; None where it keeps all."""
    if mask.keeps_all:
        return None
    if (count := mask.size - mask.kept) > MANY * mask.size:
        return Bits(torch.from_numpy(np.array(mask.bits)).to(words.device), count, words)
    return Places(torch.from_numpy(mask.dropped()).to(words.device), words)


class Places:
    """Few dropped weights: their places, rising, and the base's values there."""

    def __init__(self, places: Tensor, words: Tensor) -> None:
        self.places = places.to(torch.int32) if words.numel() < 1 << 31 else places
        self.values: Tensor | None = None
        self._rows: Tensor | None = None
        self._slim = self.nbytes = self.places.nbytes + self.places.numel() * words.element_size()

    def rows(self, weight: Tensor, *, transposed: bool = False) -> Tensor:
        """The dropped values of a matrix alone, as a sparse one by rows (of its transpose); made once, and kept.

        The matrix is the base's, of floats of which torch has sparse products.
        """
        if self._rows is None:
            height, width = weight.shape
            down, along = self.places // width, self.places % width
            values = self._base(words(weight), self.places.long()).view(weight.dtype)
            if transposed:
                order = along.argsort(stable=True)
                height, width, down, along, values = width, height, along[order], down[order], values[order]
            counts = torch.bincount(down, minlength=height)
            starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(along.dtype)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # is in beta
                self._rows = torch.sparse_csr_tensor(starts, along, values, (height, width), check_invariants=False)
            self.nbytes += starts.nbytes + along.nbytes + (values.nbytes if transposed else 0)
        return self._rows

    def drop(self, words: Tensor) -> None:
        places = self.places.long()
        self._base(words, places)
        words.scatter_(0, places, 0)

    def restore(self, words: Tensor) -> None:
        places = self.places.long()
        words.scatter_(0, places, self._base(words, places))

    def slim(self) -> None:
        self._rows, self.nbytes = None, self._slim

    def _base(self, words: Tensor, places: Tensor) -> Tensor:
        if self.values is None:
            self.values = words.gather(0, places)
        return self.values


class Bits:
    """Many dropped weights, as patterns have: the packed bits of the kept ones, and the base's values of the others."""

    def __init__(self, bits: Tensor, count: int, words: Tensor) -> None:
        self.bits = bits
        self.values: Tensor | None = None
        self.nbytes = bits.nbytes + count * words.element_size()

    def flags(self, words: Tensor) -> Tensor:
        """Which weights are dropped."""
        shifts = torch.arange(8, dtype=torch.uint8, device=self.bits.device)
        return (self.bits[:, None] >> shifts & 1 == 0).view(-1)[: words.numel()]

    def drop(self, words: Tensor) -> None:
        flags = self.flags(words)
        self._base(words, flags)
        words[flags] = 0

    def restore(self, words: Tensor) -> None:
        flags = self.flags(words)
        words[flags] = self._base(words, flags)

    def slim(self) -> None:
        pass  # there is none

    def _base(self, words: Tensor, flags: Tensor) -> Tensor:
        if self.values is None:
            self.values = words[flags]
        return self.values


Changes = Mapping[str, Dropped]  # by the base's tensor names
