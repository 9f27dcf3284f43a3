"""Safetensors files as raw bytes: read where they are asked for, checked by the safetensors library, and written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from maskhub.errors import FormatError, IntegrityError, MaskhubError, same_kind
from maskhub.storage.regular import lfs_pointer
from maskhub.storage.source import LocalFile, Source, pieces, read
from maskhub.storage.tensor import ITEM_SIZE, Bytes, RawTensor, Spec

MAX_HEADER = 100_000_000  # bytes; what the library allows
PIECE = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class TensorInfo(Spec):
    """Where a tensor lies: byte range ``start`` to ``stop`` of the file."""

    start: int
    stop: int


class TensorFile:
    """A safetensors file, here or in a source, opened for reading.

    Of a remote file the header is fetched, and a tensor when it is read. Raises ``FormatError`` where the
    safetensors library refuses the file, or where it becomes shorter later, and RemoteError where a remote one cannot
    be had.
    """

    def __init__(self, path: str | Path | Source) -> None:
        self.source = LocalFile(path) if isinstance(path, str | Path) else path
        self.path = self.source.name
        try:
            self.size = self.source.open()  # bytes of the whole file
            self.header = self._read_header()  # as it is parsed, with its length before it
            self.metadata = _checked(self.header, self.size)
        except SafetensorError as error:
            begin = read(self.source, 0, min(64, self.size)).tobytes()
            raise lfs_pointer(self.path, begin) or FormatError(
                f"{self.path}: not a safetensors file, or cut short ({error})", hint=IntegrityError.cure
            ) from error
        except MaskhubError:
            raise
        except OSError as error:
            raise same_kind(error, FormatError)(f"{self.path}: cannot be read: {error.strerror or error}") from error
        # The library has checked every name, shape and offset; it does not hand offsets out.
        start = len(self.header)
        try:
            if self.header[8:9] != b"{":
                raise ValueError("it does not start with '{'")
            header = json.loads(self.header[8:], object_pairs_hook=unique_keys)
            header.pop("__metadata__", None)
            self.tensors = {
                name: TensorInfo(entry["dtype"], tuple(entry["shape"]), *(start + o for o in entry["data_offsets"]))
                for name, entry in header.items()
            }
        except (ValueError, TypeError) as error:  # what the library lets pass: names twice, entries as arrays
            raise FormatError(f"{self.path}: not a safetensors file: its header is not valid: {error}") from error
        for name, info in self.tensors.items():
            if info.dtype not in ITEM_SIZE:
                what = f"tensor {name[:1024]} has dtype {info.dtype}"
                raise FormatError(f"{self.path}: {what}, which MaskHub cannot read")

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def read(self, name: str) -> RawTensor:
        """One tensor, in memory of its own."""
        info = self.tensors[name]
        return RawTensor(info.dtype, info.shape, read(self.source, info.start, info.stop))

    def part(self, name: str, start: int, stop: int) -> Bytes:
        """Bytes ``start`` to ``stop`` of a tensor, in memory of their own."""
        first = self.tensors[name].start
        return read(self.source, first + start, first + stop)

    def chunks(self, name: str, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor, so many at a time: each chunk is overwritten by the next."""
        info = self.tensors[name]
        return pieces(self.source, info.start, info.stop, size)

    def body(self) -> Iterator[Bytes]:
        """All bytes behind the header, each piece overwritten by the next; of a remote file, got in one request."""
        self.source.fetch(0, self.size)
        return pieces(self.source, len(self.header), self.size, PIECE)

    def _read_header(self) -> bytes:
        length = read(self.source, 0, min(8, self.size)).tobytes()
        size = 8 + int.from_bytes(length, "little")
        if size > min(8 + MAX_HEADER, self.size):
            return length  # which is refused
        return read(self.source, 0, size).tobytes()


def _checked(header: bytes, size: int) -> dict[str, str]:
    """The metadata in the header of a file of this size, checked by the library, which maps what it opens.

    So it gets a file of our own that has the header, and a hole for the rest.
    """
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):  # needs no folder that can be written to
            file: IO[bytes] = stack.enter_context(os.fdopen(os.memfd_create("header"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
        else:
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            path = file.name
        file.write(header)
        file.truncate(size)
        with safe_open(path, framework="numpy") as checked:
            return checked.metadata() or {}


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for ``json``'s ``object_pairs_hook``; ValueError for a key that stands twice in it."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return unique


def write_tensors(file: IO[bytes], tensors: Mapping[str, RawTensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a whole safetensors file from tensors in memory."""
    for name in write_header(file, tensors, metadata):
        file.write(tensors[name].data.data)


def write_header(
    file: IO[bytes], specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None, *, first: str | None = None
) -> dict[str, int]:
    """Write a safetensors header; where in the file the bytes of each tensor must follow, in their order.

    After the one that is to be ``first``, wide dtypes come first, so that each is aligned; then it goes by name.
    """
    if "__metadata__" in specs:
        raise FormatError("no tensor of a safetensors file can be named __metadata__")
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, int] = {}
    offset = 0
    for name, spec in sorted(specs.items(), key=lambda item: (item[0] != first, -ITEM_SIZE[item[1].dtype], item[0])):
        places[name] = offset
        offset += spec.nbytes
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [places[name], offset]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + (specs[first].nbytes if first else 0)) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    return {name: 8 + len(text) + place for name, place in places.items()}
