"""Other tools' files as named tensors, whatever holds them: safetensors, PyTorch, NumPy. Told by their first bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from maskhub.checkpoints.checkpoint import CONFIG, Checkpoint, open_checkpoint, read_json
from maskhub.errors import FormatError, MissingError, damaged
from maskhub.storage.safetensors import TensorFile
from maskhub.storage.tensor import NUMPY_DTYPE, RawTensor, Spec
from maskhub.storage.torch import TorchFile

Kind = Literal["safetensors", "torch", "npz", "npy", "hdf5", "other"]
CLOSED: tuple[Kind, ...] = ("hdf5", "other")  # what formats open themselves

SUFFIXES = {".npz", ".npy", ".pt", ".pth", ".bin", ".h5", ".hdf5"}  # no Hub model is called so
STATE_DICTS = ("state_dict", "best_state_dict", "model_state_dict", "model")  # where trainers put it


@dataclass(frozen=True)
class NamedTensors:
    """Tensors by name. ``specs`` is known at once; ``read`` gives one, and ``config`` what ``config.json`` holds.

    ``metadata`` is that of safetensors; ``wanted`` the name, behind ``#``, of one of several mask sets. A tensor from
    NumPy may be a million times larger than its file: who reads one compares its spec with the base first. Others are
    no larger than their file. Of the ``CLOSED`` kinds nothing is known but their name.
    """

    name: str
    kind: Kind
    specs: Mapping[str, Spec]
    read: Callable[[str], RawTensor]
    config: Callable[[], dict[str, Any]] = dict
    metadata: Mapping[str, str] | None = None
    wanted: str | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)


def kind_of(path: Path) -> Kind:
    """What kind of file this is."""
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
    return "other"


def open_tensors(source: str, *, token: str | None = None) -> NamedTensors:
    """A file, or ``file#name``, a checkpoint folder or a model on the Hub. Raises CheckpointError or FormatError."""
    file, mark, name = source.rpartition("#")
    if mark and Path(file).is_file() and not Path(source).exists():
        return replace(open_tensors(file), wanted=name)
    path = Path(source)
    if path.suffix in SUFFIXES and not path.exists():
        raise MissingError(f"{path}: no such file")
    if not path.is_file():
        checkpoint = open_checkpoint(source, token=token)
        return _checkpoint(checkpoint, checkpoint.config)
    kind = kind_of(path)
    if kind in CLOSED:
        return NamedTensors(source, kind, {}, dict[str, RawTensor]().__getitem__)
    return {"safetensors": _safetensors, "torch": _torch, "npz": _npz, "npy": _npy}[kind](path)


def choose(source: NamedTensors, names: list[str]) -> str:
    """One of a file's mask sets: the one that is wanted, or the only one."""
    wanted, listed = source.wanted, ", ".join(names) or "none"
    if wanted is not None and wanted not in names:
        raise FormatError(f"{source.name}: holds no mask set {wanted!r}; it holds {listed}")
    if wanted is None and len(names) != 1:
        raise FormatError(
            f"{source.name}: name one of its {len(names)} mask sets: {listed}", hint=f"As in {source.name}#NAME."
        )
    return wanted or names[0]


def _checkpoint(checkpoint: Checkpoint, config: Callable[[], dict[str, Any]]) -> NamedTensors:
    specs = {name: checkpoint.info(name) for name in checkpoint}
    first = checkpoint.shards[0]
    if not isinstance(first, TensorFile):
        return NamedTensors(checkpoint.name, "torch", specs, checkpoint.read, config)
    metadata = first.metadata if len(checkpoint.shards) == 1 else {}
    return NamedTensors(checkpoint.name, "safetensors", specs, checkpoint.read, config, metadata)


def _safetensors(path: Path) -> NamedTensors:
    file = TensorFile(path)
    checkpoint = Checkpoint(str(path), path.parent, (file,), dict.fromkeys(file, file))
    return _checkpoint(checkpoint, partial(_config_beside, path))


def _torch(path: Path) -> NamedTensors:
    file = TorchFile(path, STATE_DICTS)
    return NamedTensors(str(path), "torch", file.tensors, file.read, partial(_config_beside, path))


def _config_beside(path: Path) -> dict[str, Any]:
    return read_json(path.parent / CONFIG) if (path.parent / CONFIG).is_file() else {}


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
