"""The recipe ``paper`` beside a loop written anew from Zhao et al. 2020, with nothing of MaskHub's in it but draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch import nn

import maskhub.training as learning
from maskhub.training.masking import masks_of, scores_of
from tests.training.test_train_methods import own_model, rows_of

STEPS, RATE, THRESHOLD = 20, 1e-3, 1e-2


class Threshold(torch.autograd.Function):
    """1 where a score is above the threshold; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
        return (scores > THRESHOLD).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class Masked(nn.Module):
    """A linear layer whose weights are multiplied by a mask of its scores."""

    def __init__(self, layer: nn.Linear, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores.clone())
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mask: torch.Tensor = Threshold.apply(self.scores)  # type: ignore[no-untyped-call]
        return nn.functional.linear(inputs, self.weight * mask, self.bias)  # type: ignore[operator, arg-type]


def test_scores_masks_and_losses_are_those_of_a_loop_written_anew(bert: Path, task: Path) -> None:
    rows = rows_of(bert, task)
    ours, theirs = own_model(bert).eval(), own_model(bert).eval()  # without dropout
    learning.mask_model(ours, recipe="paper")
    first = {name: scores.detach().clone() for name, scores in scores_of(ours).items()}
    for name, scores in first.items():
        path = name.removesuffix(".weight")
        parent, _, leaf = path.rpartition(".")
        setattr(theirs.get_submodule(parent), leaf, Masked(theirs.get_submodule(path), scores))
    theirs.requires_grad_(False)
    layers = {name: part for name, part in theirs.named_modules() if isinstance(part, Masked)}
    for layer in layers.values():
        layer.scores.requires_grad_(True)
    optimizers = [
        torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE) for model in (ours, theirs)
    ]
    learning.attach(ours, optimizers[0], steps=STEPS)
    for step in range(STEPS):
        start = 8 * step % 40
        losses = []
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            loss = model(**rows[start : start + 8]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        assert torch.equal(*losses), step
    masks = masks_of(ours)
    for name, scores in scores_of(ours).items():
        same = layers[name.removesuffix(".weight")].scores
        assert torch.equal(scores, same), name
        assert not torch.equal(scores, first[name])
        assert (masks[name].to_bool() == (same > THRESHOLD).numpy()).all()
