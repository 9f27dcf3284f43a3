"""Score matrices beside frozen weights, as the paper's authors save them (github.com/ptlmasking/maskbert).

A state dict of the task model with ``<module>.weight_mask`` beside ``<module>.weight``: a weight is kept where its
score is above the threshold, which the file does not tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError
from maskhub.interop.bind import Format, bind, expect
from maskhub.interop.tensors import NamedTensors
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.tensor import NUMPY_DTYPE
from maskhub.storage.work import Progress

SUFFIX = "_mask"
THRESHOLD = 1e-2  # the authors' default


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    return any(entry.endswith(SUFFIX) for entry in source)


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None, threshold: float = THRESHOLD) -> MaskSet:

    def decode(entry: str, shape: tuple[int, ...]) -> Mask:
        scores = expect(source, entry, shape)
        values: NDArray[np.generic]
        if scores.dtype == "BF16":  # the upper half of a float32
            values = (scores.words().astype(np.uint32) << 16).view(np.float32).reshape(shape)
        elif scores.dtype in NUMPY_DTYPE:
            values = scores.numpy()
        else:
            raise FormatError(f"{source.name}: {entry} is {scores.dtype}, and scores are floats")
        return Mask.from_bool(values > np.asarray(threshold, values.dtype if values.dtype.kind == "f" else None))

    masks = {entry.removesuffix(SUFFIX): entry for entry in source if entry.endswith(SUFFIX)}
    others = {entry: entry for entry in source if not entry.endswith(SUFFIX)}
    if others and (alone := sorted(masks.keys() - others.keys())):
        raise FormatError(f"{source.name}: {masks[alone[0]]} has no {alone[0]} beside it")
    lineage = {"threshold": threshold}
    return bind(source, base, masks, decode, others=others, lineage=lineage, progress=progress)


FORMAT = Format("scores", fits, read)
