"""The codecs: each turns one mask into bytes and back, without loss. Found by name.

A codec is a frozen dataclass in a module of its own; ``codec.py`` says what one must do.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec

from maskhub.container.codecs.bits import Bits
from maskhub.container.codecs.codec import Codec as Codec
from maskhub.container.codecs.codec import Target as Target
from maskhub.container.codecs.delta import Delta
from maskhub.container.codecs.drift import Drift
from maskhub.container.codecs.gaps import Gaps
from maskhub.container.codecs.nm import NM
from maskhub.container.codecs.zstd import Zstd
from maskhub.errors import CodecError
from maskhub.masks.mask import Mask

REGISTRY: dict[str, type[Codec]] = {codec.name: codec for codec in (Bits, Zstd, Gaps, Drift, NM, Delta)}
AUTO = "auto"
NAMES = (AUTO, *REGISTRY)


def encode(mask: Mask, name: str, target: Target) -> tuple[Codec, bytes]:
    """Code a mask by the codec of this name; ``auto`` takes the smallest result, ``nm:2:4`` that one pattern.

    Raises CodecError for an unknown codec, or one that cannot code the mask.
    """
    if match := re.fullmatch(r"nm:(\d+):(\d+)", name):
        codec = from_dict({"name": "nm", "n": int(match[1]), "m": int(match[2])})
        assert isinstance(codec, NM)
        return codec, codec.encode_as(mask)
    if name != AUTO:
        return find(name).encode(mask, target)
    coded = []
    for kind in REGISTRY.values():
        with contextlib.suppress(CodecError):  # not every codec can code every mask; ``bits`` can
            coded.append(kind.encode(mask, target))
    return min(coded, key=lambda pair: len(pair[1]))


def find(name: str) -> type[Codec]:
    """The codec of this name, also with parameters behind a colon; CodecError for an unknown one."""
    if (kind := name.partition(":")[0]) not in REGISTRY:
        raise CodecError(f"unknown codec {name[:100]!r}; this version knows {', '.join(REGISTRY)}")
    return REGISTRY[kind]


def to_dict(codec: Codec) -> dict[str, Any]:
    """The codec as the manifest holds it: its name and its parameters."""
    return {"name": codec.name, **msgspec.to_builtins(codec)}


def from_dict(entry: dict[str, Any]) -> Codec:
    """The codec that ``to_dict`` described; CodecError for an unknown one or wrong parameters."""
    parameters = dict(entry)
    name = str(parameters.pop("name", ""))
    codec = find(name)
    if codec.name != name:  # parameters behind a colon are for people
        raise CodecError(f"unknown codec {name[:100]!r}")
    try:
        return msgspec.convert(parameters, codec)
    except msgspec.ValidationError as error:
        raise CodecError(f"codec {codec.name!r}: {error}") from error
