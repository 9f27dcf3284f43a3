"""Writing a mask set as a ``.msk`` file. Equal mask sets give equal bytes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from maskhub import digest
from maskhub.container import codecs
from maskhub.container.codecs.delta import Delta
from maskhub.container.manifest import KEY, VERSION, DenseEntry, Manifest, MaskEntry, parse, render
from maskhub.errors import BaseMismatchError, CodecError, FormatError
from maskhub.files import atomic_file
from maskhub.mask import Mask, MaskSet
from maskhub.tensor import RawTensor
from maskhub.tensorfile import write_tensors

Progress = Callable[[int, int], None]  # done, total


def save(
    maskset: MaskSet,
    path: str | Path,
    *,
    codec: str = codecs.AUTO,
    parent: MaskSet | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write ``maskset`` to ``path`` atomically and return its manifest.

    ``codec`` is a name of ``codecs.NAMES``, or ``nm:2:4`` and the like; ``auto`` takes the smallest for each tensor.
    With ``parent``, a mask set of the same base, masks may be coded against it, and can then only be read where it
    is at hand. ``progress`` is called with masks done and in all. Raises CodecError where the named codec is unknown
    or cannot code a mask, BaseMismatchError for a parent of another base, and OutputError where the file cannot be
    written.
    """
    if parent is not None and parent.base.root != maskset.base.root:
        raise BaseMismatchError(
            f"the parent {parent.id} belongs to another base than the mask: {parent.base.name}",
            hint="Pack it without a parent.",
        )
    if codec != codecs.AUTO:
        codecs.find(codec)
    masks: dict[str, MaskEntry] = {}
    payloads: dict[str, bytes] = {}
    for name, (entry, payload) in _encode_all(maskset, codec, parent, progress):
        masks[name], payloads[name] = entry, payload
    dense: dict[str, DenseEntry] = {}
    for name in sorted(maskset.dense):
        if name in payloads:
            raise FormatError(f"{path}: {name} is both masked and dense")
        tensor = maskset.dense[name]
        payloads[name] = tensor.data.tobytes()
        dense[name] = DenseEntry(
            tensor.dtype,
            tensor.shape,
            digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data),
            digest.checksum(tensor.data),
        )
    content = digest.mask_id(
        maskset.base.root,
        {name: entry.digest for name, entry in masks.items()},
        {name: entry.digest for name, entry in dense.items()},
    )
    blank = secrets.token_hex(32)  # occurs nowhere else
    manifest = Manifest(
        format="maskhub",
        version=VERSION,
        id=content,
        seal=blank,
        base=maskset.base,
        masks=masks,
        dense=dense,
        task=maskset.task,
        initial=maskset.initial,
        parent=parent.id if parent and any(entry.codec["name"] == Delta.name for entry in masks.values()) else None,
        metrics=maskset.metrics,
        lineage=maskset.lineage,
    )
    text = render(manifest, maskset.extra)
    parse(text, str(path))  # what is written can be read again
    with atomic_file(path) as file:
        tensors = {name: RawTensor("U8", (len(p),), np.frombuffer(p, np.uint8)) for name, p in payloads.items()}
        write_tensors(file, tensors, {KEY: text})
        seal = _seal(file, blank)
    return msgspec.structs.replace(manifest, seal=seal)


def _encode_all(
    maskset: MaskSet, codec: str, parent: MaskSet | None, progress: Progress | None
) -> list[tuple[str, tuple[MaskEntry, bytes]]]:
    def encode(name: str) -> tuple[MaskEntry, bytes]:
        stored = maskset.masks[name]
        mask = Mask(stored.shape, stored.bits)  # decoded once, where it comes from a file
        before = parent.masks.get(name) if parent else None
        target = codecs.Target(name, mask.shape, mask.kept, maskset.initial, before)
        try:
            chosen, payload = codecs.encode(mask, codec, target)
        except CodecError as error:
            raise CodecError(f"{name}: {error}", hint=error.hint) from error
        entry = MaskEntry(mask.shape, mask.kept, codecs.to_dict(chosen), mask.digest, digest.checksum(payload))
        return entry, payload

    names = sorted(maskset.masks)
    coded = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # codecs and hashes work outside the interpreter lock
        for pair in zip(names, pool.map(encode, names), strict=True):
            coded.append(pair)
            if progress:
                progress(len(coded), len(names))
    return coded


def _seal(file: IO[bytes], blank: str) -> str:
    """Put the digest of the whole file in the place of ``blank``, and return it."""
    file.flush()
    file.seek(0)
    content = file.read()
    place = content.index(blank.encode())
    seal = digest.seal(content, place)
    file.seek(place)
    file.write(seal.encode())
    return seal
