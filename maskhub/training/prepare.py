"""A task model on a base, ready to learn a mask: loaded, traced to the base's tensors, masked."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from maskhub.checkpoints.checkpoint import Checkpoint, for_transformers, refuse_quantised
from maskhub.checkpoints.pruned import task_type
from maskhub.errors import ArgumentError, CheckpointError, OutOfMemoryError, TrainingError, out_of_memory, reason
from maskhub.masks.binding import Task
from maskhub.masks.mask import MaskSet
from maskhub.masks.names import ORDER, locate
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.tensor import FLOATS
from maskhub.tasks.task import TaskType
from maskhub.training.finetune import begin
from maskhub.training.model import Origin, inner_weights, mask_on_base, task_layers
from maskhub.training.plan import size
from maskhub.training.processes import Say
from maskhub.training.settings import TrainSettings


def prepare(
    base: Checkpoint,
    kind: TaskType,
    labels: tuple[str, ...],
    processor: Any,
    settings: TrainSettings,
    say: Say,
    fixed: MaskSet | None = None,
) -> tuple[PreTrainedModel, Origin, Task]:
    """Load a model for ``kind`` and its classes ``labels`` on the base, and mask what ``settings`` say.

    A finetuning masks nothing, but what ``fixed`` drops. ``processor`` is the tokenizer or image processor. Raises
    CheckpointError where the base cannot be loaded so, TrainingError where a parameter cannot be traced to it or the
    method does not fit it, ArgumentError for settings.
    """
    if not kind.images and processor.pad_token_id is None:
        raise CheckpointError(f"{base.name}: its tokenizer has no token to pad with, and none that ends a text")
    changes = kind.config(labels)
    model, head = _load(base, kind, changes, processor, settings, say)
    if not kind.images:
        _check_lengths(model, base, processor, settings)
    architecture = type(model).__name__
    task = Task(task_type(architecture), architecture, changes, max_length=None if kind.images else settings.max_length)
    if settings.method == "finetune":
        return model, begin(model, base, head, task, settings, fixed, say), task
    inner = inner_weights(model, head) if settings.classifier == "dense" else []
    whole = {name: model.get_parameter(name).nbytes for name in inner}
    origin = mask_on_base(model, base, head, settings, settings.base_name)
    of_base = {origin.binding.parameter(name): name for name in origin.binding.tensors}
    for name in inner:
        if name in of_base:
            say(f"Classifier: {name} is the base's {of_base[name]}, and masked")
        else:
            say(f"Classifier: {name} travels whole, {size(whole[name])}: the base has no matrix of its shape to spare")
    return model, origin, task


def _load(
    base: Checkpoint, kind: TaskType, changes: dict[str, Any], processor: Any, settings: TrainSettings, say: Say
) -> tuple[PreTrainedModel, set[str]]:
    """The task model with the base's weights, and the names of its parameters that travel with the mask.

    ``changes`` are those of the base's configuration; the token to pad with is added where the base names none.
    """
    refuse_quantised(base)
    with quiet_transformers(), for_transformers(base) as folder:
        try:
            config = AutoConfig.from_pretrained(folder, **changes)
            if kind.type == "text-generation" and getattr(config, "is_decoder", True) is False:
                raise ValueError("it reads each text in both directions")
            if not kind.images and getattr(config, "pad_token_id", None) is None:
                changes["pad_token_id"] = config.pad_token_id = processor.pad_token_id
            config.return_dict = True
            model, loading = getattr(transformers, kind.model).from_pretrained(
                folder, config=config, dtype=_dtype(base), output_loading_info=True, ignore_mismatched_sizes=True
            )
            model.config._name_or_path = str(base.folder)
        except (OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise OutOfMemoryError(f"{base.name}: not enough memory for its model") from error
            why = reason(error).replace(str(folder), base.name)
            raise CheckpointError(f"{base.name}: cannot be loaded for {kind.name}: {why}") from error
    missing, layers = set(loading["missing_keys"]), task_layers(model, base)
    misfits = {name: shapes for name, *shapes in loading["mismatched_keys"]}
    if lacking := sorted(name for name in missing if _in_a_layer(name)):
        raise TrainingError(
            f"{base.name}: holds no {lacking[0]}, which {type(model).__name__} needs",
            hint="A mask needs a base that holds all layers of the task's model.",
        )
    if settings.keep_head and (not layers or layers & (missing | misfits.keys())):
        raise ArgumentError(
            f"training settings: keep_head: {base.name} has no layer for {kind.name}"
            + (f" with {len(changes['id2label'])} labels" if misfits and "id2label" in changes else ""),
            hint="Leave it out: the task gets a new one.",
        )
    if wrong := sorted(misfits.keys() - layers):
        there, wanted = (list(shape) for shape in misfits[wrong[0]])
        raise CheckpointError(
            f"{base.name}: {wrong[0]} has the shape {there}, and its config.json says {wanted}",
            hint="The folder's weights and config.json are not of one model.",
        )
    if settings.keep_head:
        say("Classifier: begins as the base's own")
    elif held := layers - missing:
        if not held <= misfits.keys():
            _make_anew(model)
        say("Classifier: a new one; the base's own is left out (--keep-head begins with it)")
    return model, missing | layers


def _dtype(base: Checkpoint) -> torch.dtype:
    """That of most of the base's floating-point numbers, whatever its configuration says."""
    sizes: Counter[str] = Counter()
    for name in base:
        sizes[base.info(name).dtype] += base.info(name).size
    found = next((dtype for dtype, _ in sizes.most_common() if dtype in FLOATS), "F32")
    dtype: torch.dtype = getattr(torch, FLOATS[found])
    return dtype


def _make_anew(model: PreTrainedModel) -> None:
    """Give the task's layers the values that they have in a model without a checkpoint."""
    for name, layer in model.named_children():
        if name != model.base_model_prefix:
            for parameter in layer.parameters():
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            layer.apply(model._init_weights)


def _check_lengths(model: PreTrainedModel, base: Checkpoint, tokenizer: Any, settings: TrainSettings) -> None:
    """Texts must fit the model's positions, and tokens its embeddings."""
    limit = _reads_at_most(model)
    if limit is not None and settings.max_length > limit:
        raise ArgumentError(
            f"training settings: max_length: {settings.max_length}: {base.name} reads at most {limit} tokens",
            hint=f"Give --max-length {limit} or less.",
        )
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= rows:
        raise CheckpointError(
            f"{base.name}: its tokenizer has tokens up to {highest} ({token!r}), and the model embeds {rows}",
            hint="Make the base anew: model.resize_token_embeddings(len(tokenizer)), then save both.",
        )


def _in_a_layer(parameter: str) -> bool:
    layer, kind = locate(parameter)
    return layer is not None and kind in ORDER


def _reads_at_most(model: PreTrainedModel) -> int | None:
    """Tokens that fit the model's positions; RoBERTa's begin after the padding's."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    most = getattr(model.config, "max_position_embeddings", None)
    return most if most and most > 0 else None  # XLNet says -1
