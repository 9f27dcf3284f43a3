"""Banks: HDF5 files of several mask sets, one group for each.

A group's attribute ``manifest`` is a ``.msk`` file's manifest without entries, and ``id`` the mask set's. In ``masks``
lies a chunked and compressed dataset for each masked base tensor: the packed bits as ``spec/format.md`` ("Bits") has
them, with the attribute ``shape``. In ``dense`` lies one for each dense tensor: its bytes, with ``dtype`` and
``shape``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.manifest import Manifest, parse, render
from maskhub.errors import FormatError, IntegrityError, OutputError, damaged, library
from maskhub.interop.bind import Format
from maskhub.interop.tensors import NamedTensors, choose
from maskhub.masks.mask import Mask, MaskSet, packed_size
from maskhub.storage.hdf5 import array, check_tree, inflated, member, members, numbers, text
from maskhub.storage.tensor import ITEM_SIZE, RawTensor
from maskhub.storage.work import Progress

BANK = "maskhub bank"  # the file's attribute ``format``
CHUNK = 1 << 20


def read(tensors: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    """One mask set of a bank; a checked one, and only for its own base."""
    path = Path(tensors.name)
    with _open(path) as file, damaged(path, "HDF5 bank"):
        name = choose(tensors, list(file))
        source = f"{tensors.name}#{name}"
        group = member(file, name, source)
        manifest, extra = parse(text(group, "manifest", source), source)
        id = text(group, "id", source)
        masks = {n: _mask(one, base, n, source) for n, one in members(member(group, "masks", source), source)}
        tensors_there = dict(members(member(group, "dense", source), source))
        if sum(one.id.get_storage_size() for one in tensors_there.values()) > path.stat().st_size:
            raise FormatError(f"{source}: its dense tensors are larger than the file")
        dense = {n: _dense(one, n, source) for n, one in tensors_there.items()}
        maskset = manifest.maskset(masks, dense, extra)
    if maskset.id != id:
        raise IntegrityError(f"{source}: its id does not match what it holds")
    verify_base(base, maskset, progress=progress)
    return maskset


def write(maskset: MaskSet, file: IO[bytes], *, path: Path, name: str | None, force: bool) -> None:
    """What the bank at ``path`` holds, if there is one, and ``maskset``, with ``force`` in the place of its namesake.

    Its name is the file's, if none is given.
    """
    name = path.stem if name is None else name
    if not name.isprintable() or not name or set(name) & set("/#") or name == ".":
        raise OutputError(f"{name!r} cannot name a mask set of a bank", hint="It must not be empty or hold / or #.")
    if odd := [n for n in (*maskset.masks, *maskset.dense) if "/" in n or n == "."]:
        raise OutputError(f"HDF5 has no place for a tensor that is called {odd[0]}")
    with _library().File(file, "w") as new:
        new.attrs["format"] = BANK
        if path.exists():
            with _open(path) as old, damaged(path, "HDF5 bank"):
                if name in list(old) and not force:
                    raise OutputError(
                        f"{path}: holds a mask set {name!r}", hint="Name another with --name, or replace it: --force."
                    )
                for other in old:
                    if other != name:
                        group = member(old, other, str(path))
                        check_tree(group, str(path))
                        old.copy(group, new, other)
        group = new.create_group(name)
        group.attrs["manifest"] = render(Manifest.of(maskset, {}, {}), maskset.extra)
        group.attrs["id"] = maskset.id
        masks, dense = group.create_group("masks"), group.create_group("dense")
        for key, mask in maskset.masks.items():
            bits = mask.bits
            chunks = {"chunks": (min(bits.size, CHUNK),), "compression": "gzip"} if bits.size else {}
            dataset = masks.create_dataset(key, data=bits, **chunks)
            dataset.attrs["shape"] = np.array(mask.shape, np.int64)
        for key, tensor in maskset.dense.items():
            dataset = dense.create_dataset(key, data=tensor.data)
            dataset.attrs["shape"] = np.array(tensor.shape, np.int64)
            dataset.attrs["dtype"] = tensor.dtype


def _mask(dataset: Any, base: Checkpoint, name: str, source: str) -> Mask:
    shape = numbers(dataset, "shape", source)
    if name not in base.tensors or base.info(name).shape != shape:
        raise FormatError(f"{source}: the mask of {name}, of shape {list(shape)}, fits no tensor of {base.name}")
    if dataset.shape != (packed_size(shape),) or dataset.dtype != np.uint8:
        raise FormatError(f"{source}: the mask of {name} needs {packed_size(shape)} packed bytes")
    return Mask(shape, inflated(dataset, source))


def _dense(dataset: Any, name: str, source: str) -> RawTensor:
    dtype, shape = text(dataset, "dtype", source), numbers(dataset, "shape", source)
    tensor = RawTensor(dtype, shape, np.empty(0, np.uint8))
    size = tensor.size * ITEM_SIZE.get(dtype, 0)
    if not dtype or dataset.shape != (size,) or dataset.id.get_storage_size() != size:
        raise FormatError(f"{source}: the dense tensor {name} is not the bytes of {dtype} {list(shape)}")
    return RawTensor(dtype, shape, array(dataset, np.uint8, 1, source))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    h5py = _library()
    with contextlib.ExitStack() as stack:
        with damaged(path, "HDF5 bank"):
            file = stack.enter_context(h5py.File(path, "r"))
            bank = text(file, "format", str(path)) == BANK
        if not bank:
            raise FormatError(f"{path}: an HDF5 file, but no bank of mask sets", hint="maskhub export makes one.")
        yield file


def _library() -> Any:
    return library("h5py", "HDF5 files", "'maskhub[interop]'")


FORMAT = Format(
    "h5", lambda source, base: True, read, ("hdf5",), write=write, what="HDF5 bank", several=True, whole=True
)
