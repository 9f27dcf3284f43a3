"""BLAKE3 digests and content ids, as ``spec/format.md`` ("Digests") defines them.

A digest is written as 64 lower-case hexadecimal digits, a hint at one as its first 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rfc8785
from blake3 import blake3

from maskhub.errors import ArgumentError, reason
from maskhub.storage.regular import open_regular

PARALLEL_FROM = 1 << 20  # bytes; below this a second thread costs more than it saves
PIECE = 1 << 24  # bytes of a file that are read at once
HINT = 16  # digits
NONE = "0" * 64  # what stands for a seal where it is not known yet
EXACT = 1 << 53  # integers below are 64-bit floats, too


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


def full_mask_digest(shape: tuple[int, ...]) -> str:
    """Digest of the mask of this shape that keeps every weight, whose bits are never made."""
    size = math.prod(shape)
    hasher = blake3(f"mask {_dimensions(shape)}\n".encode())
    ones = b"\xff" * min(size // 8, PARALLEL_FROM)
    for start in range(0, size // 8, PARALLEL_FROM):
        hasher.update(memoryview(ones)[: size // 8 - start])
    if size % 8:
        hasher.update(bytes([(1 << size % 8) - 1]))
    return hasher.hexdigest()


def _lines(kind: str, digests: Mapping[str, str]) -> str:
    return "".join(f"{kind} {digests[name]} {_sized(name)}\n" for name in sorted(digests))


def _sized(name: str) -> str:
    # The length in bytes before each name keeps two different lists from reading the same.
    return f"{len(name.encode())} {name}"


def base_root(tensors: Mapping[str, str]) -> str:
    """Root digest of a base model: over the sorted list of its tensors' digests."""
    return _digest("base\n" + _lines("tensor", tensors))


def mask_id(
    root: str,
    masks: Mapping[str, str],
    dense: Mapping[str, str],
    parameters: Mapping[str, str],
    task: Mapping[str, Any] | None,
) -> str:
    """Content id of a mask set: all that the answers of its model follow from.

    That is the base's root, the digests of masks and dense tensors, the task model's names of base tensors
    (``parameters``), and the task as the manifest holds it. Raises ArgumentError where JSON cannot hold the task.
    """
    names = "".join(f"parameter {_sized(name)} {_sized(parameters[name])}\n" for name in sorted(parameters))
    text = f"maskhub {root}\n" + names + _lines("mask", masks) + _lines("dense", dense) + "task\n"
    try:
        return _digest(text, b"" if task is None else rfc8785.dumps(_floats(task)))
    except (ValueError, OverflowError) as error:  # of NaN, or of numbers beyond all floats
        raise ArgumentError(f"the task's configuration: JSON cannot hold it: {reason(error)}") from error


def _floats(value: Any) -> Any:
    """JSON with its large integers as floats, which RFC 8785 takes all numbers for."""
    if isinstance(value, Mapping):
        return {key: _floats(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and abs(value) >= EXACT else value


def file_digest(path: Path) -> tuple[int, str]:
    """How many bytes a file has, and the digest of them."""
    size, hasher = 0, blake3(max_threads=blake3.AUTO)
    with open_regular(path) as file:
        while piece := file.read(PIECE):
            size += len(piece)
            hasher.update(piece)
    return size, hasher.hexdigest()


def seal(file: Any, place: int, rest: Iterable[Any] = ()) -> str:
    """Digest of a whole ``.msk`` file, its own 64 digits (which start at byte ``place``) read as zeros.

    Where ``file`` is only its start, ``rest`` gives what follows, piece by piece.
    """
    view = memoryview(file)
    hasher = blake3(max_threads=blake3.AUTO if view.nbytes >= PARALLEL_FROM else 1)
    for part in (view[:place], NONE.encode(), view[place + len(NONE) :]):
        hasher.update(part)
    for part in rest:
        hasher.update(part)
    return hasher.hexdigest()
