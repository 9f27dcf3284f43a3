"""BLAKE3 digests and content ids, as ``spec/format.md`` ("Digests") defines them.

A digest is written as 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from maskhub.storage.regular import open_regular

PARALLEL_FROM = 1 << 20  # bytes; below this a second thread costs more than it saves
PIECE = 1 << 24  # bytes of a file that are read at once


def _digest(head: str, data: Any = b"") -> str:
    size = memoryview(data).nbytes
    hasher = blake3(head.encode(), max_threads=blake3.AUTO if size >= PARALLEL_FROM else 1)
    hasher.update(data)
    return hasher.hexdigest()


def _dimensions(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def tensor_digest(dtype: str, shape: tuple[int, ...], data: Any) -> str:
    """Digest of a tensor: dtype (safetensors' name), shape and little-endian bytes."""
    return _digest(_tensor_head(dtype, shape), data)


def tensor_hasher(dtype: str, shape: tuple[int, ...]) -> blake3:
    """The same digest for bytes that come in pieces: ``update`` with each, then ``hexdigest``."""
    return blake3(_tensor_head(dtype, shape).encode())


def _tensor_head(dtype: str, shape: tuple[int, ...]) -> str:
    return f"tensor {dtype} {_dimensions(shape)}\n"


def mask_digest(shape: tuple[int, ...], bits: Any) -> str:
    """Digest of one tensor's decoded mask: shape and packed bits."""
    return _digest(f"mask {_dimensions(shape)}\n", bits)


def _lines(kind: str, digests: Mapping[str, str]) -> str:
    # The length in bytes before each name keeps two different lists from reading the same.
    names = sorted(digests)
    return "".join(f"{kind} {digests[name]} {len(name.encode())} {name}\n" for name in names)


def base_root(tensors: Mapping[str, str]) -> str:
    """Root digest of a base model: over the sorted list of its tensors' digests."""
    return _digest("base\n" + _lines("tensor", tensors))


def mask_id(root: str, masks: Mapping[str, str], dense: Mapping[str, str]) -> str:
    """Content id of a mask set: over base root, mask digests and dense tensors' digests."""
    return _digest(f"maskhub {root}\n" + _lines("mask", masks) + _lines("dense", dense))


def file_digest(path: Path) -> tuple[int, str]:
    """How many bytes a file has, and the digest of them."""
    size, hasher = 0, blake3(max_threads=blake3.AUTO)
    with open_regular(path) as file:
        while piece := file.read(PIECE):
            size += len(piece)
            hasher.update(piece)
    return size, hasher.hexdigest()


def checksum(data: Any) -> str:
    """Short checksum of a payload's stored bytes: the first 16 digits of their BLAKE3."""
    return blake3(data).hexdigest()[:16]


def seal(file: Any, place: int, rest: Iterable[Any] = ()) -> str:
    """Digest of a whole ``.msk`` file, its own 64 digits (which start at byte ``place``) read as zeros.

    Where ``file`` is only its start, ``rest`` gives what follows, piece by piece.
    """
    view = memoryview(file)
    hasher = blake3(max_threads=blake3.AUTO if view.nbytes >= PARALLEL_FROM else 1)
    for part in (view[:place], b"0" * 64, view[place + 64 :]):
        hasher.update(part)
    for part in rest:
        hasher.update(part)
    return hasher.hexdigest()
