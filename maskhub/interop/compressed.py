"""``sparse-bitmask`` checkpoints of compressed-tensors: the weights that are not 0, and a bitmask of where they are.

``<module>.shape``, ``.compressed`` (the values in order), ``.bitmask`` (each row packed, first weight lowest, padded
to whole bytes) and ``.row_offsets`` stand for ``<module>.weight``; releases before 0.9 keep ``.weight`` in the names.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.errors import FormatError
from maskhub.interop.bind import Format
from maskhub.interop.tensors import NamedTensors
from maskhub.masks.mask import MaskSet
from maskhub.storage.tensor import NUMPY_DTYPE, RawTensor, Spec
from maskhub.storage.work import Progress

PARTS = (".shape", ".compressed", ".bitmask", ".row_offsets")


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    return any(entry.endswith(".bitmask") for entry in source)


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    """What the file decompresses to is a pruned dense checkpoint, and compared with the base as such."""
    modules = [entry.removesuffix(".bitmask") for entry in source if entry.endswith(".bitmask")]
    for module in modules:
        if missing := [part for part in PARTS if module + part not in source.specs]:
            raise FormatError(f"{source.name}: {module}.bitmask has no {module}{missing[0]} beside it")
    parts = {module + part for module in modules for part in PARTS}
    weights = {module.removesuffix(".weight") + ".weight": module for module in modules}
    plain = {entry: spec for entry, spec in source.specs.items() if entry not in parts}
    dense = dataclasses.replace(
        source,
        specs={**plain, **{name: Spec("", ()) for name in weights}},
        read=lambda name: _decompress(source, weights[name]) if name in weights else source.read(name),
    )
    return from_pruned(base, dense, progress=progress)


def _decompress(source: NamedTensors, module: str) -> RawTensor:
    shape = tuple(map(int, _integers(source, module + ".shape")))
    values, packed = source.read(module + ".compressed"), source.read(module + ".bitmask")
    width = shape[-1] if shape else 0
    if packed.dtype != "U8" or not shape or min(shape) < 0 or packed.shape != (*shape[:-1], (width + 7) // 8):
        raise FormatError(f"{source.name}: {module}.bitmask is no bitmask for the shape {list(shape)}")
    flags = np.unpackbits(packed.data.reshape(packed.shape), axis=-1, bitorder="little").view(np.bool_)
    counts = flags.sum(-1, dtype=np.int64)
    if flags[..., width:].any() or int(counts.sum()) != values.size:
        raise FormatError(f"{source.name}: {module}.bitmask does not fit the {values.size} values of its tensor")
    if not np.array_equal(_integers(source, module + ".row_offsets"), (counts.cumsum(0) - counts).reshape(-1)):
        raise FormatError(f"{source.name}: {module}.row_offsets does not fit {module}.bitmask")
    words = np.zeros(math.prod(shape), values.words().dtype)
    words[flags[..., :width].reshape(-1)] = values.words()
    return RawTensor(values.dtype, shape, words.view(np.uint8))


def _integers(source: NamedTensors, entry: str) -> NDArray[np.int64]:
    tensor = source.read(entry)
    if tensor.dtype not in ("I64", "I32"):
        raise FormatError(f"{source.name}: {entry} is {tensor.dtype}, and integers are needed")
    return tensor.data.view(NUMPY_DTYPE[tensor.dtype]).astype(np.int64)


FORMAT = Format("compressed-tensors", fits, read)
