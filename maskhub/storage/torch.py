"""PyTorch files as raw bytes: state dicts, read with ``weights_only``, so that no code in them runs."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maskhub.errors import FormatError, damaged, library
from maskhub.storage.tensor import RawTensor, Spec


class TorchFile:
    """A state dict in a PyTorch file. Tensors are views of a memory map, unless they are stored transposed.

    Files from before PyTorch 1.6 are read into memory. A state dict may also lie under one of the keys ``within``.
    Raises FormatError where the file holds anything but plain tensors, and MaskhubError without torch.
    """

    def __init__(self, path: Path, within: Sequence[str] = ()) -> None:
        torch_library()
        from maskhub.storage.torch_tensors import NAMES

        self.path = path
        with damaged(path, "PyTorch file"):
            self._tensors = _load(path, within)
            self.tensors = {name: Spec(NAMES[t.dtype], tuple(t.shape)) for name, t in self._tensors.items()}
            self.size = path.stat().st_size  # bytes of the whole file

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def read(self, name: str) -> RawTensor:
        """One tensor, row-major; copied only where it is stored otherwise."""
        from maskhub.storage.torch_tensors import from_torch

        return from_torch(self._tensors[name])

    def release(self, name: str, start: int, stop: int) -> None:
        """Nothing: torch keeps its memory maps to itself, and the system takes back their pages when it needs them."""


def torch_library() -> Any:
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

    from maskhub.storage.torch_tensors import NAMES

    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise FormatError(f"{path}: no state dict: {name!r} is {type(tensor).__name__}, not a tensor")
    strided = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_neg()
    if not strided or tensor.dtype not in NAMES:
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
