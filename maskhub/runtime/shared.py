"""One base's weights, held once, and task models that read them: each of the task's own class, with its own head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from maskhub.checkpoints.beside import LABELS, task_config
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError, listed
from maskhub.masks.mask import MaskSet
from maskhub.runtime.load import build_model, model_class
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
        self._first: dict[str, PreTrainedModel] = {}  # of each kind

    def is_new(self, maskset: MaskSet) -> bool:
        """Whether no model of the kind that a task needs was made yet."""
        return self._kind(task_config(self.base, maskset), maskset) not in self._first

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
            return self._another(self._first[kind], config, maskset)
        self._first[kind] = self._load(config, maskset)
        return self._first[kind]

    def _kind(self, config: dict[str, Any], maskset: MaskSet) -> str:
        """What models have in common that differ in their heads alone."""
        common = {key: value for key, value in config.items() if key not in OF_THE_HEAD}
        bound = {name: maskset.base.parameter(name) for name in maskset.base.tensors}
        own = maskset.id if _inside(config, maskset) else None
        return json.dumps([common, bound, own], sort_keys=True, default=str)

    def _load(self, config: dict[str, Any], maskset: MaskSet) -> PreTrainedModel:
        """A model of a new kind, as ``load_model`` makes it of the base; weights that are here already take no room."""
        binding = maskset.base
        state = {
            binding.parameter(name): self.weights[name].detach()
            if name in self.weights
            else to_torch(self.base.read(name))
            for name in binding.tensors
        }
        state |= {name: to_torch(tensor) for name, tensor in maskset.dense.items()}
        model = build_model(config, state, dtype=self._dtype, device=self._device)
        found = {}
        for name in binding.tensors:
            parameter = _parameter(model, binding.parameter(name))
            if parameter is None or parameter.shape != self.base.info(name).shape:
                if name in maskset:
                    raise FormatError(f"{name} is no parameter of {type(model).__name__}: it cannot be switched")
            elif name in self.weights and self.weights[name].dtype != parameter.dtype:
                raise FormatError(f"{name} is {self.weights[name].dtype} for one task, {parameter.dtype} for another")
            else:
                found[name] = parameter
        for name, parameter in found.items():
            if (shared := self.weights.setdefault(name, parameter)) is not parameter:
                _replace(model, parameter, shared)
        return model.requires_grad_(False)

    def _another(self, first: PreTrainedModel, config: dict[str, Any], maskset: MaskSet) -> PreTrainedModel:
        """A model like the first of its kind, from its parts and a new head."""
        kind: Any = type(first)
        with quiet_transformers(), torch.device("meta"):
            own = kind.config_class.from_dict(config)
            own._attn_implementation = first.config._attn_implementation
            own.return_dict = True
            model = kind(own)
        prefix = kind.base_model_prefix
        if isinstance(getattr(first, prefix, None), nn.Module):
            setattr(model, prefix, getattr(first, prefix))
        model.tie_weights()
        of_base = {maskset.base.parameter(n): self.weights[n] for n in maskset.base.tensors if n in self.weights}
        if unknown := sorted(maskset.dense.keys() - dict(model.named_parameters(remove_duplicate=False)).keys()):
            raise FormatError(f"the mask does not fit {kind.__name__}: parameters unknown: {listed(unknown)}")
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                new = of_base[name] if name in of_base else _head(name, parameter, first, maskset.dense)
                _replace(model, parameter, new)
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:
                place, _, leaf = name.rpartition(".")
                model.get_submodule(place)._buffers[leaf] = first.get_buffer(name)
        model.generation_config = getattr(first, "generation_config", None)
        return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _inside(config: dict[str, Any], maskset: MaskSet) -> bool:
    """Whether a task has tensors of its own in what tasks share."""
    return any(name.startswith(f"{model_class(config).base_model_prefix}.") for name in maskset.dense)


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    try:
        return model.get_parameter(name)
    except AttributeError:
        return None


def _head(name: str, parameter: torch.Tensor, first: PreTrainedModel, dense: Mapping[str, RawTensor]) -> nn.Parameter:
    if name not in dense:
        raise FormatError(f"the mask does not fit {type(first).__name__}: it has no {name}")
    like, found = first.get_parameter(name), to_torch(dense[name])
    if found.shape != parameter.shape:
        raise FormatError(
            f"the mask does not fit {type(first).__name__}: {name} has the shape {list(found.shape)}, "
            f"not {list(parameter.shape)}"
        )
    return nn.Parameter(found.to(device=like.device, dtype=like.dtype), requires_grad=False)


def _replace(model: nn.Module, old: torch.Tensor, new: nn.Parameter) -> None:
    """Put a parameter into every place that another one has, as tied weights have several."""
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[leaf] = new
