"""Writing a mask set as a ``.msk`` file. Equal mask sets give equal bytes."""

from __future__ import annotations

import io
import secrets
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from maskhub.container import codecs
from maskhub.container.codecs.delta import Delta
from maskhub.container.manifest import (
    MANIFEST,
    MASKS,
    Manifest,
    MaskEntry,
    check_shape,
    pack,
    parse,
    render,
    unpack,
)  # fmt: skip
from maskhub.errors import CodecError, FormatError, OutputError
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
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
    if taken := maskset.dense.keys() & {MANIFEST, MASKS}:
        raise FormatError(f"{path}: no dense tensor can be called {taken.pop()}")
    for name, tensor in maskset.dense.items():
        check_shape(name, tensor.shape, str(path))
    masks: dict[str, MaskEntry] = {}
    # What comes before the masks is not known yet: they wait in memory while they are few, else in a file without a
    # name beside the target.
    with tempfile.SpooledTemporaryFile(SPOOL, dir=str(path.absolute().parent)) as spool:
        for name, entry, payload in _encode_all(
            maskset.masks, maskset.initial, codecs.encoder(codec), parent, progress
        ):
            masks[name] = entry
            with explained(path):
                spool.write(payload)
        dense = {name: digest.tensor_digest(t.dtype, t.shape, t.data) for name, t in maskset.dense.items()}
        delta = any(entry.codec["name"] == Delta.name for entry in masks.values())
        manifest = Manifest.of(maskset, masks, dense, parent=parent.id if parent is not None and delta else None)
        first = pack(render(manifest, maskset.extra))
        parse(unpack(np.frombuffer(first, np.uint8), str(path)), str(path))  # what is written can be read again
        specs = {MANIFEST: Spec("U8", (len(first),)), MASKS: Spec("U8", (spool.tell(),))}
        seal = secrets.token_hex(32)  # which occurs nowhere else, until it is known
        head = io.BytesIO()
        places = write_header(head, specs | dict(maskset.dense), manifest.plain | {"seal": seal}, first=MANIFEST)
        place = head.getvalue().index(seal.encode())

        def body() -> Iterator[Any]:
            for name in sorted(places, key=lambda name: places[name]):
                if name == MASKS:
                    spool.seek(0)
                    yield from iter(lambda: spool.read(PIECE), b"")
                else:
                    yield first if name == MANIFEST else maskset.dense[name].data.data

        with atomic_file(path) as file:
            file.write(head.getvalue())
            seal = digest.seal(head.getvalue(), place, _copied(body(), file))
            file.seek(place)
            file.write(seal.encode())
    return manifest


def _lies_at(maskset: MaskSet, path: Path) -> bool:
    """Whether a mask set, or one that it is coded against, was opened from this file."""
    if maskset.stored is None or not path.exists():
        return False
    files = [maskset.stored.path, *(file for _, file in maskset.stored.chain() if file)]
    return any(Path(file).exists() and path.samefile(file) for file in files)


def file_bytes(maskset: MaskSet, codec: str = codecs.AUTO) -> int:
    """The bytes that a mask set's file would take, all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.msk"
        save(maskset, path, codec=codec)
        return path.stat().st_size


def payload_bytes(maskset: MaskSet, codec: str = codecs.AUTO, parent: MaskSet | None = None) -> int:
    """The bytes that all masks would take in a file, coded so as ``save`` does. Nothing is written."""
    return coded_bytes(maskset.masks, maskset.initial, codec, parent)


def coded_bytes(
    masks: Mapping[str, Mask], initial: Initial | None, codec: str = codecs.AUTO, parent: MaskSet | None = None
) -> int:
    """The same, of masks that are no mask set yet."""
    return sum(entry.bytes for _, entry, _ in _encode_all(masks, initial, codecs.encoder(codec), parent, None))


def _copied(pieces: Iterable[Any], file: IO[bytes]) -> Iterator[Any]:
    """The pieces, as they are written to a file."""
    for piece in pieces:
        file.write(piece)
        yield piece


def _encode_all(
    masks: Mapping[str, Mask],
    initial: Initial | None,
    encoder: codecs.Encode,
    parent: MaskSet | None,
    progress: Progress | None,
) -> Iterator[tuple[str, MaskEntry, bytes]]:
    """Entries and payloads in the order of names, as they are stored. Only a few are at work or waiting at a time."""

    def encode(name: str) -> tuple[MaskEntry, bytes]:
        stored = masks[name]
        mask = Mask(stored.shape, stored.bits)  # decoded once, where it comes from a file
        before = parent.masks.get(name) if parent is not None else None
        target = codecs.Target(name, mask.shape, mask.kept, initial, before)
        try:
            chosen, payload = encoder(mask, target)
        except CodecError as error:
            raise CodecError(f"{name}: {error.message}", hint=error.hint) from error
        return MaskEntry(mask.shape, mask.kept, codecs.to_dict(chosen), len(payload), mask.digest), payload

    names = sorted(masks)
    threads = workers()
    with ThreadPoolExecutor(threads) as pool:  # codecs and hashes work outside the interpreter lock
        waiting = deque(pool.submit(encode, name) for name in names[: 2 * threads])
        for done, name in enumerate(names, 1):
            entry, payload = waiting.popleft().result()
            if (ahead := done - 1 + 2 * threads) < len(names):
                waiting.append(pool.submit(encode, names[ahead]))
            yield name, entry, payload
            if progress:
                progress(done, len(names))
