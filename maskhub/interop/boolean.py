"""Masks of zeros and ones, one element a weight, named as the base's tensors, with or without ``.mask`` behind."""

from __future__ import annotations

from functools import partial
from typing import IO

import numpy as np

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.interop.bind import Format, bind, zero_one
from maskhub.interop.maskllm import SUFFIX
from maskhub.interop.tensors import NamedTensors
from maskhub.masks.mask import MaskSet
from maskhub.storage.safetensors import write_header
from maskhub.storage.tensor import Spec
from maskhub.storage.torch import torch_library
from maskhub.storage.work import Progress


def fits(source: NamedTensors, base: Checkpoint) -> bool:
    return all(entry.endswith(SUFFIX) or spec.dtype in ("BOOL", "U8") for entry, spec in source.specs.items())


def read(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    masks = {entry.removesuffix(SUFFIX): entry for entry in source}
    return bind(source, base, masks, partial(zero_one, source), progress=progress)


def write_safetensors(maskset: MaskSet, file: IO[bytes]) -> None:
    """BOOL tensors by the base's names."""
    specs = {name: Spec("BOOL", mask.shape) for name, mask in maskset.masks.items()}
    for name in write_header(file, specs, {"format": "pt"}):
        file.write(maskset.masks[name].to_bool().view(np.uint8).data)


def write_torch(maskset: MaskSet, file: IO[bytes]) -> None:
    """A dictionary of boolean tensors by ``<parameter>.mask``, as MaskLLM's ``.pt`` is."""
    torch = torch_library()
    masks = maskset.masks.items()
    torch.save({maskset.base.parameter(n) + SUFFIX: torch.from_numpy(m.to_bool()) for n, m in masks}, file)


FORMATS = (
    Format("pt", fits, read, ("torch",), write_torch, what="boolean tensors"),
    Format("safetensors", fits, read, ("safetensors", "npz"), write_safetensors, what="boolean tensors"),
)
