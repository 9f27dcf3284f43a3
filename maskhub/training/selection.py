"""Selection: while training goes on, the flips that matter are kept, and all other scores are pinned to their start.

A flip is a score on the other side of the threshold than it began on. Most flips are noise. What undoing one would
cost is, to second order, the mean square of its score's gradient (its Fisher information) times the way it has moved.
Adam keeps that mean square anyway. Scores that are pinned are gone: nothing of them is computed or held any more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskhub.container.writer import coded_bytes
from maskhub.errors import ArgumentError, TrainingError
from maskhub.masks.mask import MaskSet
from maskhub.storage.tensor import RawTensor
from maskhub.training.flips import Flips, budget, fit
from maskhub.training.masking import MaskedWeight, with_weights
from maskhub.training.methods import known_start
from maskhub.training.settings import Method

SPARE = 1.05  # of the flips that are wanted at the end, as some go back
Pairs = Sequence[tuple[MaskedWeight, Tensor]]  # with the frozen weights that they mask


def rounds(method: Method, steps: int) -> list[int]:
    """After which steps flips are selected."""
    if not method.selects:
        return []
    start, end, count = method.selection_start, method.selection_end, method.selection_rounds
    shares = [start + (end - start) * i / max(1, count - 1) for i in range(count)]
    return sorted({max(1, round(steps * share)) for share in shares})


def selected(model: nn.Module) -> Pairs:
    """The masked weights of a model whose flips are selected."""
    return [pair for pair in with_weights(model).values() if pair[0].method.selects]


def measurable(model: nn.Module, maskset: MaskSet) -> Pairs:
    """The masked weights of ``maskset`` of whose flips it can be told what they matter, as initial scores are held."""
    return [
        (one, weight)
        for one, weight in with_weights(model).values()
        if one.levels is not None
        and one.key in maskset
        and one.method.structure == "weights"
        and one.method.binarizer not in ("topk", "nm")
    ]


def check_measure(pairs: Pairs, optimizer: torch.optim.Optimizer) -> None:
    """TrainingError where an optimizer that has taken a step does not tell what the method measures flips by."""
    fisher = pairs[0][0].method.selection_measure == "fisher"
    if fisher and not any("exp_avg_sq" in optimizer.state.get(one.scores, {}) for one, _ in pairs):
        raise TrainingError(
            f"selection_measure fisher: {type(optimizer).__name__} keeps no mean square of each gradient",
            hint="Train by Adam, or take selection_measure distance, or keep_flips=1, which selects none.",
        )


@torch.no_grad()
def importance(one: MaskedWeight, optimizer: torch.optim.Optimizer | None) -> Tensor:
    """What undoing each flip would cost, of the scores' shape; below 0 where nothing flipped.

    Without an optimizer that is the distance past the threshold. Scores that never had a gradient cost nothing.
    """
    if one.method.selection_measure == "distance" or optimizer is None:
        found = (one.scores - one.method.cut).abs()
    else:
        square = optimizer.state.get(one.scores, {}).get("exp_avg_sq", torch.zeros(()))
        found = square * (one.scores - one.first()).abs()
    return torch.where(one.changed(), found, -1)


@torch.no_grad()
def flips_now(pairs: Pairs, optimizer: torch.optim.Optimizer | None) -> Flips:
    """The flips of masked weights, by the names that key their scores, and what each matters."""
    first, places, values = {}, {}, {}
    for one, _ in pairs:
        found = importance(one, optimizer).view(-1)
        where = torch.nonzero(found >= 0).view(-1)
        first[one.key] = one.mask_with(one.first() > one.method.cut)
        places[one.key] = (where if one.places is None else one.places[where]).cpu().numpy().astype(np.int64)
        values[one.key] = found[where].float().cpu().numpy()
    return Flips(known_start(pairs[0][0].method), first, places, values)


@torch.no_grad()
def select(pairs: Pairs, optimizer: torch.optim.Optimizer, left: int, count: int, limit: float | None) -> None:
    """Keep the flips that matter most, and pin all other scores; this is the first of ``left`` selections of ``count``.

    ``limit`` is what the masks may take at the end, in bytes. At each selection an equal share of the flips stays.
    """
    method, flips = pairs[0][0].method, flips_now(pairs, optimizer)
    if not flips.count:
        raise TrainingError(
            "nothing has flipped before the selection",
            hint="Start a new run that selects later, or with a higher rate.",
        )
    if method.keep_flips is not None:
        share = method.keep_flips ** (1 / count)
    else:
        assert limit is not None
        share = (flips.fitting(limit * SPARE) / flips.count) ** (1 / left)
    wanted = round(flips.count * share)
    if not wanted:
        raise TrainingError("the selection keeps no flip", hint="Start a new run that keeps more.")
    chosen = flips.highest(wanted)
    for one, weight in pairs:
        flags = torch.from_numpy(chosen[one.key]).to(weight.device)
        pin(one, weight, optimizer, torch.nonzero(one.changed().view(-1)).view(-1)[flags])


@torch.no_grad()
def fit_masks(
    pairs: Pairs, optimizer: torch.optim.Optimizer | None, maskset: MaskSet, size: int | None = None
) -> Flips:
    """Undo the flips that matter least, as many as ``size``, or the method's or its bits, ask for; gives what stays.

    ``maskset`` is what would be written now.
    """
    method, flips = pairs[0][0].method, flips_now(pairs, optimizer)
    count = flips.count
    if (size := size or method.file_size) is not None:
        count = fit(maskset, flips, size)
    elif method.bits is not None:
        count = flips.fitting(bits_budget(pairs))
    kept = flips.highest(count)
    for one, _ in pairs:
        undone = torch.nonzero(one.changed().view(-1)).view(-1)[torch.from_numpy(~kept[one.key]).to(one.scores.device)]
        one.scores.view(-1)[undone] = one.first().view(-1)[undone]
    return flips.only(kept)


def mask_budget(pairs: Pairs, maskset: MaskSet) -> float:
    """The bytes that masks may take where they have to fit. ``maskset`` is what would be written now.

    Scores and head that were trained already change nothing, so that a training that goes on has the same. Raises
    ArgumentError where nothing is left for flips.
    """
    method = pairs[0][0].method
    first = {one.key: one.mask_with(one.first() > one.method.cut) for one, _ in pairs}
    if method.file_size is not None:
        blank = {name: RawTensor(t.dtype, t.shape, np.zeros_like(t.data)) for name, t in maskset.dense.items()}
        began = dataclasses.replace(maskset, masks={**maskset.masks, **first}, dense=blank)
        return budget(began, method.file_size)
    limit, least = bits_budget(pairs), coded_bytes(first, known_start(method))
    if limit <= least:
        weights = sum(mask.size for mask in first.values())
        raise ArgumentError(
            f"bits: {method.bits}, and masks without any flip take {8 * least / weights:.2g} bits a weight"
        )
    return limit


def bits_budget(pairs: Pairs) -> float:
    """The bytes that the method's bits a masked weight come to."""
    bits = pairs[0][0].method.bits
    assert bits is not None
    return bits / 8 * sum(math.prod(one.shape) for one, _ in pairs)


def pin(one: MaskedWeight, weight: Tensor, optimizer: torch.optim.Optimizer, chosen: Tensor) -> None:
    """Train only the scores numbered ``chosen``: what the optimizer keeps of the others goes, too."""
    shape = one.scores.shape
    one.pin(weight, chosen)
    state: dict[str, Any] = optimizer.state.get(one.scores, {})
    for key, value in list(state.items()):
        if isinstance(value, Tensor) and value.shape == shape and value.dim():
            state[key] = value.reshape(-1)[chosen]
