"""The codecs: each turns one mask into bytes and back, without loss. Found by name.

A codec is a frozen dataclass in a module of its own. Its fields are its parameters in the manifest.
``encode`` is a class method: it chooses the parameters for one mask and returns them with the payload.
``decode`` must be safe on any payload: it allocates no more than the mask's declared size (and what the
parameters, checked against that size, allow), and raises ``CodecError`` where the payload does not fit.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Protocol, Self

import msgspec

from maskhub.container.codecs.bits import Bits
from maskhub.container.codecs.gaps import Gaps
from maskhub.container.codecs.zstd import Zstd
from maskhub.errors import CodecError
from maskhub.mask import Mask
from maskhub.tensor import Bytes


class Codec(Protocol):
    name: ClassVar[str]

    @classmethod
    def encode(cls, mask: Mask) -> tuple[Self, bytes]: ...

    def decode(self, payload: Bytes, shape: tuple[int, ...], kept: int) -> Bytes:
        """The packed bits of a mask of ``shape`` that keeps ``kept`` weights (which the caller checks)."""
        ...


REGISTRY: dict[str, type[Codec]] = {codec.name: codec for codec in (Bits, Zstd, Gaps)}
AUTO = "auto"
NAMES = (AUTO, *REGISTRY)


def encode(mask: Mask, name: str = AUTO) -> tuple[Codec, bytes]:
    """Code a mask by the codec of this name; ``auto`` takes the smallest result."""
    if name != AUTO:
        return find(name).encode(mask)
    coded = []
    for codec in REGISTRY.values():
        with contextlib.suppress(CodecError):  # not every codec can code every mask; ``bits`` can
            coded.append(codec.encode(mask))
    return min(coded, key=lambda pair: len(pair[1]))


def find(name: str) -> type[Codec]:
    if name not in REGISTRY:
        raise CodecError(f"unknown codec {name!r}; this version knows {', '.join(REGISTRY)}")
    return REGISTRY[name]


def to_dict(codec: Codec) -> dict[str, Any]:
    """The codec as the manifest holds it: its name and its parameters."""
    return {"name": codec.name, **msgspec.to_builtins(codec)}


def from_dict(entry: dict[str, Any]) -> Codec:
    """The codec that ``to_dict`` described; CodecError for an unknown one or wrong parameters."""
    parameters = dict(entry)
    codec = find(str(parameters.pop("name", "")))
    try:
        return msgspec.convert(parameters, codec)
    except msgspec.ValidationError as error:
        raise CodecError(f"codec {codec.name!r}: {error}") from error
