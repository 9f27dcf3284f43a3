"""Masks for a model in anyone's own training: ``mask_model``, ``attach`` or ``MaskCallback``, and ``pack``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor, nn
from transformers import PreTrainedModel

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint, refuse_quantised
from maskhub.checkpoints.match import common_tail
from maskhub.checkpoints.pruned import task_of, task_type
from maskhub.checkpoints.scan import digests
from maskhub.container import codecs, writer
from maskhub.container.manifest import Manifest
from maskhub.errors import ArgumentError, TrainingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage.torch import dtype_names, from_torch, to_torch
from maskhub.training.layers import check_layers, maskable, select
from maskhub.training.masking import add_scores, masks_of, plain_name, refuse_adapters, whole
from maskhub.training.methods import known_start
from maskhub.training.run import learned
from maskhub.training.saving import save_dense
from maskhub.training.selection import fit_masks, selected
from maskhub.training.settings import Method, method_from
from maskhub.training.trace import trace

WITH_LAYERS = {
    "text-classification", "token-classification", "multiple-choice", "image-classification", "question-answering",
}  # fmt: skip
# How the names of classes end that models are pretrained as.
PRETRAINED = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForPreTraining")
KEPT_AS = "_maskhub"  # the attribute of a masked model that says what it belongs to


@dataclass(frozen=True)
class Origin:
    """What a masked model belongs to; ``head`` names its parameters that travel whole, of which some are ``new``."""

    binding: BaseBinding
    head: frozenset[str]
    method: Method
    base_config: dict[str, Any]
    new: frozenset[str] = frozenset()

    @property
    def initial(self) -> Initial | None:
        """The mask that training begins with, where draws alone tell it."""
        return known_start(self.method)


def mask_model(
    model: PreTrainedModel,
    base: str | Path | Checkpoint | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    recipe: str = "default",
    **method: Any,
) -> None:
    """Freeze a model and put scores on its weights, ready for any training loop or Trainer.

    ``base`` is the checkpoint that the model was loaded from, a folder or a Hub id; by default the one its
    configuration names. The task's own layer (a classifier, also one that the base holds) is trained, or with
    ``classifier="masked"`` masked as well; layers before it are filled with matrices of their shapes that the base has
    to spare, and masked. The model may be in ``torch.compile``, DataParallel or DDP. ``method`` are
    fields of ``maskhub.training.settings.Method``, in place of the recipe's::

        model = AutoModelForSequenceClassification.from_pretrained("user/base")
        maskhub.training.mask_model(model)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=4e-3, betas=(0.9, 0.95))
        maskhub.training.attach(model, optimizer, steps=1000)  # a Trainer: callbacks=[maskhub.training.MaskCallback()]
        ...  # train as ever
        maskhub.training.pack(model, "task.msk")

    Raises TrainingError where a parameter cannot be traced to the base, or the method does not fit the model, and
    ArgumentError for a method that cannot be.
    """
    model = unwrapped(model)
    if hasattr(model, KEPT_AS):
        raise TrainingError("the model is masked already")
    asked = method_from(recipe=recipe, **method)
    if not isinstance(base, Checkpoint):
        source = base or model.config._name_or_path
        if not source:
            raise TrainingError("the model names no base", hint="Pass base=..., a folder or a Hub id.")
        base = open_checkpoint(source, revision=revision, token=token)
    known = set(base)
    # A parameter is the base's where one of its tensors has the same name, with or without the model's prefix.
    head = {n for n in model.state_dict() if n not in known and n.partition(".")[2] not in known}
    head = {n for n in head if not any(f"{model.base_model_prefix}.{n}" == one for one in known)}
    state = model.state_dict()
    of_base = {tensor.data_ptr() for name, tensor in state.items() if name not in head}
    head = {name for name in head if state[name].data_ptr() not in of_base}  # one that is tied is stored once
    mask_on_base(model, base, head | task_layers(model, base), asked)


def unwrapped(model: Any) -> Any:
    """The model inside what ``torch.compile``, DataParallel, DDP or accelerate put around it.

    Raises TrainingError for what is no model of transformers, or has an adapter of PEFT's on it.
    """
    from accelerate.utils import extract_model_from_parallel

    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    refuse_adapters(model)
    if not isinstance(model, PreTrainedModel):
        raise TrainingError(
            f"{type(model).__name__} is no model of transformers",
            hint="Of a SentenceTransformer, take model[0].auto_model.",
        )
    return model


def task_layers(model: PreTrainedModel, base: Checkpoint) -> set[str]:
    """The parameters of the layers that a task's class puts on the model's body, also where the base has such.

    What a base was pretrained with outside its body (``PRETRAINED``) is its own.
    """
    body, of_base = model.base_model_prefix, base.config().get("architectures")
    first = str(of_base[0]) if isinstance(of_base, list) and of_base else ""
    if task_type(type(model).__name__) not in WITH_LAYERS or first.endswith(PRETRAINED) or not hasattr(model, body):
        return set()
    return {name for name in model.state_dict() if not name.startswith(f"{body}.")}


def mask_on_base(
    model: PreTrainedModel, base: Checkpoint, head: set[str], method: Method, base_name: str | None = None
) -> Origin:
    """Trace a model to its base, mask it, and let what the method trains besides be trained.

    ``head`` names the parameters that the base does not hold.
    """
    found, traced = traced_to(model, base, head)
    inner = _from_spare(model, base, head, traced) if method.classifier == "dense" else {}
    head, traced = head - inner.keys(), traced | {name: parameter for parameter, name in inner.items()}
    keys = {parameter: name for name, parameter in traced.items()}
    trained = _trained(model, method) & set(keys)
    weights = maskable(model, keys)
    check_layers(model, weights)
    names = {p: keys[p] for p in select(weights, method)}
    if method.classifier == "masked":
        names |= {p: p for p in maskable(model, head)}
    names |= {p: keys[p] for p in maskable(model, inner)}
    binding = BaseBinding.of(
        base_name or base.name,
        {name: found[name] for name, parameter in traced.items() if parameter not in trained},
        traced,
        base.hub,
    )
    add_scores(model, names, method, head | (inner.keys() if method.structure == "heads" else set()))
    for parameter in trained | (head if method.classifier == "dense" else set()):
        model.get_parameter(parameter).requires_grad_(True)
    origin = Origin(binding, frozenset(head | trained), method, base.config())
    setattr(model, KEPT_AS, origin)
    save_dense(model)
    return origin


def traced_to(model: PreTrainedModel, base: Checkpoint, head: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The digests of a base's tensors, and of those that are parameters of the model, but for ``head``, which."""
    refuse_quantised(base)
    found = digests(base)
    state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in head}
    try:
        return found, trace(state.items(), found, base.name)
    except TrainingError as error:
        own = {dtype_names()[tensor.dtype] for tensor in state.values() if tensor.is_floating_point()}
        if own == base.floats:
            raise
        raise TrainingError(
            f"{error.message}: it is stored in {' and '.join(sorted(base.floats))}, and loaded in "
            f"{' and '.join(sorted(own))}",
            hint="Load it with the dtype that it is stored in; where that is several, save it in one first.",
        ) from error


def inner_weights(model: nn.Module, head: Collection[str]) -> list[str]:
    """The matrices of the task's new layers that give no answer: all but the last, as ``pre_classifier.weight``."""
    return list(maskable(model, head))[:-1]


def _from_spare(model: nn.Module, base: Checkpoint, head: set[str], traced: Collection[str]) -> dict[str, str]:
    """Fill the task's inner layers with base tensors that the task does not read, and say which these are.

    A mask of such a layer is small, where a layer that the base does not hold travels whole. Checkpoints have them
    from their pretraining: the transform before the vocabulary, or a pooler.
    """
    found: dict[str, str] = {}
    for weight in inner_weights(model, head):
        names = [name for name in (weight, f"{weight.removesuffix('weight')}bias") if name in head]
        layer = {name: model.get_parameter(name) for name in names}
        spare = [one for one in sorted(base) if one.endswith("weight") and one not in (*traced, *found.values())]
        fitting: list[dict[str, str]] = []
        for one in spare:
            pairs = {name: f"{one.removesuffix('weight')}{name.rpartition('.')[2]}" for name in names}
            if all(
                other in base
                and base.info(other).shape == tuple(layer[name].shape)
                and base.info(other).dtype == dtype_names()[layer[name].dtype]
                for name, other in pairs.items()
            ):
                fitting.append(pairs)
        if fitting:
            best = max(fitting, key=lambda pairs: common_tail(pairs[weight], weight))
            for name, other in best.items():
                layer[name].data.copy_(to_torch(base.read(other)))
            found |= best
    return found


def _trained(model: nn.Module, method: Method) -> set[str]:
    """The biases and the parameters of norms, where the method trains them."""
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if type(module).__name__.endswith("Norm")
        for name, _ in module.named_parameters(recurse=False)
    }
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")} - norms
    return (norms if method.train_norms else set()) | (biases if method.train_biases else set())


def pack(
    model: PreTrainedModel,
    path: str | Path,
    *,
    max_length: int | None = None,
    metrics: Mapping[str, float] | None = None,
    lineage: Mapping[str, Any] | None = None,
    codec: str = codecs.AUTO,
) -> Manifest:
    """Write the mask that a model of ``mask_model`` evaluates with, and what was trained besides, to ``path``.

    The task is told by the model's class and configuration (labels); ``max_length`` is the length in tokens that
    examples are cut to. Where the method has a size or bits, the flips that matter least are undone, in the model too,
    until the file fits: by their measure, or where no optimizer is attached by their distance past the threshold.
    Raises TrainingError where the model is not masked.
    """
    given = max_length, metrics or {}, lineage or {}
    maskset = maskset_of(model, *given)
    if pairs := selected(unwrapped(model)):
        if pairs[0][0].method.file_size is not None and codec != codecs.AUTO:
            raise ArgumentError(f"codec {codec}: a size is that of the codec auto", hint="Leave the codec out.")
        attached = pairs[0][0].progress.optimizer
        fit_masks(pairs, attached and attached(), maskset)
        maskset = maskset_of(model, *given)
    return writer.save(maskset, path, codec=codec, force=True)


def maskset_of(
    model: PreTrainedModel, max_length: int | None, metrics: Mapping[str, float], lineage: Mapping[str, Any]
) -> MaskSet:
    """The mask set of a masked model."""
    model = unwrapped(model)
    origin: Origin | None = getattr(model, KEPT_AS, None)
    if origin is None:
        raise TrainingError("the model is not masked", hint="Call maskhub.training.mask_model before training.")
    before = type(model.config).from_dict(origin.base_config).to_diff_dict()
    now = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    if origin.head:
        now["id2label"] = {str(i): name for i, name in (model.config.id2label or {}).items()}
        now["label2id"] = model.config.label2id
    task = task_of(before, now)
    if task is not None and max_length is not None:
        task = msgspec.structs.replace(task, max_length=max_length)
    return learned(
        origin.binding,
        masks_of(model),
        {name: from_torch(whole(tensor)) for name, tensor in head_of(model, origin.head).items()},
        task=task,
        initial=origin.initial,
        metrics=dict(metrics),
        lineage={"operation": "train", "settings": msgspec.to_builtins(origin.method), **lineage},
    )


def head_of(model: nn.Module, head: frozenset[str]) -> dict[str, Tensor]:
    """The parameters that travel whole, as they are trained or stay, before their own masks."""
    state = {plain_name(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: state[name] for name in sorted(head)}
