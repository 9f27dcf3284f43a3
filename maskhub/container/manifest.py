"""The manifest: one JSON object that says what a ``.msk`` file holds, in a Zstandard frame. ``spec/format.md`` has it.

The structs below are the one definition; ``spec/make_schema.py`` generates ``manifest.schema.json`` from them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

import msgspec

from maskhub.container import frame
from maskhub.errors import CodecError, FormatError, OutOfMemoryError
from maskhub.masks.binding import BaseBinding, Digest, Name, Task
from maskhub.masks.mask import Mask, MaskSet, content_id
from maskhub.masks.scores import Initial
from maskhub.storage.safetensors import unique_keys
from maskhub.storage.tensor import Bytes, RawTensor

FORMAT = "maskhub"
MANIFEST, MASKS = "maskhub.manifest", "maskhub.masks"  # payloads; no dense tensor can have these names
LEVEL = 22  # of Zstandard: a manifest is small
MOST = 1 << 26  # bytes of JSON; a model of 100,000 tensors needs a third of it
FREE, EXPANSION = 1 << 20, 1 << 6  # bytes of JSON, and those for each of the payload: digests compress by eight
MAJOR, MINOR = 1, 0
VERSION = f"{MAJOR}.{MINOR}"

MAX_DIMENSIONS = 8
MAX_WEIGHTS = 1 << 48  # in one tensor: keeps sizes far from where NumPy's integers end
DEPTH = 63  # objects and arrays around a value; far more exhaust the stack of whoever walks them

NAMED = {"masks", "dense", "tensors"}  # maps keyed by tensor names, not by fields

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Shape = Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]


class MaskEntry(msgspec.Struct, frozen=True):
    """One mask: its shape, the weights it keeps, how it is coded, in how many bytes, and the digest of its bits."""

    shape: Shape
    kept: Count
    codec: dict[str, Any]
    bytes: Count
    digest: Digest


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """``masks`` has an entry for each mask, and ``dense`` the digest of each tensor that is stored whole.

    ``initial`` is what ``drift`` needs to rebuild the mask that training began with, and ``parent`` the id of the
    mask set that ``delta`` counts from.
    """

    format: Annotated[str, msgspec.Meta(pattern="^maskhub$")]
    version: Annotated[str, msgspec.Meta(pattern="^1\\.(0|[1-9][0-9]{0,8})$")]
    base: BaseBinding
    masks: dict[Name, MaskEntry]
    dense: dict[Name, Digest] = {}
    task: Task | None = None
    initial: Initial | None = None
    parent: Digest | None = None
    metrics: dict[str, int | float] = {}
    lineage: dict[str, Any] = {}

    @classmethod
    def of(
        cls,
        maskset: MaskSet,
        masks: dict[str, MaskEntry],
        dense: dict[str, str],
        *,
        parent: str | None = None,
    ) -> Self:
        """The manifest of a mask set with these entries."""
        return cls(
            format=FORMAT,
            version=VERSION,
            base=maskset.base,
            masks=masks,
            dense=dense,
            task=maskset.task,
            initial=maskset.initial,
            parent=parent,
            metrics=maskset.metrics,
            lineage=maskset.lineage,
        )

    def maskset(self, masks: dict[str, Mask], dense: dict[str, RawTensor], extra: dict[str, Any]) -> MaskSet:
        """The mask set of these masks and tensors, and of all that the manifest tells."""
        return MaskSet(self.base, masks, dense, self.task, self.initial, self.metrics, self.lineage, extra)

    @cached_property
    def id(self) -> str:
        """The mask set's id, which follows from all this."""
        return content_id(self.base, {name: entry.digest for name, entry in self.masks.items()}, self.dense, self.task)

    @property
    def plain(self) -> dict[str, str]:
        """What the file's metadata say, for people and viewers that read no manifest; the seal comes besides."""
        task = {"task": self.task.type} if self.task else {}
        return {"format": FORMAT, "version": self.version, "id": self.id, "base": self.base.name, **task}


def parse(text: str, source: str) -> tuple[Manifest, dict[str, Any]]:
    """The manifest in ``text``, and whatever keys of it this version does not know.

    Raises FormatError, naming ``source`` and the field.
    """
    try:
        raw = msgspec.json.decode(text)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise FormatError(f"{source}: the manifest's field 'format' is not {FORMAT!r}")
        check_version(raw.get("version"), source)
        _check_depth(raw, source)
        json.loads(text, object_pairs_hook=unique_keys, parse_int=_bounded)  # which msgspec does not look at
        manifest = msgspec.convert(raw, Manifest)
        return manifest, _unknown(raw, msgspec.to_builtins(manifest))
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise FormatError(f"{source}: the manifest is not valid: {error}") from error
    except MemoryError:
        raise FormatError(f"{source}: no memory for a manifest of {len(text):,} characters") from None


def unpack(payload: Bytes, source: str) -> str:
    """The manifest's text from its payload. Raises FormatError, naming ``source``."""
    try:
        if (size := frame.content_size(payload)) > MOST:
            raise CodecError(f"it says that it is {size:,} bytes long, and {MOST:,} are the most")
        if size > FREE + EXPANSION * payload.size:  # JSON of nothing but brackets takes 50 times its size in memory
            raise CodecError(f"it says that {payload.size:,} bytes hold {size:,}, far more than manifests do")
        return frame.unpack(payload).decode()
    except (CodecError, UnicodeError) as error:
        raise FormatError(f"{source}: the manifest cannot be read: {getattr(error, 'message', error)}") from error
    except MemoryError:
        raise OutOfMemoryError(f"{source}: not enough memory for its manifest") from None


def pack(text: str) -> bytes:
    """The manifest's payload for its text."""
    return frame.pack(text.encode(), LEVEL)


def render(manifest: Manifest, extra: Mapping[str, Any]) -> str:
    """The manifest as JSON; the same for equal manifests."""
    merged = _merge(msgspec.to_builtins(manifest), extra)
    return msgspec.json.encode(merged, order="sorted").decode()


def check_version(version: Any, source: str) -> None:
    """FormatError for what is no version, or one of another major number: then nothing else need mean what it does."""
    match = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})", version) if isinstance(version, str) else None
    if match is None:
        raise FormatError(f"{source}: the field 'version' is not a version: {str(version)[:100]!r}")
    if int(match[1]) != MAJOR:
        raise FormatError(
            f"{source}: format version {version}, and this MaskHub reads {MAJOR}.x",
            hint="Upgrade it: pip install --upgrade maskhub.",
        )


def check_shape(name: str, shape: tuple[int, ...], source: str) -> None:
    """FormatError for a shape that no tensor of a mask file has."""
    if len(shape) > MAX_DIMENSIONS or math.prod(max(d, 1) for d in shape) > MAX_WEIGHTS:
        raise FormatError(f"{source}: {name} has an impossible shape {str(list(shape))[:200]}")


def _check_depth(raw: Any, source: str) -> None:
    level = [raw]
    for _ in range(DEPTH):
        values = (value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer))
        level = [value for value in values if isinstance(value, (dict, list))]
    if any(level):
        raise FormatError(f"{source}: the manifest is nested deeper than {DEPTH} objects and arrays")


def _bounded(digits: str) -> int:
    """An integer of JSON, for ``json``'s ``parse_int``; ValueError for one beyond the range of 64-bit floats."""
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:20]}... is out of range")
    return int(digits)


def _unknown(raw: Any, known: Any) -> dict[str, Any]:
    """What ``raw`` has beyond ``known``, as nested dictionaries."""
    extra: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            extra[key] = value
        elif isinstance(value, dict) and isinstance(known[key], dict) and (inner := _unknown(value, known[key])):
            extra[key] = inner
    return extra


def _merge(known: dict[str, Any], extra: Mapping[str, Any], named: bool = False) -> dict[str, Any]:
    """``known`` with the keys of ``extra`` added; in a ``named`` map, only below names that still exist."""
    merged = dict(known)
    for key, value in extra.items():
        if isinstance(merged.get(key), dict) and isinstance(value, Mapping):
            merged[key] = _merge(merged[key], value, named=key in NAMED)
        elif key not in merged and not named:
            merged[key] = value
    return merged
