"""Task models from a base and a mask, in memory: transformers models and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel

from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.beside import task_config
from maskhub.checkpoints.checkpoint import TOKENIZER_FILES, Checkpoint, open_checkpoint
from maskhub.checkpoints.match import match
from maskhub.container.reader import open_mask
from maskhub.errors import (
    ArgumentError,
    CheckpointError,
    ForbiddenError,
    FormatError,
    MissingError,
    OutOfMemoryError,
    RemoteError,
    out_of_memory,
    reason,
)
from maskhub.masks.mask import MaskSet
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.regular import require_regular
from maskhub.storage.torch import to_torch

READ = (".json", ".txt", ".model", ".jinja", ".tiktoken")  # what transformers looks for beside weights
PLACINGS = ("auto", "balanced", "balanced_low_0", "sequential", "disk")  # what accelerate knows beside devices
VOCABULARIES = [f for f in TOKENIZER_FILES if f.startswith(("tokenizer.", "vocab.", "spiece.", "sentencepiece."))]


def load_model(
    base: str | Path | Checkpoint,
    mask: str | Path | MaskSet,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: Any = None,
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> PreTrainedModel:
    """The transformers model of the mask's task, as ``maskhub.load_model`` gives it."""
    check_placing(dtype, device, device_map)
    checkpoint, maskset = (
        open_checkpoint(base, revision=revision, token=token),
        open_mask(mask, whole=True, token=token),
    )
    checkpoint = match(checkpoint, [maskset])
    dense.check_structure(checkpoint, maskset)
    state = {name: to_torch(t) for name, t in dense.tensors(checkpoint, maskset, verify=verify)}
    return build_model(task_config(checkpoint, maskset), state, dtype=dtype, device=device, device_map=device_map)


def check_placing(dtype: Any, device: Any, device_map: Any = None) -> None:
    """ArgumentError for a dtype that torch lacks, or a device that is not here."""
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ArgumentError(f"dtype {dtype!r}: torch has none of this name", hint="One is bfloat16.")
    named = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    places = [("device", device), *(("device_map", place) for place in named if place not in PLACINGS)]
    for option, place in places:
        try:
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            raise ArgumentError(f"{option} {place!r}: {reason(error)}") from error


def build_model(
    config_dict: dict[str, Any],
    state: dict[str, torch.Tensor],
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: Any = None,
) -> PreTrainedModel:
    """A transformers model of this configuration and these parameters, in evaluation mode.

    Raises FormatError where they do not go together.
    """
    kind: Any = model_class(config_dict)
    options = {key: value for key, value in {"dtype": dtype, "device_map": device_map}.items() if value is not None}
    with quiet_transformers():
        try:
            config = kind.config_class.from_dict(config_dict)
            config.return_dict = True  # whatever the base says
            loaded = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True, **options)
        except Exception as error:  # transformers and torch raise many kinds for a configuration that cannot be
            if out_of_memory(error):
                raise OutOfMemoryError(f"not enough memory for {kind.__name__}") from error
            raise FormatError(f"the mask does not fit {kind.__name__}: {reason(error)}") from error
    model: PreTrainedModel = loaded[0]
    if wrong := sorted({*loaded[1]["missing_keys"], *loaded[1]["unexpected_keys"]}):
        raise FormatError(
            f"the mask does not fit {kind.__name__}: parameters missing or unknown: {', '.join(wrong[:5])}"
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model if device is None else model.to(device)  # type: ignore[arg-type]


def load_processor(base: Checkpoint, maskset: MaskSet) -> Any:
    """What makes a mask's task read its input: an image processor, or the tokenizer that it names, else the base's.

    Raises CheckpointError.
    """
    if (task := maskset.task) is None:
        return processor_from(base.folder, base.name)
    return processor_from(task.tokenizer or base.folder, base.name, task.type, pad=task.config.get("pad_token_id"))


def processor_from(
    source: str | Path, name: str, task: str | None = None, *, images: bool = False, pad: int | None = None
) -> Any:
    """A folder's or Hub model's tokenizer, or its image processor, for a type of task; CheckpointError without one.

    Where the tokenizer has no token to pad with, it gets the one of the id ``pad``, or else the one that ends a text.
    """
    if Path(source).is_dir():
        require_regular(Path(source), READ)
    if images or task == "image-classification":
        return _loaded(AutoImageProcessor, source, name, "image processor", "preprocessor_config.json")
    tokenizer = _loaded(AutoTokenizer, source, name, "tokenizer", "tokenizer.json")
    if task == "token-classification" and hasattr(tokenizer, "add_prefix_space"):
        # Of byte-level ones: the first word as all others.
        tokenizer = _loaded(AutoTokenizer, source, name, "tokenizer", "tokenizer.json", add_prefix_space=True)
    # Where a folder has no vocabulary, transformers makes a tokenizer that knows no word.
    if Path(source).is_dir() and tokenizer.is_fast and not any((Path(source) / f).is_file() for f in VOCABULARIES):
        raise CheckpointError(f"{name}: the folder has no tokenizer", hint="Put the model's tokenizer.json beside it.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token if pad is None else tokenizer.convert_ids_to_tokens(pad)
    return tokenizer


def _loaded(auto: Any, source: str | Path, name: str, what: str, file: str, **options: Any) -> Any:
    with quiet_transformers():
        try:
            return auto.from_pretrained(source, trust_remote_code=False, **options)
        except Exception as error:  # transformers and tokenizers raise many kinds, the latter bare ones
            raise CheckpointError(
                f"{name}: its {what} cannot be loaded: {reason(error)}", hint=f"Put the model's {file} beside it."
            ) from error


def pipeline(
    mask: str | Path | MaskSet,
    base: str | Path | Checkpoint | None = None,
    task: str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: Any = None,
    **options: Any,
) -> transformers.Pipeline:
    """A ``transformers.pipeline`` of the mask's task, as ``maskhub.pipeline`` makes it."""
    maskset = open_mask(mask, whole=True, token=token)
    kind = pipeline_kind(task or (maskset.task.type if maskset.task else None))
    try:
        checkpoint = (
            _named_base(maskset, token) if base is None else open_checkpoint(base, revision=revision, token=token)
        )
    except (CheckpointError, MissingError, ForbiddenError, RemoteError) as error:
        if base is not None:
            raise
        raise type(error)(
            f"{error.message} (the base that the mask names)", hint="Pass base=..., a folder or a Hub id."
        ) from error
    model = load_model(checkpoint, maskset, dtype=dtype, device=device, device_map=device_map)
    if device is not None:
        options = {"device": device} | options
    reader = "image_processor" if kind == "image-classification" else "tokenizer"
    options = {reader: load_processor(checkpoint, maskset), "trust_remote_code": False} | options
    return transformers.pipeline(kind, model=model, **options)  # type: ignore[arg-type]


def pipeline_kind(task: str | None) -> str | None:
    """What transformers calls the pipeline of a task. Raises FormatError where it has none."""
    if task == "multiple-choice":
        raise FormatError(
            "transformers has no pipeline for multiple choice", hint="Use maskhub.predict, or maskhub.load_model."
        )
    return task


def _named_base(maskset: MaskSet, token: str | None) -> Checkpoint:
    """The base that a mask names: from the Hub at the very commit, where it names one, else by its name."""
    if (hub := maskset.base.hub) is not None:
        return open_checkpoint(hub.id, revision=hub.commit, token=token)
    return open_checkpoint(maskset.base.name, token=token)


def model_class(config: dict[str, Any]) -> type[PreTrainedModel]:
    """The class that ``architectures`` names: one of transformers' own, never code from a repository."""
    name = (config.get("architectures") or ["?"])[0]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel) and found.config_class):
        raise FormatError(
            f"the task's architecture {name!r} is no model class of transformers {transformers.__version__}"
        )
    return found
