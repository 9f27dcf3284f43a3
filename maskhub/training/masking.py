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
from maskhub.training.settings import SELECTIONS, Method


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
    """How far training has got, for all masked weights of a model.

    ``hooked`` is what ``attach`` put on the ``optimizer``; ``budget`` the bytes masks may take, if a size is asked.
    """

    done: int = 0
    total: int | None = None
    hooked: Any = None
    optimizer: Any = None
    budget: float | None = None

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
        self.pinned = False  # whether only some scores are trained, of a selection
        self._first: Mask | None = None  # the initial mask of the whole weight, where no draws tell it
        centred = None
        if method.l2_sp != 0 or method.selects:
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
        check_sharing([self])
        return self.mask_with(self.keep())

    def mask_with(self, keep: Tensor) -> Mask:
        """The mask of the weight, where these of the scores keep theirs."""
        if self.places is None:
            return Mask.from_bool(keep.expand(self.groups.view).reshape(self.shape).cpu().numpy())
        if self._first is not None:
            flags = self._first.to_bool().reshape(-1)
        else:
            flags = draw(self.start.seed, self.key, math.prod(self.shape)) >= self.start.cut(self.method.cut)
        flags[self.places.cpu().numpy()] = keep.cpu().numpy()
        return Mask.from_bool(flags.reshape(self.shape))

    def kept(self) -> Tensor:
        """How many weights are kept: an integer, where the scores are."""
        return self.keep().sum() * self.group_size + self.above

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Move every score to its initial value by a share of the way."""
        self.scores.lerp_(_shared_as(self.scores, self.first()), share)

    @torch.no_grad()
    def first(self) -> Tensor:
        """The initial scores, of the scores' shape."""
        assert self.levels is not None
        step = (self.start.high - self.start.low) / LEVELS
        first = self.levels.float().add_((LEVELS + 1) / 2).mul_(step).add_(self.start.low)
        return first.clamp_(-self.limit, self.limit)

    @torch.no_grad()
    def changed(self) -> Tensor:
        """Which scores are on the other side of the threshold than they began: bool, of their shape."""
        return self.keep() != (self.first() > self.method.cut)

    @torch.no_grad()
    def pin(self, weight: Tensor, chosen: Tensor) -> None:
        """Train only the scores numbered ``chosen`` from now on; the others' weights are as the initial mask has them.

        ``weight`` is the frozen one, which is written to. The scores stay the same parameter, with fewer values.
        """
        flat, keep = weight.view(-1), (self.first() > self.method.cut).view(-1)
        if self.places is None:
            places = torch.arange(flat.numel(), dtype=torch.int32, device=flat.device)
            values = flat.clone()
            self._first = None if self.start_known else Mask.from_bool(keep.view(self.shape).cpu().numpy())
            self.above = 0
        else:
            assert self.values is not None
            places, values = self.places, self.values
        flat.scatter_(0, places.long(), torch.where(keep, values, 0))
        pinned = torch.ones_like(keep)
        pinned[chosen] = False
        self.above += int((keep & pinned).sum())
        self.places, self.values = places[chosen], values[chosen]
        assert self.levels is not None
        self.levels = self.levels.view(-1)[chosen]
        self.pinned = True
        self._non_persistent_buffers_set.discard("places")  # no seed tells them any more
        self.scores.grad = None
        kept = self.scores.data.reshape(-1)[chosen]
        # A graph that is still held knows the parameter by its old shape; torch forgets that where the dtype changes.
        self.scores.data = self.scores.data.double()
        self.scores.data = kept
        self.dropped = 0

    @property
    def start_known(self) -> bool:
        """Whether draws alone tell the initial mask."""
        return self.method.score_init != "magnitude"

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


def check_sharing(masked: Sequence[MaskedWeight]) -> None:
    """Where only some weights have scores they are written to, and FSDP fetches them anew for the backward pass."""
    for one in masked:
        if isinstance(one.scores, DTensor) and (one.places is not None or one.method.selects):
            what = "score_margin" if one.method.score_margin is not None else "a selection (keep_flips=1 is none)"
            raise TrainingError(
                "scores of some weights alone cannot be learned on a model that FSDP shards", hint=f"Leave {what} out."
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
    unselected = {name: None for name in SELECTIONS if hasattr(method, name)}
    simple = msgspec.structs.replace(method, structure="weights", score_margin=None, **unselected)
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
        if own.selects:
            masking.scores.register_post_accumulate_grad_hook(_averaged)  # type: ignore[no-untyped-call]
    if method.selects:  # DDP's buckets would keep the size that scores had before a selection
        selected = [one for one in masked_weights(model).values() if one.method.selects]
        mine = {id(tensor) for one in selected for tensor in (one.scores, *one.buffers())}
        named = (*model.named_parameters(), *model.named_buffers())
        model._ddp_params_and_buffers_to_ignore = [name for name, tensor in named if id(tensor) in mine]  # type: ignore[assignment]
    follow(list(masked_weights(model).values()))


def _averaged(scores: Tensor) -> None:
    """The mean of a gradient over all processes that torchrun started, for scores that DDP is to ignore."""
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        assert scores.grad is not None
        torch.distributed.all_reduce(scores.grad)
        scores.grad.div_(torch.distributed.get_world_size())


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


def places_of(model: nn.Module) -> dict[str, Tensor]:
    """Where the scores are that a selection left, by the masked parameter's name: int32."""
    return {n: one.places for n, one in masked_weights(model).items() if one.pinned and one.places is not None}


@torch.no_grad()
def pin_to(model: nn.Module, places: Mapping[str, Tensor]) -> None:
    """Pin all scores but those at these places, as ``places_of`` gives them."""
    for name, (one, weight) in with_weights(model).items():
        if name not in places:
            if places and one.pinned:
                raise _later(name)
            continue
        wanted = places[name].to(weight.device)
        if one.places is not None:
            if torch.equal(one.places, wanted):
                continue
            found = torch.searchsorted(one.places, wanted)
            if not len(one.places) or not torch.equal(one.places[found.clamp(max=len(one.places) - 1)], wanted):
                raise _later(name)
            wanted = found
        one.pin(weight, wanted.long())


def _later(name: str) -> TrainingError:
    return TrainingError(
        f"{name}: the model's scores were selected after this state was saved, or otherwise",
        hint="Load it into a model that is masked anew.",
    )


def with_weights(model: nn.Module) -> dict[str, tuple[MaskedWeight, Tensor]]:
    """The same as ``masked_weights``, each with the frozen weight that it masks."""
    found = {}
    for name, one in masked_weights(model).items():
        path, _, attribute = name.rpartition(".")
        parametrizations: Any = model.get_submodule(path).parametrizations
        found[name] = one, parametrizations[attribute].original
    return found


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
