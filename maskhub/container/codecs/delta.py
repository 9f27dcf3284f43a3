"""``delta``: where a mask differs from the same tensor's mask in its parent, as ``gaps`` codes positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np

from maskhub.container.codecs import pco
from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask, ones
from maskhub.storage.tensor import Bytes


@dataclass(frozen=True)
class Delta:
    """For versions of one mask. ``count`` weights differ; ``width`` is as in ``gaps``."""

    count: Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
    width: pco.Width

    name: ClassVar[str] = "delta"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        gaps = pco.distances(ones(mask.bits ^ _parent(target).bits))
        width = pco.width_for(int(gaps.max(initial=0)))
        return cls(gaps.size, width), pco.compress(gaps, width)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        bits = np.array(_parent(target).bits)
        if self.count > target.size:
            raise CodecError(f"codec 'delta': {self.count} differences in a tensor of {target.size} weights")
        pco.flip(bits, pco.decompress(payload, self.count, self.width), target.size)
        return bits


def _parent(target: Target) -> Mask:
    if target.parent is None:
        raise CodecError("codec 'delta': the parent has no mask for this tensor, or there is no parent")
    if target.parent.shape != target.shape:
        raise CodecError(
            f"codec 'delta': the parent's mask has shape {list(target.parent.shape)}, not {list(target.shape)}"
        )
    return target.parent
