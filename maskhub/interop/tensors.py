"""Other tools' files as named tensors, whatever holds them: safetensors, PyTorch, NumPy. Told by their first bytes."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from maskhub.checkpoint import CONFIG, INDEX, WEIGHTS, Checkpoint, open_checkpoint, read_json
from maskhub.errors import FormatError, MaskhubError, reason
from maskhub.tensor import NUMPY_DTYPE, RawTensor
from maskhub.tensorfile import TensorFile

Kind = Literal["safetensors", "torch", "npz", "npy", "hdf5"]

TORCH_WEIGHTS = "pytorch_model.bin"
SUFFIXES = {".npz", ".npy", ".pt", ".pth", ".bin", ".h5", ".hdf5"}  # no Hub model is called so
STATE_DICTS = ("state_dict", "best_state_dict", "model_state_dict", "model")  # where trainers put it


@dataclass(frozen=True)
class Spec:
    """A tensor before it is read."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NamedTensors:
    """Tensors by name. ``specs`` is known at once; ``read`` gives one, and ``config`` what ``config.json`` holds.

    ``metadata`` is that of safetensors. A tensor from NumPy may be a million times larger than its file: who reads
    one compares its spec with the base first. Others are no larger than their file.
    """

    name: str
    kind: Kind
    specs: Mapping[str, Spec]
    read: Callable[[str], RawTensor]
    config: Callable[[], dict[str, Any]] = dict
    metadata: Mapping[str, str] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)


def kind_of(path: Path) -> Kind:
    """What kind of file this is; FormatError for one of no known kind."""
    with damaged(path, "file"), path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"\x80"):  # PyTorch before 1.6, or any other pickle, which will be refused
        return "torch"
    if head.startswith(b"PK"):
        with damaged(path, "zip file"), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return "torch"
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
    raise FormatError(
        f"{path}: of no kind that can be packed", hint="Known are safetensors, PyTorch, NumPy (npz, npy) and HDF5."
    )


def open_tensors(source: str, *, token: str | None = None) -> NamedTensors:
    """Open a file, a checkpoint folder or a model on the Hub. Raises CheckpointError or FormatError."""
    path = Path(source)
    if path.is_dir() and (path / TORCH_WEIGHTS).is_file() and not any((path / f).is_file() for f in (WEIGHTS, INDEX)):
        path /= TORCH_WEIGHTS
    if path.suffix in SUFFIXES and not path.exists():
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        checkpoint = open_checkpoint(source, token=token)
        return _safetensors(checkpoint, checkpoint.config)
    openers: dict[Kind, Callable[[Path], NamedTensors]] = {"torch": _torch, "npz": _npz, "npy": _npy}
    if opener := openers.get(kind_of(path)):
        return opener(path)
    file = TensorFile(path)
    checkpoint = Checkpoint(str(path), path.parent, (file,), dict.fromkeys(file, file))
    return _safetensors(checkpoint, partial(_config_beside, path))


@contextlib.contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    """What another library raises over a file, as one FormatError: they raise every kind of error over hostile ones."""
    try:
        yield
    except MaskhubError:
        raise
    except Exception as error:
        raise FormatError(f"{path}: damaged, or no {kind}: {reason(error)}") from error


def library(module: str, what: str, cure: str) -> Any:
    """An optional library; MaskhubError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MaskhubError(f"{what} need {name}", hint=f"Install it: pip install {cure}.") from error


def torch_library(module: str = "torch") -> Any:
    return library(module, "PyTorch files", "torch")


def choose(names: list[str], wanted: str | None, source: str) -> str:
    """One of a file's mask sets: the one that is wanted, or the only one."""
    listed = ", ".join(names) or "none"
    if wanted is not None and wanted not in names:
        raise FormatError(f"{source}: holds no mask set {wanted!r}; it holds {listed}")
    if wanted is None and len(names) != 1:
        raise FormatError(f"{source}: name one of its {len(names)} mask sets: {listed}", hint=f"As in {source}#NAME.")
    return wanted or names[0]


def _safetensors(checkpoint: Checkpoint, config: Callable[[], dict[str, Any]]) -> NamedTensors:
    specs = {name: Spec(checkpoint.info(name).dtype, checkpoint.info(name).shape) for name in checkpoint}
    metadata = checkpoint.shards[0].metadata if len(checkpoint.shards) == 1 else {}
    return NamedTensors(checkpoint.name, "safetensors", specs, checkpoint.read, config, metadata)


def _torch(path: Path) -> NamedTensors:
    torch = torch_library()
    from maskhub.runtime.tensors import NAMES, from_torch

    zipped = zipfile.is_zipfile(path)
    with damaged(path, "PyTorch file"):
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise FormatError(f"{path}: a PyTorch file is not compressed, and this one is")
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
        tensors = _state_dict(content, path)
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise FormatError(f"{path}: no state dict: {name!r} is {type(tensor).__name__}, not a tensor")
            if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in NAMES:
                raise FormatError(f"{path}: tensor {name} is {tensor.dtype}, {tensor.layout}: only dense ones are read")
            if tensor.nbytes > tensor.untyped_storage().nbytes():  # one element can claim to be a million
                raise FormatError(f"{path}: tensor {name} is larger than what is stored of it")
    return NamedTensors(
        str(path),
        "torch",
        {name: Spec(NAMES[t.dtype], tuple(t.shape)) for name, t in tensors.items()},
        lambda name: from_torch(tensors[name]),
        partial(_config_beside, path),
    )


def _config_beside(path: Path) -> dict[str, Any]:
    return read_json(path.parent / CONFIG) if (path.parent / CONFIG).is_file() else {}


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise FormatError(f"{path}: no state dict: {type(content).__name__}")
    return next((content[key] for key in STATE_DICTS if isinstance(content.get(key), dict)), content)


def _npz(path: Path) -> NamedTensors:
    with damaged(path, "npz file"):
        archive = zipfile.ZipFile(path)  # open as long as its tensors are in use
        names = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
        if len(set(names)) < len(names):
            raise FormatError(f"{path}: holds two arrays of one name")
        specs = {}
        for name in names:
            with archive.open(f"{name}.npy") as file:
                specs[name] = _spec(file, path)

    def read(name: str) -> RawTensor:
        with damaged(path, "npz file"), archive.open(f"{name}.npy") as file:
            return RawTensor.from_numpy(np.load(file, allow_pickle=False))

    return NamedTensors(str(path), "npz", specs, read)


def _npy(path: Path) -> NamedTensors:
    with damaged(path, "npy file"), path.open("rb") as file:
        spec = _spec(file, path)

    def read(name: str) -> RawTensor:
        with damaged(path, "npy file"):
            return RawTensor.from_numpy(np.load(path, allow_pickle=False))

    return NamedTensors(str(path), "npy", {path.stem: spec}, read)


def _spec(file: IO[bytes], path: Path) -> Spec:
    """What an array's header declares."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # later ones allow headers of gigabytes
        raise FormatError(f"{path}: arrays of npy version {version} are not read")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise FormatError(
            f"{path}: a pickled Python object, which is never unpickled",
            hint="Where you trust it: np.savez('masks.npz', **np.load(FILE, allow_pickle=True).item()).",
        )
    name = next((name for name, code in NUMPY_DTYPE.items() if np.dtype(code) == dtype), None)
    if name is None:
        raise FormatError(f"{path}: an array of dtype {dtype}, which cannot be read")
    return Spec(name, shape)
