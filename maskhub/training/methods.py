"""What the methods compute: initial scores, which scores keep their weight, and sparsity by step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskhub.masks.scores import LEVELS, Initial, UniformScores
from maskhub.training.settings import PAPER_MARGIN, Method

RAMP = 0.75  # share of the steps in which the sparsity goes from the initial one to the final one
JUMPS = 8  # of the schedule ``steps``
TEMPERATURE = 0.05  # of bernoulli's sigmoid: steps of the usual rates get scores from where they start to below 0


def starting_scores(method: Method) -> UniformScores:
    """Where the initial scores come from.

    ``bernoulli`` starts all where the sparsity is the chance to be dropped; the others as maskbert's own scores do.
    """
    sparsity = method.initial_sparsity
    if method.binarizer == "bernoulli":
        start = TEMPERATURE * math.log((1 - sparsity) / sparsity)
        return UniformScores(method.seed, start, start)
    margin = PAPER_MARGIN if method.score_range is None else sparsity * method.score_range - method.cut
    return UniformScores.for_sparsity(sparsity, method.cut, method.seed, margin)


def known_start(method: Method) -> Initial | None:
    """The mask that training begins with, where draws alone tell it."""
    if method.structure != "weights" or method.score_init == "magnitude" or method.binarizer in ("nm", "bernoulli"):
        return None
    return starting_scores(method).initial(method.cut)


def starting_levels(
    method: Method, key: str, count: int, size: Callable[[], Tensor], inputs: int
) -> NDArray[np.uint16]:
    """The levels of the ``count`` initial scores of tensor ``key``.

    With ``magnitude`` those that start dropped go to the weights (or groups) of the smallest ``size``, in the tensor or
    in each group of ``nm`` along ``inputs``, the dimension that the layer's inputs go to; the others to the others.
    """
    scores = starting_scores(method)
    levels = scores.levels(key, count)
    if method.score_init != "magnitude":
        return levels
    sizes = size().cpu()
    if method.binarizer == "nm":
        return _by_size_in_groups(levels, sizes, method.group, inputs)
    low = levels < scores.cut(method.cut)
    if method.binarizer == "topk":
        wanted = dropped(count, method.initial_sparsity)
        low = ~keep_highest(torch.from_numpy(levels.astype(np.int32)), wanted).numpy()
    small = ~keep_highest(sizes, int(low.sum())).numpy().reshape(-1)
    placed = np.empty_like(levels)
    placed[small], placed[~small] = levels[low], levels[~low]
    return placed


def _by_size_in_groups(
    levels: NDArray[np.uint16], sizes: Tensor, group: tuple[int, int], inputs: int
) -> NDArray[np.uint16]:
    """The ``n`` highest levels of each ``m`` neighbours go to the ``n`` largest, and are above the others'."""
    last = sizes.movedim(inputs, -1)
    large = keep_n_of_m(last, *group).reshape(-1, group[1]).numpy()
    drawn = np.moveaxis(np.minimum(levels, LEVELS - 2).reshape(sizes.shape), inputs, -1).reshape(large.shape)
    high = keep_n_of_m(torch.from_numpy(drawn.astype(np.int32)), *group).numpy()
    placed = np.empty_like(drawn)
    placed[large], placed[~large] = drawn[high], drawn[~high]
    highest = np.where(large, 0, placed).max(1, keepdims=True)
    placed = np.where(large, np.maximum(placed, highest + 1), placed)  # where draws are equal
    return np.moveaxis(placed.reshape(last.shape), -1, inputs).reshape(-1).astype(np.uint16)


def dropped(count: int, sparsity: float) -> int:
    """How many of ``count`` weights that sparsity drops."""
    return round(count * sparsity)


def keep_highest(scores: Tensor, dropped: int) -> Tensor:
    """All but the ``dropped`` lowest scores; of equal ones the first are dropped first."""
    if dropped == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    lowest = kth_lowest(scores, dropped)
    keep = scores > lowest
    ties = scores.numel() - dropped - int(keep.sum())
    if ties > 0:
        keep.view(-1)[torch.nonzero((scores == lowest).reshape(-1)).view(-1)[-ties:]] = True
    return keep


def kth_lowest(scores: Tensor, k: int) -> Tensor:
    """The ``k``-th lowest score, counted from 1."""
    flat = scores.detach().reshape(-1)
    if flat.device.type == "cpu":  # NumPy's way takes a tenth of the time
        copy = flat.to(torch.float32, copy=True).numpy()  # FSDP could not free memory that NumPy knows
        copy.partition(k - 1)
        return torch.from_numpy(copy[k - 1 : k])[0]
    return flat.kthvalue(k).values


def keep_n_of_m(scores: Tensor, n: int, m: int, dim: int = -1) -> Tensor:
    """The ``n`` highest scores of each ``m`` neighbours along ``dim``; of equal ones the last."""
    last = scores.movedim(dim, -1)
    groups = last.reshape(*last.shape[:-1], -1, m)
    keep = torch.empty_like(groups, dtype=torch.bool)
    for i in range(m):
        own = groups[..., i : i + 1]
        beaten = (groups[..., :i] > own).sum(-1) + (groups[..., i + 1 :] >= own).sum(-1)
        keep[..., i] = beaten < n
    return keep.flatten(-2).movedim(-1, dim)


def sparsity_at(method: Method, progress: float) -> float:
    """The sparsity that is to be when a share ``progress`` of the steps is done.

    ``cubic`` is that of Zhu and Gupta 2017 (arXiv 1710.01878), equation 1.
    """
    start, final = method.initial_sparsity, method.final_sparsity
    if final is None:
        return start
    done = min(1.0, progress / RAMP)
    if method.sparsity_schedule == "cubic":
        return final + (start - final) * (1 - done) ** 3
    return start + (final - start) * math.floor(done * JUMPS) / JUMPS
