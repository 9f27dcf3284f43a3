"""MaskLLM's ``mask_compressed.npz``: ``<parameter>.mask``, each ``numpy.packbits`` of a mask, first weight highest.

Shapes are not stored; they are the base's. Its ``.pt`` files hold boolean tensors (``boolean.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import IO

import numpy as np

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError
from maskhub.interop.bind import Format, bind, expect
from maskhub.interop.tensors import NamedTensors
from maskhub.masks.mask import Mask, MaskSet, packed_size
from maskhub.storage.work import Progress

SUFFIX = ".mask"


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    return all(n.endswith(SUFFIX) and s.dtype == "U8" and len(s.shape) == 1 for n, s in source.specs.items())


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    def decode(entry: str, shape: tuple[int, ...]) -> Mask:
        flags = np.unpackbits(expect(source, entry, (packed_size(shape),)).data)
        size = math.prod(shape)
        if flags[size:].any():
            raise FormatError(f"{source.name}: {entry} holds more than {size} bits")
        return Mask.from_bool(flags[:size].reshape(shape))

    masks = {entry.removesuffix(SUFFIX): entry for entry in source}
    return bind(source, base, masks, decode, progress=progress)


def write(maskset: MaskSet, file: IO[bytes]) -> None:
    packed: Mapping[str, np.ndarray] = {
        maskset.base.parameter(name) + SUFFIX: np.packbits(mask.to_bool()) for name, mask in maskset.masks.items()
    }
    np.savez_compressed(file, **packed)  # type: ignore[arg-type]


FORMAT = Format("npz", fits, read, kinds=("npz",), write=write, what="MaskLLM")
