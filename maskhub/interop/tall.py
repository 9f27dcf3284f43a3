"""TALL-masks' packed vectors (github.com/nik-dim/tall_masks): one vector of bits a task, over a whole checkpoint.

The vector runs over all tensors of the base, sorted by name, each row-major; ``numpy.packbits`` packs it, first
weight highest, and pads the end with 0. A file holds one such vector (``.npy``) or one for each task by its name
(``.npz``, or a ``torch.save`` of uint8 tensors). What it masks is the checkpoint whose weights were compared: for
TALL-masks the multi-task vector, so that is the base to name. Tensors that a task keeps whole get no mask.
"""

from __future__ import annotations

import numpy as np

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import pair
from maskhub.errors import FormatError
from maskhub.interop.bind import Format, bind, expect
from maskhub.interop.tensors import NamedTensors, choose
from maskhub.masks.mask import Mask, MaskSet, packed_size
from maskhub.storage.work import Progress


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    vectors = all(spec.dtype == "U8" and len(spec.shape) == 1 for spec in source.specs.values())
    return vectors and not pair(base, [name.removesuffix(".mask") for name in source], source.name)


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    sizes = {name: base.info(name).size for name in sorted(base)}
    total = sum(sizes.values())
    packed = expect(source, choose(source, list(source)), (packed_size((total,)),)).data
    masks, start = {}, 0
    for name, size in sizes.items():
        bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8])[start % 8 :][:size]
        if not bits.all():
            masks[name] = Mask.from_bool(bits.reshape(base.info(name).shape))
        start += size
    if np.unpackbits(packed[-1:])[total % 8 or 8 :].any():
        raise FormatError(f"{source.name}: holds more than {total} bits")
    if not masks:
        raise FormatError(f"{source.name}: drops no weight")
    return bind(source, base, {n: n for n in masks}, lambda name, _: masks[name], progress=progress)


FORMAT = Format("TALL-masks", fits, read, kinds=("safetensors", "torch", "npz", "npy"), several=True)
