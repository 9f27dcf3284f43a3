"""What a codec is, and what it is told about the mask it codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from maskhub.masks.mask import Mask
from maskhub.masks.scores import Initial
from maskhub.storage.tensor import Bytes

if TYPE_CHECKING:
    from maskhub.container.codecs.drift import Draws

FREE = 1 << 24  # bytes: masks of 134 M weights, which ``drift``, the slowest, decodes in a few seconds
EXPANSION = 1 << 10


def most(stored: int) -> int:
    """How many bytes may come of so many stored ones, where nothing else bounds them.

    A few bytes can claim a mask of any size, and take any time and memory. A bit for 1024 weights is less than what is
    stored of any mask that was trained.
    """
    return FREE + EXPANSION * stored


@dataclass(frozen=True)
class Target:
    """A mask as a decoder knows it beforehand, from a checked manifest.

    ``initial`` is the mask that training began with, where it was recorded; ``parent`` the mask of the same tensor
    in the mask set that this one is coded against, where there is one. Only ``delta`` may need it: for other codecs
    no reader looks for it. ``draws`` is what ``drift`` keeps for more masks of the same seed, where it may.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    initial: Initial | None = None
    parent: Mask | None = None
    draws: Draws | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class Codec(Protocol):
    """A frozen dataclass: its fields are its parameters in the manifest.

    A codec that leaves something to choose also has a class method ``choose``. It gets what stands behind the colon
    in ``nm:2:4`` and gives a function that does as ``encode``. ArgumentError says what can be chosen.
    """

    name: ClassVar[str]

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        """Choose parameters for a mask and code it. Raises CodecError where this codec cannot."""
        ...

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        """The packed bits of the target; the caller checks that they are what the manifest says.

        Safe on any payload: beside the bits it allocates little, and no list that takes more than ``most`` bytes for
        its payload's; it raises CodecError where the payload does not fit.
        """
        ...
