"""``zstd``: Zstandard over the packed bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import zstandard

from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask, packed_size
from maskhub.storage.tensor import Bytes

LEVEL = 3  # 19 takes 100 times as long and wins little but on structured masks, which are tiny either way
WINDOW = 1 << 23  # bytes that a decoder may have to look back; what RFC 8878 asks every decoder to support
DENSEST = 1 << 15  # bytes that a byte of a frame can stand for: a block takes 4 and gives at most 2**17


@dataclass(frozen=True)
class Zstd:
    """For structured masks: whole rows, heads or blocks."""

    name: ClassVar[str] = "zstd"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        return cls(), zstandard.ZstdCompressor(level=LEVEL).compress(mask.bits.data)

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        size = packed_size(target.shape)
        try:
            if payload[:4].tobytes() != zstandard.FRAME_HEADER:  # a skippable frame is none
                raise CodecError("codec 'zstd': the payload does not begin with a frame")
            declared = zstandard.frame_content_size(payload.data)
            if declared != size:
                raise CodecError(f"codec 'zstd': the frame declares {declared} bytes, the shape needs {size}")
            if size > payload.size * DENSEST:
                raise CodecError(f"codec 'zstd': a frame of {payload.size} bytes cannot hold the {size} it declares")
            window = zstandard.get_frame_parameters(payload.data).window_size
            if window > WINDOW:
                raise CodecError(f"codec 'zstd': a window of {window} bytes, and {WINDOW} is the limit")
            if size == 0:  # which ``decompress`` takes for an empty frame without reading on
                stream = zstandard.ZstdDecompressor().decompressobj()
                if stream.decompress(payload.data) or not stream.eof or stream.unused_data:
                    raise CodecError("codec 'zstd': not an empty frame")
                return np.empty(0, np.uint8)
            return np.frombuffer(
                zstandard.ZstdDecompressor().decompress(payload.data, allow_extra_data=False), np.uint8
            )
        except zstandard.ZstdError as error:
            raise CodecError(f"codec 'zstd': {error}") from error
