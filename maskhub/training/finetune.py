"""Plain finetuning by the same run: what masks are measured against, and what may follow a mask.

On top of a mask, the weights that it drops stay dropped, and all others are trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import OutputError, TrainingError, reason
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import MaskSet
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.atomic import sync_folder
from maskhub.storage.torch import to_torch
from maskhub.training.model import Origin, traced_to
from maskhub.training.processes import Say
from maskhub.training.run import MODEL
from maskhub.training.settings import TrainSettings
from maskhub.training.trainer import MaskTrainer

WEIGHT_DECAY = 0.01  # AdamW's, of all but biases and norms


def begin(
    model: PreTrainedModel,
    base: Checkpoint,
    head: set[str],
    task: Task,
    settings: TrainSettings,
    mask: MaskSet | None,
    say: Say,
) -> Origin:
    """Trace a model to its base, put the fixed ``mask`` on it, and let all of it be trained, in float32.

    ``head`` names the parameters that the base does not hold.
    """
    found, traced = traced_to(model, base, head)
    binding = BaseBinding.of(settings.base_name or base.name, {name: found[name] for name in traced}, traced, base.hub)
    model.float()  # type: ignore[no-untyped-call]
    if mask is not None:
        _fix(model, base, head, task, mask, str(settings.start_from), say)
    model.requires_grad_(True)
    trained = frozenset(name for name, _ in model.named_parameters())
    return Origin(binding, trained, settings, base.config(), trained & head)


class _Fixed:
    """Keeps a gradient from the weights that a mask drops: Adam leaves them at 0, and so does its weight decay."""

    def __init__(self, keep: Tensor) -> None:
        self._keep = keep

    def __call__(self, gradient: Tensor) -> Tensor:
        self._keep = self._keep.to(gradient.device)
        return torch.where(self._keep, gradient, 0)


@torch.no_grad()
def _fix(
    model: PreTrainedModel, base: Checkpoint, head: set[str], task: Task, mask: MaskSet, source: str, say: Say
) -> None:
    """Make a model the mask's, with its head where that is for the same task, and let what is dropped stay so."""
    parameters = dict(model.named_parameters())
    masks = {mask.base.parameter(name): one for name, one in mask.masks.items()}
    fixed = {name: one for name, one in masks.items() if name in parameters}
    if not fixed:
        raise TrainingError(f"{source}: masks no weight of {type(model).__name__}", hint="Name a mask for this task.")
    same = mask.task is not None and (mask.task.type, _labels(mask.task)) == (task.type, _labels(task))
    for name, tensor in dense.tensors(base, mask):
        parameter = parameters.get(name)
        if parameter is not None and parameter.shape == tensor.shape and (same or name in fixed or name not in head):
            parameter.copy_(to_torch(tensor))
    for name, one in fixed.items():
        parameters[name].register_hook(_Fixed(torch.from_numpy(one.to_bool())))  # type: ignore[no-untyped-call]
    begins = "begins as the mask's" if same else "a new one, as the mask is for another task"
    say(f"On top of {source}: {len(fixed)} of its {len(masks)} masks stay as they are; classifier: {begins}")


def _labels(task: Task) -> Any:
    return task.config.get("id2label")


class FinetuneTrainer(MaskTrainer):
    """AdamW on all parameters; those of the task's ``new`` layers have a rate of their own."""

    def __init__(self, *, new: frozenset[str], **options: Any) -> None:
        super().__init__(**options)
        self._new = new

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.masked)
            decayed = set(self.get_decay_parameter_names(self.masked))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.masked.named_parameters():
                groups.setdefault((name in self._new, name in decayed), []).append(parameter)
            rates, decays = (self.args.learning_rate, self._dense_rate), (0.0, WEIGHT_DECAY)
            self.optimizer = kind(
                [{"params": p, "lr": rates[new], "weight_decay": decays[decay]} for (new, decay), p in groups.items()],
                **options,
            )
        return self.optimizer

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return bool(Trainer._determine_best_metric(self, metrics, trial))


def save(model: PreTrainedModel, processor: Any, folder: Path) -> Path:
    """Write the dense checkpoint of a run, which appears when it is whole."""
    made, hidden = folder / MODEL, folder / f".{MODEL}"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        with quiet_transformers():
            model.save_pretrained(hidden)
            processor.save_pretrained(hidden)
        hidden.replace(made)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: how safetensors says that a disk is full
        shutil.rmtree(hidden, ignore_errors=True)
        raise OutputError(f"{made}: cannot be written: {reason(error)}") from error
    return made
