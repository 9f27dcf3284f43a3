"""What finetuning changed, compressed: its largest values as signs and one scale a tensor, or all values' signs.

The head is new to the task, so it is shipped as it is, in bfloat16. A tensor costs its payload and ``OVERHEAD``, which
is less than a file format would take.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from benchmarks import samples
from benchmarks.accuracy.peft_methods import heads
from maskhub.container import codecs
from maskhub.masks.mask import Mask

OVERHEAD = 12  # a tensor's number, length and scale


def sparse(start: Any, model: Any, kept: float, scale: float) -> tuple[int, Any]:
    """ComPEFT's way: bytes, and the model with only so large a share of the values changed, the largest of all.

    A change is the tensor's mean size of those, times ``scale``, with its sign. Positions are coded as masks are.
    """
    changes, built = _changes(start, model), copy.deepcopy(start)
    size = _head(model, built)
    every = torch.cat([change.abs().reshape(-1) for change in changes.values()])
    least = every.kthvalue(every.numel() - round(kept * every.numel())).values
    parts = dict(built.named_parameters())
    for name, change in changes.items():
        chosen = change.abs() > least
        if count := int(chosen.sum()):
            mask = Mask.from_bool(chosen.numpy())
            size += OVERHEAD + len(codecs.encode(mask, "auto", samples.target(mask))[1]) + -(-count // 8)
            with torch.no_grad():
                parts[name] += scale * change[chosen].abs().mean() * change.sign() * chosen
    return size, built


def signs(start: Any, model: Any) -> tuple[int, Any]:
    """BitDelta: bytes, and the model with each matrix of the encoder changed by its mean change, with its signs.

    As the paper ships it the rest, embeddings and vectors, is whole in 16 bits. The scale is the paper's first, which
    is the best for the weights; it goes on to train it.
    """
    built = copy.deepcopy(start)
    size, parts, tuned = _head(model, built), dict(built.named_parameters()), dict(model.named_parameters())
    for name, change in _changes(start, model).items():
        with torch.no_grad():
            if change.ndim == 2 and "embedding" not in name:
                parts[name] += change.abs().mean() * torch.where(change > 0, 1.0, -1.0)
                size += OVERHEAD + -(-change.numel() // 8)
            else:
                parts[name].copy_(tuned[name].bfloat16())
                size += OVERHEAD + 2 * change.numel()
    return size, built


def _changes(start: Any, model: Any) -> dict[str, torch.Tensor]:
    before, new = dict(start.named_parameters()), heads(model)
    return {
        name: (after - before[name]).detach()
        for name, after in model.named_parameters()
        if name.split(".")[0] not in new
    }


def _head(model: Any, built: Any) -> int:
    """Copy the head, rounded; bytes."""
    size, parts, new = 0, dict(built.named_parameters()), heads(model)
    for name, value in model.named_parameters():
        if name.split(".")[0] in new:
            with torch.no_grad():
                parts[name].copy_(value.bfloat16())
            size += OVERHEAD + 2 * value.numel()
    return size
