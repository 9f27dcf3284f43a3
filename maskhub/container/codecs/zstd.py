"""``zstd``: Zstandard over the packed bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from maskhub.container import frame
from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask, packed_size
from maskhub.storage.tensor import Bytes

LEVEL = 3  # 19 takes 100 times as long and wins little but on structured masks, which are tiny either way


@dataclass(frozen=True)
class Zstd:
    """For structured masks: whole rows, heads or blocks."""

    name: ClassVar[str] = "zstd"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        return cls(), frame.pack(mask.bits.data, LEVEL)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        size = packed_size(target.shape)
        try:
            if (declared := frame.content_size(payload)) != size:
                raise CodecError(f"the frame declares {declared} bytes, the shape needs {size}")
            return np.frombuffer(frame.unpack(payload), np.uint8)
        except CodecError as error:
            raise CodecError(f"codec 'zstd': {error.message}") from error
