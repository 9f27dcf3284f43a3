"""What a method does after each step of an optimizer: decay, limits, schedules, selection."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from maskhub.errors import TrainingError
from maskhub.training.masking import (
    MaskedWeight,
    check_sharing,
    follow,
    masked_weights,
    refuse_adapters,
    scores_of,
    whole,
)
from maskhub.training.methods import sparsity_at
from maskhub.training.model import maskset_of
from maskhub.training.selection import check_measure, mask_budget, rounds, select, selected


def attach(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int | None = None, step: int = 0) -> None:
    """From now on, what a model's method does after a step follows each step of ``optimizer``.

    That is the decay to the initial scores (L2-SP), the limits of ``sign``, the sparsity's schedule and penalty, and
    the selection of flips; without one of these ``attach`` does nothing. ``steps`` are all steps of the training,
    which a selection and a ``final_sparsity`` need; a decay that goes by the length is 0.007 without. ``step`` is how
    many are done. Raises TrainingError where the optimizer has no scores of the model, or ``steps`` is below 1.
    """
    refuse_adapters(model)
    masked = list(masked_weights(model).values())
    check_sharing(masked)
    if not masked or not masked[0].method.needs_steps:
        return
    progress, method = masked[0].progress, masked[0].method
    if steps is not None and steps < 1:
        raise TrainingError(
            f"attach: steps is {steps}", hint="Give all steps of the training, 1 or more, or leave it out."
        )
    if method.selects and not steps:
        raise TrainingError(
            "a selection of flips needs to know all steps of the training",
            hint="Tell them: attach(..., steps=N); or mask_model(..., keep_flips=1) selects none.",
        )
    if method.final_sparsity is not None and not steps:
        raise TrainingError("final_sparsity needs to know all steps of the training: attach(..., steps=N)")
    mine = {id(one.scores) for one in masked}
    if not any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
        raise TrainingError("the optimizer has no scores of the model", hint="Make it after mask_model.")
    progress.done, progress.total = step, steps

    selections = rounds(method, steps) if steps else []
    pairs = selected(model)
    if progress.budget is None and method.fits:
        progress.budget = mask_budget(pairs, maskset_of(model, None, {}, {}))  # type: ignore[arg-type]

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        group = next(g for g in optimizer.param_groups if any(id(p) in mine for p in g["params"]))
        rate, highest = float(group["lr"]), float(group.get("initial_lr", group["lr"]))
        if pairs and progress.done == step:  # told at once, not at the selection
            check_measure(pairs, optimizer)
        after_step(masked, rate, rate / highest if highest else 0.0)
        if progress.done in selections:
            left = len(selections) - selections.index(progress.done)
            select(pairs, optimizer, left, len(selections), progress.budget)

    if progress.hooked:  # on the optimizer of an earlier training
        progress.hooked.remove()
    progress.optimizer = weakref.ref(optimizer)
    progress.hooked = optimizer.register_step_post_hook(after)
    follow(masked)


@torch.no_grad()
def clip_grad_norm_(model: nn.Module, max_norm: float) -> Tensor:
    """Cut the norm of the scores' gradients to ``max_norm``, and that of all other gradients: each for itself.

    A new layer's gradients are large at first, and by one norm for all they would shorten the scores'. With a scaler of
    fp16, unscale first. Gives the norm of all before that. Raises TrainingError where ``max_norm`` is not above 0.
    """
    if not max_norm > 0:
        raise TrainingError(f"clip_grad_norm_: max_norm is {max_norm}", hint="Give one above 0, or leave it out.")
    mine = {id(score) for score in scores_of(model).values()}
    trained = [p for p in model.parameters() if p.grad is not None]
    groups = [[p for p in trained if id(p) in mine], [p for p in trained if id(p) not in mine]]
    norms = [whole(nn.utils.clip_grad_norm_(group, max_norm)) for group in groups if group]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.tensor(0.0)


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
        if decay and not one.pinned:
            one.decay(decay * share)
        if shift:
            one.scores.add_(shift)
        if not math.isinf(one.limit):
            one.scores.clamp_(-one.limit, one.limit)
    follow(masked)


class MaskCallback(TrainerCallback):
    """Lets transformers' Trainer do what a masked model's method does after each step, resumed runs included.

    ``max_grad_norm`` clips as ``clip_grad_norm_`` does, in place of the Trainer's own, which is to be 0 then.
    """

    def __init__(self, max_grad_norm: float | None = None) -> None:
        self._max_norm = max_grad_norm
        self._last = 0  # step after which flips are selected

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        if self._max_norm is not None and args.max_grad_norm:
            raise TrainingError(
                f"the Trainer itself clips all gradients together, at {args.max_grad_norm}",
                hint="Give its TrainingArguments max_grad_norm=0.",
            )
        if self._max_norm is not None and args.fp16:
            raise TrainingError("gradients of fp16 are scaled when this would clip them", hint="Train in bf16.")
        attach(model, getattr(optimizer, "optimizer", optimizer), state.max_steps, state.global_step)
        methods = {one.method for one in masked_weights(model).values()}
        self._last = max((step for method in methods for step in rounds(method, state.max_steps)), default=0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self._last:
            state.best_metric = state.best_model_checkpoint = state.best_global_step = None  # has scores that are gone

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if self._max_norm is not None:
            clip_grad_norm_(model, self._max_norm)
