"""Writing a mask set as a ``.msk`` file. Equal mask sets give equal bytes."""

from __future__ import annotations

import dataclasses
import io
import secrets
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec

from maskhub.container import codecs
from maskhub.container.codecs.delta import Delta
from maskhub.container.manifest import KEY, DenseEntry, Manifest, MaskEntry, content_id, parse, render
from maskhub.errors import CodecError, FormatError, OutputError
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage import digest
from maskhub.storage.atomic import atomic_file, claim_file, explained
from maskhub.storage.safetensors import write_header
from maskhub.storage.tensor import Spec
from maskhub.storage.work import Progress, workers

SPOOL = 1 << 22  # bytes of payloads that are kept in memory
PIECE = 1 << 20


def save(
    maskset: MaskSet,
    path: str | Path,
    *,
    codec: str = codecs.AUTO,
    parent: MaskSet | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write ``maskset`` to ``path``, a new file unless ``force``, atomically, and return its manifest.

    ``codec`` is as ``codecs.encoder`` takes it. Masks may be coded against ``parent``, and can then only be read where
    it is at hand. ``progress`` is called with masks done and in all. Raises ArgumentError for an unknown codec,
    CodecError where it cannot code a mask, and OutputError.
    """
    path = Path(path)
    claim_file(path, force=force)
    if parent is not None and _lies_at(parent, path):
        raise OutputError(f"{path}: the output is a file that the parent is read from", hint="Name another one.")
    if both := sorted(maskset.masks.keys() & maskset.dense.keys()):
        raise FormatError(f"{path}: {both[0]} is both masked and dense")
    entries: dict[str, MaskEntry | DenseEntry] = {}
    payloads: dict[str, Spec] = {}
    encoder = codecs.encoder(codec)
    # The header comes first, and is not known yet: payloads wait in memory while they are few, else in a file without a
    # name beside the target.
    with tempfile.SpooledTemporaryFile(SPOOL, dir=str(path.absolute().parent)) as spool:
        for name, entry, payload in _encode_all(maskset, encoder, parent, progress):
            entries[name] = entry
            payloads[name] = Spec("U8", (len(payload),))
            with explained(path):
                spool.write(payload)
        masks = {name: entry for name, entry in entries.items() if isinstance(entry, MaskEntry)}
        dense = {name: entry for name, entry in entries.items() if isinstance(entry, DenseEntry)}
        delta = any(entry.codec["name"] == Delta.name for entry in masks.values())
        manifest = Manifest.of(
            maskset,
            masks,
            dense,
            id=content_id(maskset.base, masks, dense),
            seal=secrets.token_hex(32),  # which occurs nowhere else
            parent=parent.id if parent is not None and delta else None,
        )
        text = render(manifest, maskset.extra)
        parse(text, str(path))  # what is written can be read again
        head = io.BytesIO()
        write_header(head, payloads, {KEY: text})
        place = head.getvalue().index(manifest.seal.encode())
        with atomic_file(path) as file:
            file.write(head.getvalue())
            seal = digest.seal(head.getvalue(), place, _copied(spool, file))
            file.seek(place)
            file.write(seal.encode())
    return msgspec.structs.replace(manifest, seal=seal)


def _lies_at(maskset: MaskSet, path: Path) -> bool:
    """Whether a mask set, or one that it is coded against, was opened from this file."""
    if maskset.stored is None or not path.exists():
        return False
    files = [maskset.stored.path, *(file for _, file in maskset.stored.chain() if file)]
    return any(Path(file).exists() and path.samefile(file) for file in files)


def payload_bytes(maskset: MaskSet, codec: str = codecs.AUTO, parent: MaskSet | None = None) -> int:
    """The bytes that all masks would take in a file, coded so as ``save`` does. Nothing is written."""
    masks = dataclasses.replace(maskset, dense={})
    return sum(len(payload) for _, _, payload in _encode_all(masks, codecs.encoder(codec), parent, None))


def _copied(spool: IO[bytes], file: IO[bytes]) -> Iterator[bytes]:
    """Pieces of one file, as they are written to the other."""
    spool.seek(0)
    while piece := spool.read(PIECE):
        file.write(piece)
        yield piece


def _encode_all(
    maskset: MaskSet, encoder: codecs.Encode, parent: MaskSet | None, progress: Progress | None
) -> Iterator[tuple[str, MaskEntry | DenseEntry, bytes | memoryview]]:
    """Entries and payloads in the order of names, as they are stored. Only a few are at work or waiting at a time."""

    def encode(name: str) -> tuple[MaskEntry | DenseEntry, bytes | memoryview]:
        if name in maskset.dense:
            tensor = maskset.dense[name]
            data = tensor.data
            found = digest.tensor_digest(tensor.dtype, tensor.shape, data)
            return DenseEntry(tensor.dtype, tensor.shape, found, digest.checksum(data)), data.data
        stored = maskset.masks[name]
        mask = Mask(stored.shape, stored.bits)  # decoded once, where it comes from a file
        before = parent.masks.get(name) if parent is not None else None
        target = codecs.Target(name, mask.shape, mask.kept, maskset.initial, before)
        try:
            chosen, payload = encoder(mask, target)
        except CodecError as error:
            raise CodecError(f"{name}: {error.message}", hint=error.hint) from error
        entry = MaskEntry(mask.shape, mask.kept, codecs.to_dict(chosen), mask.digest, digest.checksum(payload))
        return entry, payload

    names = sorted([*maskset.masks, *maskset.dense])
    masks = 0
    threads = workers()
    with ThreadPoolExecutor(threads) as pool:  # codecs and hashes work outside the interpreter lock
        waiting = deque(pool.submit(encode, name) for name in names[: 2 * threads])
        for done, name in enumerate(names, 1):
            entry, payload = waiting.popleft().result()
            if (ahead := done - 1 + 2 * threads) < len(names):
                waiting.append(pool.submit(encode, names[ahead]))
            yield name, entry, payload
            if isinstance(entry, MaskEntry):
                masks += 1
                if progress:
                    progress(masks, len(maskset.masks))
