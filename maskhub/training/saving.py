"""What ``save_pretrained`` writes of a masked model: the dense model that its masks make, which reloads as any other.

Where a Trainer saves, the scores stand beside it, so that a training can go on from there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from maskhub.training.masking import MaskedWeight, masked_weights, pin_to, whole


def save_dense(model: PreTrainedModel) -> None:
    """Let ``model.save_pretrained`` write the dense model, and a state with that and its scores be loaded."""
    # Bound to the model, so that a copy of it saves itself.
    model.save_pretrained = MethodType(_save_pretrained, model)  # type: ignore[method-assign]
    model.register_load_state_dict_pre_hook(_without_dense)  # type: ignore[no-untyped-call]


def _save_pretrained(model: PreTrainedModel, save_directory: Any, *given: Any, **options: Any) -> Any:
    """``PreTrainedModel.save_pretrained``. Trainers pass ``state_dict``, if None: theirs keeps the scores."""
    bound = inspect.signature(type(model).save_pretrained).bind(model, save_directory, *given, **options)
    state = bound.arguments.get("state_dict") or model.state_dict()
    bound.arguments["state_dict"] = dense_state(model, state, scores="state_dict" in options)
    return type(model).save_pretrained(*bound.args, **bound.kwargs)


@torch.no_grad()
def dense_state(model: nn.Module, state: Mapping[str, Tensor], *, scores: bool = False) -> dict[str, Tensor]:
    """A masked model's ``state_dict`` as that of the dense model; ``scores`` adds those, by their own keys."""
    found = {name: tensor for name, tensor in state.items() if ".parametrizations." not in name}
    for parameter, masked in masked_weights(model).items():
        weight, score, places = _keys(parameter)
        found[parameter] = _dense(masked, whole(state[weight]), whole(state[score]))
        if scores:
            found |= {key: state[key] for key in (score, places) if key in state}
    return found


def _dense(masked: MaskedWeight, weight: Tensor, scores: Tensor) -> Tensor:
    """The weight that a model evaluates with."""
    was = masked.training
    device = masked.scores.device
    try:
        masked.eval()
        # A copy of the weight: with a margin it is written to.
        found: Tensor = functional_call(masked, {"scores": scores.to(device)}, (weight.to(device, copy=True),))
        return found
    finally:
        masked.train(was)


def _without_dense(model: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state is loaded: take the dense weights out of it where scores stand beside them."""
    of_selection = {name: prefix + _keys(name)[2] for name in masked_weights(model)}
    pin_to(model, {name: state[place] for name, place in of_selection.items() if place in state})
    now = model.state_dict()
    for parameter in masked_weights(model):
        weight, score = _keys(parameter)[:2]
        if prefix + score in state and state.pop(prefix + parameter, None) is not None:
            state.setdefault(prefix + weight, now[weight])


def _keys(parameter: str) -> tuple[str, str, str]:
    """The keys in a masked model's state of a frozen weight, of its scores, and of their places."""
    path, _, attribute = parameter.rpartition(".")
    place = f"{path}.parametrizations.{attribute}"
    return f"{place}.original", f"{place}.0.scores", f"{place}.0.places"
