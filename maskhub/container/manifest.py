"""The manifest: one JSON object that says what a ``.msk`` file holds. Fields are described in ``spec/format.md``.

The structs below are the one definition; ``spec/make_schema.py`` generates ``manifest.schema.json`` from them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec

from maskhub.errors import FormatError
from maskhub.masks.binding import BaseBinding, Digest, Name, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.safetensors import unique_keys
from maskhub.storage.tensor import RawTensor

KEY = "maskhub"  # the manifest's key in the safetensors metadata
MAJOR, MINOR = 1, 0
VERSION = f"{MAJOR}.{MINOR}"

DEPTH = 63  # objects and arrays around a value; far more exhaust the stack of whoever walks them

NAMED = {"masks", "dense", "tensors"}  # maps keyed by tensor names, not by fields

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Shape = Annotated[tuple[Count, ...], msgspec.Meta(max_length=8)]
Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$", max_length=16)]


class MaskEntry(msgspec.Struct, frozen=True):
    """One mask: its shape, the weights it keeps, how it is coded, and the digests of its bits and its payload."""

    shape: Shape
    kept: Count
    codec: dict[str, Any]
    digest: Digest
    checksum: Checksum


class DenseEntry(msgspec.Struct, frozen=True):
    """One tensor stored whole: safetensors' name of its dtype, its shape, and the digests of tensor and payload."""

    dtype: str
    shape: Shape
    digest: Digest
    checksum: Checksum


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``id`` names the content; ``seal`` is the digest of the whole file with the seal's digits read as zeros.

    ``initial`` is what ``drift`` needs to rebuild the mask that training began with, and ``parent`` the id of the
    mask set that ``delta`` counts from.
    """

    format: Annotated[str, msgspec.Meta(pattern="^maskhub$")]
    version: Annotated[str, msgspec.Meta(pattern="^1\\.(0|[1-9][0-9]{0,8})$")]
    id: Digest
    seal: Digest
    base: BaseBinding
    masks: dict[Name, MaskEntry]
    dense: dict[Name, DenseEntry] = {}
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
        dense: dict[str, DenseEntry],
        *,
        id: str,
        seal: str,
        parent: str | None = None,
    ) -> Self:
        """The manifest of a mask set with these entries."""
        return cls(
            format="maskhub",
            version=VERSION,
            id=id,
            seal=seal,
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


def content_id(base: BaseBinding, masks: Mapping[str, MaskEntry], dense: Mapping[str, DenseEntry]) -> str:
    """The id that follows from a manifest's digests."""
    digests = ({name: entry.digest for name, entry in entries.items()} for entries in (masks, dense))
    return digest.mask_id(base.root, *digests)


def parse(text: str, source: str) -> tuple[Manifest, dict[str, Any]]:
    """The manifest in ``text``, and whatever keys of it this version does not know.

    Raises FormatError, naming ``source`` and the field.
    """
    try:
        raw = msgspec.json.decode(text)
        _check_version(raw, source)
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


def render(manifest: Manifest, extra: Mapping[str, Any]) -> str:
    """The manifest as JSON; the same for equal manifests."""
    merged = _merge(msgspec.to_builtins(manifest), extra)
    return msgspec.json.encode(merged, order="sorted").decode()


def _check_version(raw: Any, source: str) -> None:
    if not isinstance(raw, dict) or raw.get("format") != "maskhub":
        raise FormatError(f"{source}: the manifest's field 'format' is not 'maskhub'")
    version = raw.get("version")
    match = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})", version) if isinstance(version, str) else None
    if match is None:
        raise FormatError(f"{source}: the manifest's field 'version' is not a version: {str(version)[:100]!r}")
    if int(match[1]) != MAJOR:
        raise FormatError(
            f"{source}: format version {version}, and this MaskHub reads {MAJOR}.x",
            hint="Upgrade it: pip install --upgrade maskhub.",
        )


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
