"""Writing a mask set as a ``.msk`` file. Equal mask sets give equal bytes."""

from __future__ import annotations

import contextlib
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
from maskhub.container.manifest import KEY, VERSION, DenseEntry, Manifest, MaskEntry, parse, render
from maskhub.errors import BaseMismatchError, CodecError, FormatError
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage import digest
from maskhub.storage.atomic import atomic_file, claim_file, explained
from maskhub.storage.safetensors import layout, write_header
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

    ``codec`` is one of ``codecs.names()``, or ``nm:2:4`` and the like; ``auto`` takes the smallest for each tensor.
    With ``parent``, a mask set of the same base, masks may be coded against it, and can then only be read where it
    is at hand. ``progress`` is called with masks done and in all. Raises ArgumentError where the named codec is
    unknown, CodecError where it cannot code a mask, BaseMismatchError for a parent of another base, and OutputError
    where the file cannot be written.
    """
    path = Path(path)
    claim_file(path, force=force)
    if parent is not None and parent.base.root != maskset.base.root:
        raise BaseMismatchError(
            f"the parent {parent.id} belongs to another base than the mask: {parent.base.name}",
            hint="Pack it without a parent.",
        )
    encoder = codecs.encoder(codec)
    masks: dict[str, MaskEntry] = {}
    dense: dict[str, DenseEntry] = {}
    with _Spool(path) as payloads:
        for name, entry, payload in _encode_all(maskset, encoder, parent, progress):
            masks[name] = entry
            payloads.add(name, payload)
        for name in sorted(maskset.dense):
            if name in masks:
                raise FormatError(f"{path}: {name} is both masked and dense")
            tensor = maskset.dense[name]
            dense[name] = DenseEntry(
                tensor.dtype,
                tensor.shape,
                digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data),
                digest.checksum(tensor.data),
            )
            payloads.add(name, tensor.data.data)
        manifest = _manifest(maskset, masks, dense, parent)
        text = render(manifest, maskset.extra)
        parse(text, str(path))  # what is written can be read again
        with atomic_file(path) as file:
            seal = _write(file, text, manifest.seal, payloads)
    return msgspec.structs.replace(manifest, seal=seal)


def _manifest(
    maskset: MaskSet, masks: dict[str, MaskEntry], dense: dict[str, DenseEntry], parent: MaskSet | None
) -> Manifest:
    """The manifest, with a seal that occurs nowhere else."""
    content = digest.mask_id(
        maskset.base.root,
        {name: entry.digest for name, entry in masks.items()},
        {name: entry.digest for name, entry in dense.items()},
    )
    return Manifest(
        format="maskhub",
        version=VERSION,
        id=content,
        seal=secrets.token_hex(32),
        base=maskset.base,
        masks=masks,
        dense=dense,
        task=maskset.task,
        initial=maskset.initial,
        parent=parent.id
        if parent is not None and any(entry.codec["name"] == Delta.name for entry in masks.values())
        else None,
        metrics=maskset.metrics,
        lineage=maskset.lineage,
    )


def _encode_all(
    maskset: MaskSet, encoder: codecs.Encode, parent: MaskSet | None, progress: Progress | None
) -> Iterator[tuple[str, MaskEntry, bytes]]:
    """Entries and payloads in the order of names. However many masks there are, only a few are at work or waiting."""

    def encode(name: str) -> tuple[MaskEntry, bytes]:
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

    names = sorted(maskset.masks)
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


class _Spool(contextlib.AbstractContextManager["_Spool"]):
    """Payloads on their way into a file whose header, which comes first, is not known yet.

    They are in memory while they are few, else in a file without a name beside the target.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = tempfile.SpooledTemporaryFile(SPOOL, dir=str(path.absolute().parent))  # noqa: SIM115
        self.places: dict[str, tuple[int, int]] = {}  # start and size

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, name: str, payload: bytes | memoryview) -> None:
        self.places[name] = self._file.tell(), len(payload)
        with explained(self._path):
            self._file.write(payload)

    def read(self, name: str) -> Iterator[bytes]:
        """A payload in pieces."""
        start, size = self.places[name]
        self._file.seek(start)
        for taken in range(0, size, PIECE):
            yield self._file.read(min(PIECE, size - taken))


def _write(file: IO[bytes], text: str, blank: str, payloads: _Spool) -> str:
    """Write header and payloads, with the digest of the whole file in the place of ``blank``; that digest."""
    head = io.BytesIO()
    write_header(head, {name: ("U8", (size,)) for name, (_, size) in payloads.places.items()}, {KEY: text})
    place = head.getvalue().index(blank.encode())

    def pieces() -> Iterator[bytes]:
        for name in layout(dict.fromkeys(payloads.places, "U8")):
            for piece in payloads.read(name):
                file.write(piece)
                yield piece

    file.write(head.getvalue())
    seal = digest.seal(head.getvalue(), place, pieces())
    file.seek(place)
    file.write(seal.encode())
    return seal
