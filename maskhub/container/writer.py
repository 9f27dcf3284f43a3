"""Writing a mask set as a ``.msk`` file. Equal mask sets give equal bytes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from maskhub import digest
from maskhub.container import codecs
from maskhub.container.manifest import KEY, VERSION, DenseEntry, Manifest, MaskEntry, parse, render
from maskhub.errors import FormatError
from maskhub.files import atomic_file
from maskhub.mask import Mask, MaskSet
from maskhub.tensor import RawTensor
from maskhub.tensorfile import write_tensors

Progress = Callable[[int, int], None]  # done, total


def save(maskset: MaskSet, path: str | Path, *, codec: str = codecs.AUTO, progress: Progress | None = None) -> Manifest:
    """Write ``maskset`` to ``path`` atomically and return its manifest.

    ``codec`` is a name of ``codecs.NAMES``; ``auto`` takes the smallest for each tensor. ``progress`` is called
    with masks done and in all. Raises CodecError where the named codec is unknown or cannot code a mask, and
    OutputError where the file cannot be written.
    """
    if codec != codecs.AUTO:
        codecs.find(codec)
    masks: dict[str, MaskEntry] = {}
    payloads: dict[str, bytes] = {}
    for name, (entry, payload) in _encode_all(maskset.masks, codec, progress):
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
    masks: Mapping[str, Mask], codec: str, progress: Progress | None
) -> list[tuple[str, tuple[MaskEntry, bytes]]]:
    def encode(name: str) -> tuple[MaskEntry, bytes]:
        mask = Mask(masks[name].shape, masks[name].bits)  # decoded once, where it comes from a file
        chosen, payload = codecs.encode(mask, codec)
        entry = MaskEntry(mask.shape, mask.kept, codecs.to_dict(chosen), mask.digest, digest.checksum(payload))
        return entry, payload

    names = sorted(masks)
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
