"""Reading HDF5 files of others: nothing in them leads to another file, or asks for more than the file explains.

HDF5 has links, external storage and virtual datasets, which read other files; fill values, chunks and filters, by
which a few bytes become any number of them; and hard links and strings that are counted many times.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from maskhub.errors import FormatError, library

SLACK = 1 << 20  # bytes that a file may ask for beyond its size: one that grows is behind its datasets
ATTRIBUTE = 1 << 8  # numbers in an attribute
GZIP = 1  # HDF5's number for that filter


def member(group: Any, path: str, source: str) -> Any:
    """What lies at ``path`` in this very file. Raises FormatError, naming ``source``, where a link leads there."""
    h5py = _library()
    found = group
    for part in path.split("/"):
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise FormatError(f"{source}: {part} is a link")
        found = found[part]
        if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
            raise FormatError(f"{source}: {part} lies in another file")
    return found


def members(group: Any, source: str) -> Iterator[tuple[str, Any]]:
    """All that lies in a group, by name."""
    for name in list(group):
        yield name, member(group, name, source)


def check_tree(group: Any, source: str) -> None:
    """Raises FormatError where anything below a group lies elsewhere."""
    h5py = _library()
    seen, todo = set(), [group]
    while todo:
        one = todo.pop()
        if isinstance(one, h5py.Group) and (place := h5py.h5o.get_info(one.id).addr) not in seen:
            seen.add(place)  # hard links can form circles
            todo += (item for _, item in members(one, source))


def text(item: Any, name: str, source: str) -> str:
    """An attribute that is one text; empty where there is none."""
    h5py = _library()
    if name not in item.attrs:
        return ""
    found = item.attrs.get_id(name)
    if found.shape != () or h5py.check_string_dtype(found.dtype) is None or found.dtype.itemsize > _most(item):
        raise FormatError(f"{source}: the attribute {name} is no text")
    value = item.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def numbers(item: Any, name: str, source: str) -> tuple[int, ...]:
    """An attribute of a few whole numbers."""
    found = item.attrs.get_id(name)
    if found.shape is None or math.prod(found.shape) > ATTRIBUTE or found.dtype.kind not in "iu":
        raise FormatError(f"{source}: the attribute {name} is no list of numbers")
    return tuple(int(number) for number in np.atleast_1d(item.attrs[name]))


def array(dataset: Any, kind: DTypeLike, dimensions: int, source: str, rows: int | None = None) -> NDArray[Any]:
    """A dataset as it is stored, or its first rows; FormatError where that is more than the file has."""
    shape, kind = dataset.shape, np.dtype(kind)
    name = dataset.name
    if shape is None or len(shape) != dimensions or dataset.dtype != kind:
        raise FormatError(f"{source}: {name} is not of {dimensions} dimensions and {kind}")
    if rows is not None and shape[0] < rows:
        raise FormatError(f"{source}: {name} has fewer rows than there are steps")
    if _filters(dataset):
        raise FormatError(f"{source}: {name} is compressed")
    asked = max(math.prod(shape), math.prod(dataset.chunks or (0,))) * kind.itemsize
    if asked > _most(dataset):
        raise FormatError(f"{source}: {name} asks for {asked:,} bytes, and the file has fewer")
    found: NDArray[Any] = dataset[:rows] if dimensions else dataset[()]
    return found


def inflated(dataset: Any, source: str) -> NDArray[np.uint8]:
    """A dataset of bytes in one dimension, whole or in gzipped chunks; none becomes larger than it says.

    HDF5 itself would let a chunk's stream become as large as it likes. Check the dataset's length before.
    """
    filters = _filters(dataset)
    (size,), (chunk,) = dataset.shape, dataset.chunks or dataset.shape
    name = dataset.name
    if chunk > size:  # a chunk is read as a whole
        raise FormatError(f"{source}: {name} has chunks larger than itself")
    if not filters:
        values: NDArray[np.uint8] = dataset[()]
        return values
    if filters != [GZIP]:
        raise FormatError(f"{source}: {name} is compressed by other means than gzip")
    whole = np.empty(size, np.uint8)
    for start in range(0, size, chunk):
        place = dataset.id.get_chunk_info_by_coord((start,))
        if place.byte_offset is None or place.size > _most(dataset):
            raise FormatError(f"{source}: {name} has no bytes from {start} on")
        skipped, stored = dataset.id.read_direct_chunk((start,))
        stream = zlib.decompressobj()
        content = stored if skipped else stream.decompress(stored, chunk)
        if len(content) != chunk or not (skipped or stream.eof):
            raise FormatError(f"{source}: {name} has a chunk that is not of {chunk} bytes")
        part = whole[start : start + chunk]
        part[:] = np.frombuffer(content, np.uint8)[: part.size]
    return whole


def texts(dataset: Any, source: str) -> tuple[str, ...]:
    """A list of texts, together no more than the file has."""
    h5py = _library()
    kind, shape = h5py.check_string_dtype(dataset.dtype), dataset.shape
    if kind is None or shape is None or len(shape) != 1 or _filters(dataset):
        raise FormatError(f"{source}: {dataset.name} is no list of texts")
    left = _most(dataset)
    if max(*shape, *(dataset.chunks or (0,))) * dataset.dtype.itemsize > left:
        raise FormatError(f"{source}: {dataset.name} asks for more texts than the file has")
    found = []
    for i in range(*shape):  # one by one: all could be the same large one
        value = dataset[i]
        left -= len(value)
        if left < 0:
            raise FormatError(f"{source}: {dataset.name} asks for more text than the file has")
        found.append(value.decode())
    return tuple(found)


def _library() -> Any:
    return library("h5py", "HDF5 files", "h5py")


def _filters(dataset: Any) -> list[int]:
    plan = dataset.id.get_create_plist()
    return [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]


def _most(item: Any) -> int:
    """Bytes that may be asked for; the library's own count of a file's can be told by the file."""
    return Path(item.file.filename).stat().st_size + SLACK
