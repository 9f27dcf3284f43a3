"""A task model on a base, ready to learn a mask: loaded, traced to the base's tensors, masked."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import task_type
from maskhub.errors import ArgumentError, CheckpointError, TrainingError, reason
from maskhub.masks.binding import Task
from maskhub.masks.names import ORDER, locate
from maskhub.runtime.quiet import quiet_transformers
from maskhub.tasks.task import TaskType
from maskhub.training.model import Origin, mask_on_base
from maskhub.training.settings import TrainSettings


def prepare(
    base: Checkpoint, kind: TaskType, labels: tuple[str, ...], processor: Any, settings: TrainSettings
) -> tuple[PreTrainedModel, Origin, Task]:
    """Load a model for ``kind`` and its classes ``labels`` on the base, and mask what ``settings`` say.

    ``processor`` is the tokenizer or image processor. Raises CheckpointError where the base cannot be loaded so,
    TrainingError where a parameter cannot be traced to it or the method does not fit it, ArgumentError for settings.
    """
    if not kind.images and processor.pad_token_id is None:
        raise CheckpointError(f"{base.name}: its tokenizer has no token to pad with, and none that ends a text")
    changes = kind.config(labels)
    model, head = _load(base, kind, changes, processor, settings)
    origin = mask_on_base(model, base, head, settings, settings.base_name)
    architecture = type(model).__name__
    task = Task(task_type(architecture), architecture, changes, max_length=None if kind.images else settings.max_length)
    return model, origin, task


def _load(
    base: Checkpoint, kind: TaskType, changes: dict[str, Any], processor: Any, settings: TrainSettings
) -> tuple[PreTrainedModel, set[str]]:
    """The task model with the base's weights, and the names of its parameters that the base does not hold.

    ``changes`` are those of the base's configuration; the token to pad with is added where the base names none.
    """
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(base.folder, **changes)
            if kind.type == "text-generation" and getattr(config, "is_decoder", True) is False:
                raise ValueError("it reads each text in both directions")
            if not kind.images and getattr(config, "pad_token_id", None) is None:
                changes["pad_token_id"] = config.pad_token_id = processor.pad_token_id
            model, loading = getattr(transformers, kind.model).from_pretrained(
                base.folder, config=config, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{base.name}: cannot be loaded for {kind.name}: {reason(error)}") from error
    head = set(loading["missing_keys"])
    if lacking := sorted(name for name in head if _in_a_layer(name)):
        raise TrainingError(
            f"{base.name}: holds no {lacking[0]}, which {type(model).__name__} needs",
            hint="A mask needs a base that holds all layers of the task's model.",
        )
    limit = None if kind.images else _reads_at_most(model)
    if limit is not None and settings.max_length > limit:
        raise ArgumentError(
            f"training settings: max_length: {settings.max_length}: {base.name} reads at most {limit} tokens",
            hint=f"Give --max-length {limit} or less.",
        )
    return model, head


def _in_a_layer(parameter: str) -> bool:
    layer, kind = locate(parameter)
    return layer is not None and kind in ORDER


def _reads_at_most(model: PreTrainedModel) -> int | None:
    """Tokens that fit the model's positions; RoBERTa's begin after the padding's."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(model.config, "max_position_embeddings", None)
