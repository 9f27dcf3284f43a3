"""What the methods compute: initial scores, which scores keep their weight, and sparsity by step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskhub.masks.scores import Initial, SplitScores, UniformScores
from maskhub.training.settings import PAPER_MARGIN, Method

RAMP = 0.75  # share of the steps in which the sparsity goes from the initial one to the final one
JUMPS = 8  # of the schedule ``steps``
TEMPERATURE = 0.05  # of bernoulli's sigmoid: steps of the usual rates get scores from where they start to below 0


def starting_scores(method: Method) -> UniformScores:
    """Where the initial scores come from.

    ``bernoulli`` starts all where the sparsity is the chance to be dropped; the others as maskbert's initialisations.
    """
    sparsity = method.initial_sparsity
    if method.binarizer == "bernoulli":
        start = TEMPERATURE * math.log((1 - sparsity) / sparsity)
        return UniformScores(method.seed, start, start)
    if method.score_init == "uniform":
        margin = PAPER_MARGIN if method.score_range is None else sparsity * method.score_range - method.cut
        return UniformScores.for_sparsity(sparsity, method.cut, method.seed, margin)
    half = method.threshold / 2
    return SplitScores(method.seed, method.cut - half, method.cut + half, sparsity)


def known_start(method: Method) -> Initial | None:
    """The mask that training begins with, where draws alone tell it."""
    if method.structure != "weights" or method.score_init == "magnitude" or method.binarizer in ("nm", "bernoulli"):
        return None
    return starting_scores(method).initial(method.cut)


def starting_levels(
    method: Method, key: str, count: int, size: Callable[[], Tensor], inputs: int
) -> NDArray[np.uint16]:
    """The levels of the ``count`` initial scores of tensor ``key``.

    With ``magnitude`` the weights (or groups) of the smallest ``size`` start dropped: a share of the tensor, or of each
    group of ``nm`` along ``inputs``, the dimension that the layer's inputs go to.
    """
    scores = starting_scores(method)
    if method.score_init != "magnitude":
        return scores.levels(key, count)
    assert isinstance(scores, SplitScores)
    if method.binarizer == "nm":
        keep = keep_n_of_m(size(), *method.group, inputs)
    else:
        keep = keep_highest(size(), dropped(count, method.initial_sparsity))
    return scores.levels(key, count, ~keep.reshape(-1).cpu().numpy())


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
