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
from maskhub.errors import FormatError
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
        inside = f"{model_class(config).base_model_prefix}."
        common = {key: value for key, value in config.items() if key not in OF_THE_HEAD}
        own = maskset.id if any(name.startswith(inside) for name in maskset.dense) else None
        return json.dumps([common, own], sort_keys=True, default=str)

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
        for name in binding.tensors:
            found = model.get_parameter(binding.parameter(name))
            shared = self.weights.setdefault(name, found)
            if shared is not found:
                if shared.dtype != found.dtype:
                    raise FormatError(f"{name} is {shared.dtype} for one task and {found.dtype} for another")
                _replace(model, found, shared)
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
        of_base = {maskset.base.parameter(name): self.weights[name] for name in maskset.base.tensors}
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                _replace(model, parameter, of_base.get(name) or _head(name, parameter, first, maskset.dense))
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:
                place, _, leaf = name.rpartition(".")
                model.get_submodule(place)._buffers[leaf] = first.get_buffer(name)
        model.generation_config = getattr(first, "generation_config", None)
        return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


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
