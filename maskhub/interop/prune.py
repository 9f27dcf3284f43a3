"""State dicts of modules under ``torch.nn.utils.prune``: ``<parameter>_orig``, unpruned, and ``<parameter>_mask``.

After ``prune.remove`` they are plain pruned checkpoints.
"""

from __future__ import annotations

from functools import partial

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError
from maskhub.interop.bind import Format, bind, zero_one
from maskhub.interop.tensors import NamedTensors
from maskhub.masks.mask import MaskSet
from maskhub.storage.work import Progress

ORIGINAL, MASK = "_orig", "_mask"


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    return any(entry.endswith(ORIGINAL) for entry in source)


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    masks = {entry.removesuffix(MASK): entry for entry in source if entry.endswith(MASK)}
    others = {entry.removesuffix(ORIGINAL): entry for entry in source if not entry.endswith(MASK)}
    originals = {entry.removesuffix(ORIGINAL) for entry in source if entry.endswith(ORIGINAL)}
    if both := sorted(originals & set(source)):
        raise FormatError(f"{source.name}: holds both {both[0]} and {both[0]}{ORIGINAL}")
    if alone := sorted(originals ^ masks.keys()):
        lacks = MASK if alone[0] in originals else ORIGINAL
        raise FormatError(f"{source.name}: the pruned parameter {alone[0]} has no {alone[0]}{lacks}")
    return bind(source, base, masks, partial(zero_one, source), others=others, progress=progress)


FORMAT = Format("torch.nn.utils.prune", fits, read)
