"""Safetensors files as raw bytes: memory-mapped reading, checked by the safetensors library, and plain writing."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from maskhub.errors import FormatError, IntegrityError, MaskhubError, same_kind
from maskhub.storage.source import LocalFile, Source
from maskhub.storage.tensor import ITEM_SIZE, RawTensor, Spec

# Who reads a page of a map gets its neighbours, too: Linux maps up to so many bytes at once. Those before it may have
# been let go of, and are so again, or they would add up.
NEIGHBOURS = 1 << 21


@dataclass(frozen=True)
class TensorInfo(Spec):
    """Where a tensor lies: byte range ``start`` to ``stop`` of the file."""

    start: int
    stop: int


class TensorFile:
    """A safetensors file, here or in a source, opened for reading. Tensors are views of a memory map.

    Of a remote file the header is fetched, and a tensor when it is read. Raises ``FormatError`` where the
    safetensors library refuses the file, and RemoteError where a remote one cannot be had.
    """

    def __init__(self, path: str | Path | Source) -> None:
        self._source = LocalFile(path) if isinstance(path, str | Path) else path
        self.path = self._source.name
        try:
            with self._source.file() as local:
                with safe_open(local, framework="numpy") as file:
                    self.metadata: dict[str, str] = file.metadata() or {}
                with local.open("rb") as handle:
                    self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except SafetensorError as error:
            raise FormatError(
                f"{self.path}: not a safetensors file, or cut short ({error})", hint=IntegrityError.cure
            ) from error
        except MaskhubError:
            raise
        except OSError as error:
            raise same_kind(error, FormatError)(f"{self.path}: cannot be read: {error.strerror or error}") from error
        # The library has checked every name, shape and offset; it does not hand offsets out.
        size = int.from_bytes(self._map[:8], "little")
        self.data_start = 8 + size
        try:
            if self._map[8:9] != b"{":
                raise ValueError("it does not start with '{'")
            header = json.loads(self._map[8 : self.data_start], object_pairs_hook=unique_keys)
            header.pop("__metadata__", None)
            self.tensors = {
                name: TensorInfo(
                    entry["dtype"], tuple(entry["shape"]), *(self.data_start + o for o in entry["data_offsets"])
                )
                for name, entry in header.items()
            }
        except (ValueError, TypeError) as error:  # what the library lets pass: names twice, entries as arrays
            raise FormatError(f"{self.path}: not a safetensors file: its header is not valid: {error}") from error
        for name, info in self.tensors.items():
            if info.dtype not in ITEM_SIZE:
                raise FormatError(f"{self.path}: tensor {name} has dtype {info.dtype}, which MaskHub cannot read")

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def release(self, name: str, start: int, stop: int) -> None:
        """Let go of the memory that these bytes of a tensor take; they are read again when they are asked for."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin = self.tensors[name].start
            first = (begin + start) // NEIGHBOURS * NEIGHBOURS
            if (length := begin + stop - first) > 0:
                self._map.madvise(mmap.MADV_DONTNEED, first, length)

    def read(self, name: str) -> RawTensor:
        """One tensor, without copying."""
        info = self.tensors[name]
        self._source.fetch(info.start, info.stop)
        data = np.frombuffer(self._map, np.uint8, info.stop - info.start, info.start)
        return RawTensor(info.dtype, info.shape, data)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self._map)

    def bytes(self) -> memoryview:
        """The whole file."""
        self._source.fetch(0, self.size)
        return memoryview(self._map)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for ``json``'s ``object_pairs_hook``; ValueError for a key that stands twice in it."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return unique


def write_tensors(file: IO[bytes], tensors: Mapping[str, RawTensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a whole safetensors file from tensors in memory (or memory-mapped)."""
    for name in write_header(file, tensors, metadata):
        file.write(tensors[name].data.data)


def write_header(
    file: IO[bytes], specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Write a safetensors header; where in the file the bytes of each tensor must follow, in their order.

    Wide dtypes come first, so that each is aligned; then it goes by name.
    """
    if "__metadata__" in specs:
        raise FormatError("no tensor of a safetensors file can be named __metadata__")
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, int] = {}
    offset = 0
    for name, spec in sorted(specs.items(), key=lambda item: (-ITEM_SIZE[item[1].dtype], item[0])):
        places[name] = offset
        offset += spec.nbytes
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [places[name], offset]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    return {name: 8 + len(text) + place for name, place in places.items()}
