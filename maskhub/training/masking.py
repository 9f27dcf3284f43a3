"""Masking a model's weights while it trains, after Zhao et al. 2020 (arXiv 2004.12406), section 3.

A masked weight is computed by a parametrization: no module is replaced. The model's own weight stays frozen; scores
are trained in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from maskhub.errors import TrainingError
from maskhub.masks.mask import Mask
from maskhub.masks.names import locate
from maskhub.masks.scores import LEVELS, draw
from maskhub.training.methods import (
    TEMPERATURE,
    dropped,
    keep_highest,
    keep_n_of_m,
    kth_lowest,
    sparsity_at,
    starting_levels,
    starting_scores,
)
from maskhub.training.settings import Method


class _Select(torch.autograd.Function):
    """``weight`` where ``keep``, else +0; the gradient of the mask goes to the scores unchanged.

    ``scores`` and ``keep`` broadcast to the weight. Scores beyond ``limit`` get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, keep: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(weight, scores)
        ctx.limit = limit
        return torch.where(keep, weight, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        weight, scores = ctx.saved_tensors
        gradient = gradients[0] * weight
        if scores.shape != weight.shape:
            gradient = gradient.to(scores.dtype).sum_to_size(scores.shape)
        return None, _within(gradient, scores, ctx.limit), None, None


class _SelectPlaces(torch.autograd.Function):
    """The same, where only the weights at ``places`` have a score.

    ``weight`` holds what the initial mask leaves of it and is written to, at ``places`` only: there is no masked copy.
    That is safe because all passes between two steps write the same. ``values`` are the weights at ``places``.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scores: Tensor, keep: Tensor, places: Tensor, values: Tensor, limit: float
    ) -> Tensor:
        ctx.save_for_backward(scores, places, values)
        ctx.limit = limit
        masked = weight.data  # the same memory, but unknown to autograd
        masked.view(-1).scatter_(0, places, torch.where(keep, values, 0))
        return masked

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None, None, None]:
        scores, places, values = ctx.saved_tensors
        gradient = gradients[0].reshape(-1).index_select(0, places).mul_(values)
        return None, _within(gradient, scores, ctx.limit), None, None, None, None


def _within(gradient: Tensor, scores: Tensor, limit: float) -> Tensor:
    return gradient if math.isinf(limit) else gradient * (scores.abs() <= limit)


@dataclass
class Steps:
    """How far training has got, for all masked weights of a model; ``hooked``: what ``attach`` put on the optimizer."""

    done: int = 0
    total: int | None = None
    hooked: Any = None

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


@dataclass(frozen=True)
class Groups:
    """Weights that share a score: the weight is seen in the shape ``view``, to which ``scores`` broadcasts."""

    view: tuple[int, ...]
    scores: tuple[int, ...]


class MaskedWeight(nn.Module):
    """Parametrization that drops the weights whose score the method's binarizer turns down.

    ``scores`` has the shape of the weight, or that of ``groups``, or with a margin one dimension. ``key`` is the name
    that keys the initial scores; ``inputs`` the dimension of the weight that the layer's inputs go to.
    """

    places: Tensor | None  # of the scores within the margin: int32
    values: Tensor | None  # the weights there
    levels: Tensor | None  # of the initial scores, less half of their number: int16

    def __init__(
        self,
        weight: Tensor,
        key: str,
        method: Method,
        progress: Steps,
        *,
        inputs: int = -1,
        groups: Groups | None = None,
    ) -> None:
        super().__init__()
        self.key, self.method, self.progress, self.inputs = key, method, progress, inputs
        self.shape = tuple(weight.shape)
        self.groups = groups or Groups(self.shape, self.shape)
        self.limit = 1.0 if method.binarizer == "sign" else math.inf
        self.start = starting_scores(method)
        weight = weight.detach()
        count = math.prod(self.groups.scores)
        self.group_size, self.above = weight.numel() // count, 0  # weights of a score; kept ones above the margin
        levels = starting_levels(method, key, count, lambda: _mean_size(weight, self.groups), inputs)
        shape = self.groups.scores
        places = values = None
        if method.score_margin is not None:
            cut, (low, high) = self.start.cut(method.cut), self._margin(method.score_margin)
            flat = weight.view(-1)
            found = np.flatnonzero((levels >= low) & (levels < high))
            places = torch.from_numpy(found.astype(np.int32)).to(weight.device)
            values = flat.index_select(0, places)
            flat.masked_fill_(torch.from_numpy(levels < cut).to(weight.device), 0)
            self.above = int(np.count_nonzero(levels >= high))
            levels = levels[found]
            shape = levels.shape
        scores = torch.from_numpy(self.start.values(levels)).reshape(shape).to(weight.device)
        self.scores = nn.Parameter(scores.clamp_(-self.limit, self.limit))
        centred = None
        if method.l2_sp != 0:
            centred = torch.from_numpy((levels ^ (LEVELS // 2)).view(np.int16)).reshape(shape).to(weight.device)
        # Known from the method and the seed, so no checkpoint holds them.
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("levels", centred, persistent=False)
        self.dropped = dropped(self.scores.numel(), method.initial_sparsity)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, of the weight's shape and dtype."""
        if self.method.needs_steps and self.training and torch.is_grad_enabled() and not self.progress.hooked:
            raise TrainingError(
                "the method acts after each step of the optimiser, which nothing tells it of",
                hint="Call maskhub.training.attach(model, optimizer), or give a Trainer maskhub.training.MaskCallback.",
            )
        keep = self.sample() if self.method.binarizer == "bernoulli" and self.training else self.keep()
        masked: Tensor
        if self.places is not None:
            masked = _SelectPlaces.apply(weight, self.scores, keep, self.places, self.values, self.limit)  # type: ignore[no-untyped-call]
        else:
            viewed = weight.view(self.groups.view)
            masked = _Select.apply(viewed, self.scores, keep, self.limit)  # type: ignore[no-untyped-call]
        return masked.view(self.shape)

    @torch.no_grad()
    def keep(self) -> Tensor:
        """Which scores keep their weight: bool, of the scores' shape."""
        scores = whole(self.scores)
        if self.method.binarizer == "topk":
            return keep_highest(scores, self.dropped)
        if self.method.binarizer == "nm":
            return keep_n_of_m(scores, *self.method.group, self.inputs)
        return scores > self.method.cut

    @torch.no_grad()
    def sample(self) -> Tensor:
        """The same, by chance: with the probability that the score's sigmoid, at ``TEMPERATURE``, gives.

        Drawn from torch's own generator, which Trainer's checkpoints keep and gradient checkpointing sets back.
        """
        return torch.rand_like(self.scores) < self.scores.div(TEMPERATURE).sigmoid_()

    @torch.no_grad()
    def mask(self) -> Mask:
        """The mask of the weight that the model evaluates with."""
        _check_sharing([self])
        keep = self.keep()
        if self.places is None:
            return Mask.from_bool(keep.expand(self.groups.view).reshape(self.shape).cpu().numpy())
        flags = draw(self.start.seed, self.key, math.prod(self.shape)) >= self.start.cut(self.method.cut)
        flags[self.places.cpu().numpy()] = keep.cpu().numpy()
        return Mask.from_bool(flags.reshape(self.shape))

    def kept(self) -> Tensor:
        """How many weights are kept: an integer, where the scores are."""
        return self.keep().sum() * self.group_size + self.above

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Move every score to its initial value by a share of the way."""
        assert self.levels is not None
        step = (self.start.high - self.start.low) / LEVELS
        first = self.levels.float().add_((LEVELS + 1) / 2).mul_(step).add_(self.start.low)
        self.scores.lerp_(_shared_as(self.scores, first.clamp_(-self.limit, self.limit)), share)

    def _margin(self, margin: float) -> tuple[int, int]:
        """The first level within the margin, and the first one above it."""
        near = np.abs(self.start.values(np.arange(LEVELS, dtype=np.uint16)) - self.method.cut) <= margin
        if not near.any():
            raise TrainingError(
                f"score_margin {margin}: no score starts so near to the threshold", hint="Give a wider one."
            )
        return int(near.argmax()), LEVELS - int(near[::-1].argmax())


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which FSDP has a part in each process, in one piece; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _check_sharing(masked: Sequence[MaskedWeight]) -> None:
    """With a margin weights are written to, which FSDP fetches anew for the backward pass: wrong gradients."""
    if any(one.places is not None and isinstance(one.scores, DTensor) for one in masked):
        raise TrainingError(
            "scores within a margin cannot be learned on a model that FSDP shards", hint="Leave score_margin out."
        )


def _shared_as(model: Tensor, tensor: Tensor) -> Tensor:
    return distribute_tensor(tensor, model.device_mesh, model.placements) if isinstance(model, DTensor) else tensor


def _mean_size(weight: Tensor, groups: Groups) -> Tensor:
    shared = [i for i, (whole, own) in enumerate(zip(groups.view, groups.scores, strict=True)) if whole != own]
    return weight.view(groups.view).abs().mean(shared, keepdim=True) if shared else weight.abs()


def add_scores(model: nn.Module, names: Mapping[str, str], method: Method, whole: Set[str] = frozenset()) -> None:
    """Freeze ``model`` and put scores on some of its weights.

    ``names`` maps parameter names of the model (``bert.encoder...query.weight``) to the names that key the initial
    scores. Those in ``whole`` (the task's new layers) are masked weight by weight, without structure or margin.
    Afterwards only scores require a gradient. Raises TrainingError for weights that the method does not fit.
    """
    simple = msgspec.structs.replace(method, structure="weights", score_margin=None)
    planned = []
    for parameter, key in names.items():
        path, _, attribute = parameter.rpartition(".")
        module = model.get_submodule(path)
        inputs = 0 if isinstance(module, Conv1D) else 1
        own = simple if parameter in whole else method
        shape = tuple(getattr(module, attribute).shape)
        if method.binarizer == "nm" and shape[inputs] % method.group[1]:
            raise TrainingError(
                f"nm {method.nm}: {parameter} has {shape[inputs]} inputs, which {method.group[1]} does not divide",
                hint="Leave it out, by --target-modules or --pattern, or take another N:M.",
            )
        planned.append((module, attribute, key, own, inputs, _groups(model, parameter, shape, own, inputs)))
    model.requires_grad_(False)
    progress = Steps()
    for module, attribute, key, own, inputs, groups in planned:
        weight = getattr(module, attribute)
        masking = MaskedWeight(weight, key, own, progress, inputs=inputs, groups=groups)
        parametrize.register_parametrization(module, attribute, masking, unsafe=True)  # not tried out: shapes are kept
    follow(list(masked_weights(model).values()))


def _groups(model: nn.Module, name: str, shape: tuple[int, ...], method: Method, inputs: int) -> Groups | None:
    """Which weights share a score: those of an output (``rows``), of an attention head, or all of a layer's."""
    if method.structure == "weights":
        return None
    if method.structure == "layers":
        return Groups(shape, (1, 1))
    if method.structure == "rows":
        return Groups(shape, (1, shape[1]) if inputs == 0 else (shape[0], 1))
    dim = inputs if locate(name)[1] == "AO" else 1 - inputs
    width = head_width(model)
    if shape[dim] % width:
        raise TrainingError(f"structure heads: {name} has a side of {shape[dim]}, which heads of {width} do not divide")
    split = (shape[dim] // width, width)
    view = (*shape[:dim], *split, *shape[dim + 1 :])
    return Groups(view, tuple(side if i == dim else 1 for i, side in enumerate(view)))


def head_width(model: nn.Module) -> int:
    """Outputs of an attention head. Raises TrainingError where the model's configuration does not tell."""
    config = getattr(model, "config", None)
    width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    heads = getattr(config, "num_attention_heads", None)
    if not width and heads:
        width = config.hidden_size // heads  # type: ignore[union-attr]
    if not width:
        raise TrainingError("structure heads: the model's configuration names no attention heads")
    return int(width)


def masked_weights(model: nn.Module) -> dict[str, MaskedWeight]:
    """The parametrizations of a masked model, by the masked parameter's name."""
    return {
        f"{path}.{attribute}" if path else attribute: parametrizations[0]
        for path, module in model.named_modules()
        if parametrize.is_parametrized(module)
        for attribute, parametrizations in module.parametrizations.items()
        if isinstance(parametrizations[0], MaskedWeight)
    }


def scores_of(model: nn.Module) -> dict[str, Tensor]:
    """The scores of a masked model, by the masked parameter's name."""
    return {name: masked.scores for name, masked in masked_weights(model).items()}


def masks_of(model: nn.Module) -> dict[str, Mask]:
    """The masks that a model evaluates with, by the masked parameter's name."""
    return {name: masked.mask() for name, masked in masked_weights(model).items()}


def plain_name(name: str) -> str:
    """A state-dict key of a masked model, as the unmasked model calls the weight."""
    return name.replace(".parametrizations.", ".").removesuffix(".original")


def refuse_adapters(model: nn.Module) -> None:
    """TrainingError for a model with an adapter of PEFT's on it."""
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise TrainingError(
            "the model has an adapter of PEFT's on it, and a mask needs the plain model",
            hint="Merge it with merge_and_unload(), and save the result as a base of its own.",
        )


def attach(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int | None = None, step: int = 0) -> None:
    """From now on, what a model's method does after a step follows each step of ``optimizer``.

    That is the decay to the initial scores (L2-SP), the limits of ``sign``, the sparsity's schedule and its penalty;
    without one of these ``attach`` does nothing. ``steps`` are all steps of the training, which a ``final_sparsity``
    needs; a decay that goes by the length is 0.007 without. ``step`` is how many are done. Raises TrainingError where
    the optimizer has no scores of the model, or ``steps`` is below 1.
    """
    refuse_adapters(model)
    masked = list(masked_weights(model).values())
    _check_sharing(masked)
    if not masked or not masked[0].method.needs_steps:
        return
    progress, method = masked[0].progress, masked[0].method
    if steps is not None and steps < 1:
        raise TrainingError(
            f"attach: steps is {steps}", hint="Give all steps of the training, 1 or more, or leave it out."
        )
    if method.final_sparsity is not None and not steps:
        raise TrainingError("final_sparsity needs to know all steps of the training: attach(..., steps=N)")
    mine = {id(one.scores) for one in masked}
    if not any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
        raise TrainingError("the optimizer has no scores of the model", hint="Make it after mask_model.")
    progress.done, progress.total = step, steps

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        group = next(g for g in optimizer.param_groups if any(id(p) in mine for p in g["params"]))
        rate, highest = float(group["lr"]), float(group.get("initial_lr", group["lr"]))
        after_step(masked, rate, rate / highest if highest else 0.0)

    if progress.hooked:  # on the optimizer of an earlier training
        progress.hooked.remove()
    progress.hooked = optimizer.register_step_post_hook(after)
    follow(masked)


@torch.no_grad()
def after_step(masked: Sequence[MaskedWeight], rate: float, share: float) -> None:
    """What a method does after a step at learning rate ``rate``, which is ``share`` of the highest."""
    method, progress = masked[0].method, masked[0].progress
    progress.done += 1
    decay, shift = method.l2_sp_over(progress.total), 0.0
    if method.sparsity_penalty:
        weights = sum(math.prod(one.shape) for one in masked)
        sparsity = 1 - int(sum(one.kept() for one in masked)) / weights
        shift = rate * method.sparsity_penalty * (sparsity - sparsity_at(method, progress.share))
    for one in masked:
        if decay:
            one.decay(decay * share)
        if shift:
            one.scores.add_(shift)
        if not math.isinf(one.limit):
            one.scores.clamp_(-one.limit, one.limit)
    follow(masked)


@torch.no_grad()
def follow(masked: Sequence[MaskedWeight]) -> None:
    """Let ``topk`` drop what the schedule, at the step that is reached, says."""
    if not masked or masked[0].method.binarizer != "topk":
        return
    method, sparsity = masked[0].method, sparsity_at(masked[0].method, masked[0].progress.share)
    if method.topk_scope == "tensor":
        for one in masked:
            one.dropped = dropped(one.scores.numel(), sparsity)
        return
    scores = [whole(one.scores) for one in masked]
    together = torch.cat([each.reshape(-1) for each in scores])
    count = dropped(together.numel(), sparsity)
    lowest = kth_lowest(together, max(count, 1))
    below = [int((each < lowest).sum()) for each in scores]
    ties = count - sum(below)
    for one, each, lower in zip(masked, scores, below, strict=True):  # of equal ones, the first tensors' are dropped
        equal = min(ties, int((each == lowest).sum()))
        one.dropped, ties = lower + equal, ties - equal
