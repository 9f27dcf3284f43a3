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
from typing import TYPE_CHECKING, Any

import numpy as np

from maskhub.errors import FormatError, MaskhubError, damaged, library
from maskhub.storage.tensor import FLOATS, RawTensor, Spec

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
    """A state dict in a PyTorch file. Tensors are views of a memory map, unless they are stored transposed.

    Files from before PyTorch 1.6 are read into memory. A state dict may also lie under one of the keys ``within``.
    Raises FormatError where the file holds anything but plain tensors, and MaskhubError without torch.
    """

    def __init__(self, path: Path, within: Sequence[str] = ()) -> None:
        torch_library()
        self.path = path
        with damaged(path, "PyTorch file"):
            names = dtype_names()
            self._tensors = _load(path, within)
            self.tensors = {name: Spec(names[t.dtype], tuple(t.shape)) for name, t in self._tensors.items()}
            self.size = path.stat().st_size  # bytes of the whole file
        self.metadata: dict[str, str] = {}  # as safetensors has some

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def read(self, name: str) -> RawTensor:
        """One tensor, row-major; copied only where it is stored otherwise."""
        return from_torch(self._tensors[name])

    def release(self, name: str, start: int, stop: int) -> None:
        """Nothing: torch keeps its memory maps to itself, and the system takes back their pages when it needs them."""


def torch_library() -> Any:
    """Torch; LibraryError where it is missing."""
    return library("torch", "PyTorch files", "torch")


def _load(path: Path, within: Sequence[str]) -> dict[str, Any]:
    import torch

    zipped = zipfile.is_zipfile(path)
    stored: list[int] = []  # bytes of each storage
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise FormatError(f"{path}: a PyTorch file is not compressed, and this one is")
            stored = [entry.file_size for entry in archive.infolist() if "/data/" in entry.filename]
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
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
        _check(name, tensor, path)
    if zipped:
        _check_stored(tensors, stored, path)
    return tensors


def _check(name: object, tensor: Any, path: Path) -> None:
    import torch

    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise FormatError(f"{path}: no state dict: {name!r} is {type(tensor).__name__}, not a tensor")
    strided = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_neg()
    if not strided or tensor.dtype not in dtype_names():
        raise FormatError(f"{path}: tensor {name} is {tensor.dtype}, {tensor.layout}: only dense ones are read")
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # one element can claim to be a million
        raise FormatError(f"{path}: tensor {name} is larger than what is stored of it")


def _check_stored(tensors: dict[str, Any], stored: list[int], path: Path) -> None:
    """Every storage has bytes of its own: of a memory map torch takes as many as the pickle says, whosever they are."""
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}  # tied ones once
    needed, held = sorted(sizes.values(), reverse=True), sorted(stored, reverse=True)
    if len(needed) > len(held) or any(size > most for size, most in zip(needed, held, strict=False)):
        raise FormatError(f"{path}: damaged: its tensors take more bytes than it stores of them")
