"""The weights that a task drops, so that live weights become the task's and the base's again, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskhub.container.codecs.pco import ones
from maskhub.masks.mask import Mask

MANY = 0.2  # share of dropped weights from which bits take less memory than positions
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropped(Protocol):
    """What one task drops of one tensor. ``words`` are the tensor's elements as integers, flat, in place."""

    nbytes: int

    def drop(self, words: Tensor) -> None:
        """Set them to 0; what they were the first time is what ``restore`` puts back."""

    def restore(self, words: Tensor) -> None:
        """Give them the base's values again."""


def words(weight: Tensor) -> Tensor:
    """A tensor's elements as integers of their width, flat, on the same memory."""
    return weight.detach().view(-1).view(WORDS[weight.element_size()])


def dropped(mask: Mask, words: Tensor) -> Dropped | None:
    """What a mask drops, while ``words`` are the base's; None where it keeps all."""
    if mask.keeps_all:
        return None
    count, bits = mask.size - mask.kept, mask.bits
    if count > MANY * mask.size:
        return Bits(torch.from_numpy(np.array(bits)).to(words.device), words)
    return Places(torch.from_numpy(ones(~bits)[:count]).to(words.device), words)


class Places:
    """Few dropped weights: their places, rising, and the base's values there."""

    def __init__(self, places: Tensor, words: Tensor) -> None:
        self.places = places.to(torch.int32) if words.numel() < 1 << 31 else places
        self.values = words.gather(0, places)
        self._rows: Tensor | None = None
        self.nbytes = self.places.nbytes + self.values.nbytes

    def rows(self, weight: Tensor, *, transposed: bool = False) -> Tensor:
        """The dropped values of a matrix alone, as a sparse one by rows (of its transpose); made once, and kept.

        Floats that sparse products lack become 32-bit ones.
        """
        if self._rows is None:
            height, width = weight.shape
            down, along = self.places // width, self.places % width
            values = self.values.view(weight.dtype)
            if transposed:
                order = along.argsort(stable=True)
                height, width, down, along, values = width, height, along[order], down[order], values[order]
            counts = torch.bincount(down, minlength=height)
            starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(along.dtype)
            exact = weight.dtype in (torch.float32, torch.float64)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # is in beta
                self._rows = torch.sparse_csr_tensor(
                    starts, along, values if exact else values.float(), (height, width), check_invariants=False
                )
            self.nbytes += (
                starts.nbytes + along.nbytes + (0 if exact and not transposed else self._rows.values().nbytes)
            )
        return self._rows

    def drop(self, words: Tensor) -> None:
        words.scatter_(0, self.places.long(), 0)

    def restore(self, words: Tensor) -> None:
        words.scatter_(0, self.places.long(), self.values)


class Bits:
    """Many dropped weights, as patterns have: the packed bits of the kept ones, and the base's values of the others."""

    def __init__(self, bits: Tensor, words: Tensor) -> None:
        self.bits = bits
        self.values = words[self.flags(words)]
        self.nbytes = self.bits.nbytes + self.values.nbytes

    def flags(self, words: Tensor) -> Tensor:
        """Which weights are dropped."""
        shifts = torch.arange(8, dtype=torch.uint8, device=self.bits.device)
        return (self.bits[:, None] >> shifts & 1 == 0).view(-1)[: words.numel()]

    def drop(self, words: Tensor) -> None:
        words[self.flags(words)] = 0

    def restore(self, words: Tensor) -> None:
        words[self.flags(words)] = self.values


Changes = Mapping[str, Dropped]  # by the base's tensor names
