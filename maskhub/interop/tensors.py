"""Other tools' files as named tensors, whatever holds them: safetensors, PyTorch, NumPy. Told by their first bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from maskhub.checkpoints.checkpoint import CONFIG, Checkpoint, open_checkpoint, read_json
from maskhub.errors import FormatError, MissingError, damaged
from maskhub.storage.regular import open_regular
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
    metadata: Mapping[str, str] = field(default_factory=dict)
    wanted: str | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)


def kind_of(path: Path) -> Kind:
    """What kind of file this is."""
    with damaged(path, "file"), open_regular(path) as file:
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
        with damaged(path, "zip file"), open_regular(path) as file, zipfile.ZipFile(file) as archive:
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
    if path.is_dir() or not path.exists():
        return _checkpoint(open_checkpoint(source, token=token))
    match kind := kind_of(path):
        case "safetensors":
            return _file(TensorFile(path), path, kind)
        case "torch":
            return _file(TorchFile(path, STATE_DICTS), path, kind)
        case "npz" | "npy":
            return _numpy(path, kind)
    return NamedTensors(source, kind, {}, dict[str, RawTensor]().__getitem__)


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


def _checkpoint(checkpoint: Checkpoint) -> NamedTensors:
    specs = {name: checkpoint.info(name) for name in checkpoint}
    first, *more = checkpoint.shards
    kind: Kind = "safetensors" if isinstance(first, TensorFile) else "torch"
    return NamedTensors(
        checkpoint.name, kind, specs, checkpoint.read, checkpoint.config, {} if more else first.metadata
    )


def _file(file: TensorFile | TorchFile, path: Path, kind: Kind) -> NamedTensors:
    return NamedTensors(str(path), kind, file.tensors, file.read, partial(_config_beside, path), file.metadata)


def _config_beside(path: Path) -> dict[str, Any]:
    return read_json(path.parent / CONFIG) if (path.parent / CONFIG).is_file() else {}


def _numpy(path: Path, kind: Kind) -> NamedTensors:
    with damaged(path, f"{kind} file"):
        # Open as long as its tensors are in use.
        archive = zipfile.ZipFile(open_regular(path)) if kind == "npz" else None
        names = [file.removesuffix(".npy") for file in archive.namelist()] if archive else [path.stem]
        if len(set(names)) < len(names):
            raise FormatError(f"{path}: holds two arrays of one name")

    def opened(name: str) -> IO[bytes]:
        return archive.open(f"{name}.npy") if archive else open_regular(path)

    def read(name: str) -> RawTensor:
        with damaged(path, f"{kind} file"), opened(name) as file:
            return RawTensor.from_numpy(np.load(file, allow_pickle=False))

    specs = {}
    for name in names:
        with damaged(path, f"{kind} file"), opened(name) as file:
            specs[name] = _spec(file, path)
    return NamedTensors(str(path), kind, specs, read)


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
