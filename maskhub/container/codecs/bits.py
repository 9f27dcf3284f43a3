"""``bits``: the packed bits as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from maskhub.container.codecs.codec import Target
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask, packed_size
from maskhub.storage.tensor import Bytes


@dataclass(frozen=True)
class Bits:
    """For masks near one half dropped, and for masks to be opened at once."""

    name: ClassVar[str] = "bits"

    @classmethod
    def encode(cls, mask: Mask, target: Target) -> tuple[Self, bytes]:
        return cls(), mask.bits.tobytes()

    def decode(self, payload: Bytes, target: Target) -> Bytes:
        if payload.size != packed_size(target.shape):
            raise CodecError(f"codec 'bits': {payload.size} bytes where the shape needs {packed_size(target.shape)}")
        return payload
