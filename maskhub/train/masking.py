"""Masking a model's weights while it trains, after Zhao et al. 2020 (arXiv 2004.12406), section 3.

A masked weight is computed by a parametrization: no module is replaced. The model's own weight stays frozen; a
score of the same shape is trained in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from maskhub.scores import UniformScores


class _Threshold(torch.autograd.Function):
    """``weight`` where ``scores > threshold``, else +0; the gradient of the mask goes to the scores unchanged."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, threshold: float) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.where(scores > threshold, weight, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (weight,) = ctx.saved_tensors
        return None, gradients[0] * weight, None


class MaskedWeight(nn.Module):
    """Parametrization that drops the weights whose score is at or under ``threshold``."""

    def __init__(self, scores: Tensor, threshold: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.threshold = threshold

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, of the weight's shape and dtype."""
        masked: Tensor = _Threshold.apply(weight, self.scores, self.threshold)  # type: ignore[no-untyped-call]
        return masked


def mask_model(model: nn.Module, names: Mapping[str, str], init: UniformScores, threshold: float) -> None:
    """Freeze ``model`` and put scores on some of its weights.

    ``names`` maps parameter names of the model (``bert.encoder...query.weight``) to the names that key the initial
    scores. Afterwards only scores require a gradient.
    """
    model.requires_grad_(False)
    for parameter, key in names.items():
        path, _, attribute = parameter.rpartition(".")
        module = model.get_submodule(path)
        weight = getattr(module, attribute)
        scores = torch.from_numpy(init.scores(key, tuple(weight.shape))).to(weight.device)
        parametrize.register_parametrization(module, attribute, MaskedWeight(scores, threshold))


def scores_of(model: nn.Module) -> dict[str, Tensor]:
    """The scores of a masked model, by the masked parameter's name."""
    return {
        f"{path}.{attribute}" if path else attribute: parametrizations[0].scores
        for path, module in model.named_modules()
        if parametrize.is_parametrized(module)
        for attribute, parametrizations in module.parametrizations.items()
        if isinstance(parametrizations[0], MaskedWeight)
    }


def plain_name(name: str) -> str:
    """A state-dict key of a masked model, as the unmasked model calls the weight."""
    return name.replace(".parametrizations.", ".").removesuffix(".original")
