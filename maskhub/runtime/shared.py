"""One base's weights, held once, and task models that read them: each of the task's own class, with its own head."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from maskhub.checkpoints.beside import COUNTS, LABELS, task_config
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError, listed, reason
from maskhub.masks.mask import MaskSet
from maskhub.runtime.dropped import words
from maskhub.runtime.load import build_model, model_class
from maskhub.runtime.mixed import encoder_of
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import to_torch

# Keys of a configuration in which tasks of one kind differ: only the head depends on them.
OF_THE_HEAD = {*LABELS, "maskhub", "problem_type", "finetuning_task"}


class Shared:
    """A base's weights in memory, by its tensors' names, and the models that share them.

    Weights are as ``load_model`` has them: in the dtype that transformers takes for the base, or in ``dtype``.
    """

    def __init__(self, base: Checkpoint, *, device: torch.device | str | None, dtype: torch.dtype | str | None) -> None:
        self.base = base
        self.weights: dict[str, nn.Parameter] = {}
        self._device, self._dtype = device, dtype
        # Of each kind the first model, and the base's tensors that its parameters are.
        self._first: dict[str, tuple[PreTrainedModel, dict[str, str]]] = {}
        # Of each kind, and number of labels, its parameters: the shapes of those that are a task's own, and else None.
        self._shapes: dict[tuple[str, str], dict[str, tuple[int, ...] | None]] = {}
        self._tied: dict[str, str] = {}  # tensors of the base that are one parameter with another one

    def clear(self) -> None:
        """Let go of all weights and models."""
        for kept in (self.weights, self._first, self._shapes, self._tied):
            kept.clear()

    def weight(self, tensor: str) -> str:
        """The name of the weight that a base's tensor is: its own, or that of one that it is tied to."""
        return tensor if tensor in self.weights else self._tied[tensor]

    def check(self, maskset: MaskSet) -> bool:
        """Whether a model of the kind that a task needs was made before. Then FormatError where this task does not fit.

        That is told without making its model.
        """
        config = task_config(self.base, maskset)
        kind = self._kind(config, maskset)
        if kind not in self._first:
            return False
        first, bound = self._first[kind]
        _check_bound(maskset, bound, first)
        key = kind, json.dumps({key: _count(config[key]) for key in sorted(COUNTS & config.keys())})
        if key not in self._shapes:
            blank = _blank(first, config)
            own = ((n, p) for n, p in blank.named_parameters() if p.is_meta and n not in bound)
            names = dict.fromkeys(name for name, _ in blank.named_parameters(remove_duplicate=False))
            self._shapes[key] = names | {name: tuple(parameter.shape) for name, parameter in own}
        _check_head(maskset, self._shapes[key], type(first))
        return True

    def forget(self, maskset: MaskSet) -> None:
        """Let go of a task's own kind, if it has one."""
        config = task_config(self.base, maskset)
        if _inside(config, maskset):
            self._first.pop(self._kind(config, maskset), None)

    def model(self, maskset: MaskSet) -> PreTrainedModel:
        """A task's model: head and configuration are its own, all else is shared with the other models of its kind."""
        config = task_config(self.base, maskset)
        kind = self._kind(config, maskset)
        if kind in self._first:
            return self._another(*self._first[kind], config, maskset)
        self._first[kind] = self._load(config, maskset)
        return self._first[kind][0]

    def _kind(self, config: dict[str, Any], maskset: MaskSet) -> str:
        """What models have in common that differ in their heads alone."""
        common = {key: value for key, value in config.items() if key not in OF_THE_HEAD}
        bound = {name: maskset.base.parameter(name) for name in maskset.base.tensors}
        own = maskset.id if _inside(config, maskset) else None
        return json.dumps([common, bound, own], sort_keys=True, default=str)

    def _load(self, config: dict[str, Any], maskset: MaskSet) -> tuple[PreTrainedModel, dict[str, str]]:
        """A model of a new kind, as ``load_model`` makes it of the base; weights that are here already take no room."""
        binding = maskset.base
        state = {
            binding.parameter(name): self.weights[name].detach()
            if name in self.weights
            else to_torch(self.base.read(name))
            for name in binding.tensors
        }
        state |= {name: to_torch(tensor) for name, tensor in maskset.dense.items()}
        model = build_model(config, {**state}, dtype=self._dtype, device=self._device)
        found = _places(model, state, maskset)
        _check_bound(maskset, found, model)
        for place, name in found.items():
            if name in self.weights and self.weights[name].dtype != (dtype := model.get_parameter(place).dtype):
                raise FormatError(f"{name} is {self.weights[name].dtype} for one task, and {dtype} for another")
        known = {id(weight): name for name, weight in self.weights.items()}
        for place, name in found.items():
            parameter = model.get_parameter(place)
            if name in self.weights:
                _replace(model, parameter, self.weights[name])
            elif (other := known.setdefault(id(parameter), name)) == name:
                self.weights[name] = parameter
            else:
                self._tied[name] = other
        if (encoder := encoder_of(model)) is not None:  # the task's own is its head's alone
            own: Any = model.config
            shared: Any = copy.deepcopy(own)
            for module in encoder.modules():
                if getattr(module, "config", None) is own:
                    module.config = shared
        return model.requires_grad_(False), found

    def _another(
        self, first: PreTrainedModel, bound: Mapping[str, str], config: dict[str, Any], maskset: MaskSet
    ) -> PreTrainedModel:
        """A model like the first of its kind, from its parts and a new head."""
        model = _blank(first, config)
        of_base = {place: self.weights[self.weight(tensor)] for place, tensor in bound.items()}
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                new = of_base[name] if name in of_base else _head(maskset.dense[name], first.get_parameter(name))
                _replace(model, parameter, new)
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:
                place, _, leaf = name.rpartition(".")
                model.get_submodule(place)._buffers[leaf] = first.get_buffer(name)
        return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _inside(config: dict[str, Any], maskset: MaskSet) -> bool:
    """Whether a task has tensors of its own in what tasks share."""
    return any(name.startswith(f"{model_class(config).base_model_prefix}.") for name in maskset.dense)


def _places(model: PreTrainedModel, state: Mapping[str, torch.Tensor], maskset: MaskSet) -> dict[str, str]:
    """By parameters of a model the base's tensors that they are, bit for bit; without those of which that is not sure.

    transformers may have renamed them.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, str] = {}
    for name in maskset.base.tensors:
        told = maskset.base.parameter(name)
        others = (place for place in parameters if place not in state and place not in found)
        fits = [place for place in (told, *others) if place in parameters and _same(parameters[place], state[told])]
        if len(fits) == 1 or told in fits:
            found[fits[0]] = name
    return found


def _check_bound(maskset: MaskSet, bound: Mapping[str, str], model: PreTrainedModel) -> None:
    """FormatError for masked tensors that are no parameters of the model, or one that is masked in two ways."""
    if lost := sorted(maskset.keys() - bound.values()):
        raise FormatError(f"no parameter of {type(model).__name__}, as transformers loads it: {listed(lost)}")
    named: dict[int, str] = {}
    for place, name in bound.items():
        other = named.setdefault(id(model.get_parameter(place)), name)
        if maskset.get(other) != maskset.get(name):
            raise FormatError(
                f"{other} and {name} are one parameter of {type(model).__name__}, and the mask differs in them"
            )


def _same(parameter: torch.Tensor, tensor: torch.Tensor) -> bool:
    if parameter.shape != tensor.shape:
        return False
    return torch.equal(words(parameter), words(tensor.to(device=parameter.device, dtype=parameter.dtype)))


def _blank(first: PreTrainedModel, config: dict[str, Any]) -> Any:
    """A model like the first of its kind, which has its parts; of its own is a head without values."""
    kind: Any = type(first)
    with quiet_transformers(), torch.device("meta"):
        try:
            own = kind.config_class.from_dict(config)
            own._attn_implementation = first.config._attn_implementation
            own.return_dict = True
            model = kind(own)
        except Exception as error:  # transformers and torch raise many kinds for a configuration that cannot be
            raise FormatError(f"the mask does not fit {kind.__name__}: {reason(error)}") from error
    prefix = kind.base_model_prefix
    if isinstance(getattr(first, prefix, None), nn.Module):
        setattr(model, prefix, getattr(first, prefix))
    model.tie_weights()
    return model


def _check_head(maskset: MaskSet, shapes: Mapping[str, tuple[int, ...] | None], kind: type) -> None:
    """FormatError where a mask's dense tensors are not those that the model of its task has beside the base's."""
    fault = f"the mask does not fit {kind.__name__}"
    if unknown := sorted(maskset.dense.keys() - shapes.keys()):
        raise FormatError(f"{fault}: parameters unknown: {listed(unknown)}")
    for name, shape in shapes.items():
        if shape is not None and name not in maskset.dense:
            raise FormatError(f"{fault}: it has no {name}")
        if shape is not None and (found := maskset.dense[name].shape) != shape:
            raise FormatError(f"{fault}: {name} has the shape {list(found)}, not {list(shape)}")


def _count(labels: Any) -> Any:
    return len(labels) if isinstance(labels, dict | list) else labels


def _head(tensor: RawTensor, like: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(to_torch(tensor).to(device=like.device, dtype=like.dtype), requires_grad=False)


def _replace(model: nn.Module, old: torch.Tensor, new: nn.Parameter) -> None:
    """Put a parameter into every place that another one has, as tied weights have several."""
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[leaf] = new
