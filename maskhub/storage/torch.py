"""PyTorch's tensors and files as raw bytes, bit for bit.

State dicts are read with ``weights_only``, so that no code in them runs. torch itself is imported inside functions.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from maskhub.errors import FormatError, MaskhubError, damaged, library
from maskhub.storage.regular import lfs_pointer
from maskhub.storage.source import LocalFile, pieces, read
from maskhub.storage.tensor import FLOATS, Bytes, RawTensor, Spec

if TYPE_CHECKING:
    import torch

# Safetensors' names of dtypes, and torch's.
DTYPES = FLOATS | {
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip


@cache
def dtype_names() -> dict[torch.dtype, str]:
    """Safetensors' name of each dtype of torch's that has one."""
    import torch

    return {getattr(torch, name): dtype for dtype, name in DTYPES.items()}


def to_torch(tensor: RawTensor) -> torch.Tensor:
    """A copy of the tensor in torch; MaskhubError for a dtype that torch lacks."""
    import torch

    if tensor.dtype not in DTYPES:
        raise MaskhubError(f"torch has no dtype for {tensor.dtype}")
    dtype = getattr(torch, DTYPES[tensor.dtype])
    if not tensor.size:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.from_numpy(np.array(tensor.data)).view(dtype).reshape(tensor.shape)


def from_torch(tensor: torch.Tensor) -> RawTensor:
    """The tensor's elements as they are, from any device; a view where torch allows one."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return RawTensor(dtype_names()[tensor.dtype], tuple(tensor.shape), flat.view(torch.uint8).numpy())


class TorchFile:
    """A state dict in a PyTorch file, whose tensors are read when they are asked for.

    Files from before PyTorch 1.6, and all with a torch that does not tell where tensors lie (before 2.10), are read
    into memory. A state dict may also lie under one of the keys ``within``.

    Raises FormatError where the file holds anything but plain tensors, and MaskhubError without torch.
    """

    def __init__(self, path: Path, within: Sequence[str] = ()) -> None:
        torch_library()
        self.path = path
        self._source = LocalFile(path)
        with damaged(path, "PyTorch file"):
            names = dtype_names()
            self.size = self._source.open()  # bytes of the whole file
            if pointer := lfs_pointer(path, read(self._source, 0, min(64, self.size)).tobytes()):
                raise pointer
            self._tensors, self._places = _load(self._source, within)
            self.tensors = {name: Spec(names[t.dtype], tuple(t.shape)) for name, t in self._tensors.items()}
        self.metadata: dict[str, str] = {}  # as safetensors has some

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def read(self, name: str) -> RawTensor:
        """One tensor, row-major, in memory of its own."""
        tensor, spec = self._tensors[name], self.tensors[name]
        if name not in self._places:
            return from_torch(tensor)
        if not tensor.numel():
            return RawTensor(spec.dtype, spec.shape, np.empty(0, np.uint8))
        import torch

        # From its first element to its last, between which there may be others.
        start = self._places[name] + tensor.storage_offset() * tensor.itemsize
        stored = torch.from_numpy(read(self._source, start, self._places[name] + _extent(tensor)))
        return from_torch(stored.view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), 0))

    def chunks(self, name: str, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor, so many at a time: each chunk is overwritten by the next."""
        tensor, spec = self._tensors[name], self.tensors[name]
        if name in self._places and tensor.is_contiguous():
            start = self._places[name] + tensor.storage_offset() * tensor.itemsize
            return pieces(self._source, start, start + spec.nbytes, size)
        data = self.read(name).data
        return (data[start : start + size].copy() for start in range(0, data.size, size))


def torch_library() -> Any:
    """Torch; LibraryError where it is missing."""
    return library("torch", "PyTorch files", "torch")


def _load(source: LocalFile, within: Sequence[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """The tensors by their names, and where in the file the storage of each begins that is not in memory."""
    path = Path(source.name)
    with source.stream() as file:
        if zipfile.is_zipfile(file):
            records = _records(file, source)
            tensors = _state_dict(path, file, "meta", within)
            places = {name: getattr(t.untyped_storage(), "_checkpoint_offset", -1) for name, t in tensors.items()}
            if records.keys() >= set(places.values()):
                for name, tensor in tensors.items():
                    if _extent(tensor) > records[places[name]]:
                        raise FormatError(f"{path}: damaged: tensor {name} takes more bytes than are stored of it")
                return tensors, places
        return _state_dict(path, file, "cpu", within), {}


def _state_dict(path: Path, file: IO[bytes], device: str, within: Sequence[str]) -> dict[str, Any]:
    import torch

    file.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if not asked:
            raise FormatError(f"{path}: damaged, or no PyTorch file") from error
        raise FormatError(
            f"{path}: holds more than tensors ({asked[1]}), and nothing else is ever unpickled",
            hint="Where you trust it, load it in Python and save its tensors alone, with torch.save or np.savez.",
        ) from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: no state dict: {type(content).__name__}")
    tensors: dict[str, Any] = next((content[key] for key in within if isinstance(content.get(key), dict)), content)
    for name, tensor in tensors.items():
        _check(name, tensor, path, device)
    return tensors


def _check(name: object, tensor: Any, path: Path, device: str) -> None:
    import torch

    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise FormatError(f"{path}: no state dict: {name!r} is {type(tensor).__name__}, not a tensor")
    strided = tensor.layout is torch.strided and tensor.device.type == device and not tensor.is_neg()
    if not strided or tensor.dtype not in dtype_names():
        raise FormatError(f"{path}: tensor {name} is {tensor.dtype}, {tensor.layout}: only dense ones are read")
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # one element can claim to be a million
        raise FormatError(f"{path}: tensor {name} is larger than what is stored of it")


def _extent(tensor: Any) -> int:
    """Bytes of a tensor's storage up to the end of its last element."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int((tensor.storage_offset() + last + 1) * tensor.itemsize)


def _records(file: IO[bytes], source: LocalFile) -> dict[int, int]:
    """Where the bytes of each storage lie in a zip archive, and how many there are."""
    path = source.name
    found = {}
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise FormatError(f"{path}: a PyTorch file is not compressed, and this one is")
            if entry.filename.endswith("/byteorder") and archive.read(entry) != b"little":
                raise FormatError(f"{path}: its tensors are big-endian, which is not read")
            if "/data/" in entry.filename:
                name, extra = read(source, entry.header_offset + 26, entry.header_offset + 30).view("<u2")
                found[entry.header_offset + 30 + int(name) + int(extra)] = entry.file_size
    return found
