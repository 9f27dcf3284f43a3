"""The codecs: each turns one mask into bytes and back, without loss. Found by name.

A codec is a frozen dataclass in a module of its own, here or in another package; ``codec.py`` says what one must do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from maskhub.container.codecs.bits import Bits
from maskhub.container.codecs.codec import Codec as Codec
from maskhub.container.codecs.codec import Target as Target
from maskhub.container.codecs.codec import most as most
from maskhub.container.codecs.delta import Delta
from maskhub.container.codecs.drift import Drift
from maskhub.container.codecs.gaps import Gaps
from maskhub.container.codecs.nm import NM
from maskhub.container.codecs.zstd import Zstd
from maskhub.errors import ArgumentError, CodecError, check_choice
from maskhub.masks.mask import Mask
from maskhub.storage.registry import Registry

REGISTRY: Registry[type[Codec]] = Registry("maskhub.codecs", "codec", (Bits, Zstd, Gaps, Drift, NM, Delta))
AUTO = "auto"

Encode = Callable[[Mask, Target], tuple[Codec, bytes]]


def names() -> list[str]:
    """What people can ask for."""
    return [AUTO, *REGISTRY]


def encoder(name: str) -> Encode:
    """How masks are coded by the codec that a person asks for: ``gaps``, or ``nm:2:4`` with what it lets be chosen.

    ``auto`` takes the smallest result, and only of the built-in codecs, which every reader has. Raises ArgumentError
    for what is no codec; what comes back raises CodecError for a mask that it cannot code.
    """
    if name == AUTO:
        return _smallest
    kind, colon, choice = name.partition(":")
    if kind != AUTO and kind not in REGISTRY:
        check_choice("codec", kind, names())
    codec = REGISTRY.get(kind)
    if codec and not colon:
        return codec.encode
    choose: Callable[[str], Encode] | None = getattr(codec, "choose", None)
    if choose is None:
        raise ArgumentError(f"codec {name[:100]!r}: there is nothing to choose behind a colon", hint=f"Name it {kind}.")
    return choose(choice)


def encode(mask: Mask, name: str, target: Target) -> tuple[Codec, bytes]:
    """Code one mask, as ``encoder`` says."""
    return encoder(name)(mask, target)


def _smallest(mask: Mask, target: Target) -> tuple[Codec, bytes]:
    coded = []
    for codec in REGISTRY.built_in.values():
        with contextlib.suppress(CodecError):  # not every codec can code every mask; ``bits`` can
            coded.append(codec.encode(mask, target))
    return min(coded, key=lambda pair: len(pair[1]))


def to_dict(codec: Codec) -> dict[str, Any]:
    """The codec as the manifest holds it: its name and its parameters."""
    return {"name": codec.name, **msgspec.to_builtins(codec)}


def from_dict(entry: dict[str, Any]) -> Codec:
    """The codec that ``to_dict`` described; CodecError for an unknown one or wrong parameters."""
    parameters = dict(entry)
    name = str(parameters.pop("name", ""))
    codec = REGISTRY.get(name)
    if codec is None:
        raise CodecError(
            f"unknown codec {name[:100]!r}; this version knows {', '.join(REGISTRY)}",
            hint="A newer version may know it, or a package that brings it.",
        )
    try:
        return msgspec.convert(parameters, codec)
    except msgspec.ValidationError as error:
        raise CodecError(f"codec {name!r}: {error}") from error
