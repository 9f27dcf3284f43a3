"""Task models from a base and a mask, in memory: transformers models and pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from maskhub import dense
from maskhub.checkpoint import TOKENIZER_FILES, Checkpoint, open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.errors import CheckpointError, FormatError, reason
from maskhub.mask import MaskSet
from maskhub.runtime.quiet import quiet_transformers
from maskhub.runtime.tensors import to_torch

VOCABULARIES = [f for f in TOKENIZER_FILES if f.startswith(("tokenizer.", "vocab.", "spiece.", "sentencepiece."))]


def load_model(
    base: str | Path | Checkpoint,
    mask: str | Path | MaskSet,
    *,
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> PreTrainedModel:
    """The transformers model of the mask's task, with masked weights, in evaluation mode.

    ``base`` is a folder, a Hub id or an opened checkpoint. Raises BaseMismatchError where it is not the mask's
    base (``verify`` checks every tensor's digest), FormatError where the mask names no task.
    """
    checkpoint = base if isinstance(base, Checkpoint) else open_checkpoint(base, revision=revision, token=token)
    maskset = mask if isinstance(mask, MaskSet) else open_mask(mask, whole=True)
    config_dict = dense.task_config(checkpoint, maskset)
    model_class: Any = _model_class(config_dict)
    state = {name: to_torch(t) for name, t in dense.tensors(checkpoint, maskset, verify=verify)}
    with quiet_transformers():
        try:
            config = model_class.config_class.from_dict(config_dict)
            loaded = model_class.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
        except Exception as error:  # transformers and torch raise many kinds for a configuration that cannot be
            raise FormatError(f"the mask does not fit {model_class.__name__}: {reason(error)}") from error
    model: PreTrainedModel = loaded[0]
    if wrong := sorted({*loaded[1]["missing_keys"], *loaded[1]["unexpected_keys"]}):
        raise FormatError(
            f"the mask does not fit {model_class.__name__}: parameters missing or unknown: {', '.join(wrong[:5])}"
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_tokenizer(base: Checkpoint, maskset: MaskSet) -> PreTrainedTokenizerBase:
    """The tokenizer of a mask's task: the one it names, else the base's own. Raises CheckpointError."""
    source = (maskset.task and maskset.task.tokenizer) or base.folder
    return tokenizer_from(source, base.name)


def tokenizer_from(source: str | Path, name: str) -> PreTrainedTokenizerBase:
    """A folder's or Hub model's tokenizer; CheckpointError where there is none."""
    with quiet_transformers():
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # transformers and tokenizers raise many kinds, the latter bare ones
            raise CheckpointError(f"{name}: its tokenizer cannot be loaded: {reason(error)}") from error
    # Where a folder has no vocabulary, transformers makes a tokenizer that knows no word.
    if Path(source).is_dir() and tokenizer.is_fast and not any((Path(source) / f).is_file() for f in VOCABULARIES):
        raise CheckpointError(f"{name}: the folder has no tokenizer", hint="Put the model's tokenizer.json beside it.")
    return tokenizer


def pipeline(
    mask: str | Path | MaskSet, base: str | Path | None = None, task: str | None = None, **options: Any
) -> transformers.Pipeline:
    """A ``transformers.pipeline`` of the mask's task, in one call.

    ``base`` defaults to the one the mask names; ``options`` go to ``transformers.pipeline``.
    """
    maskset = mask if isinstance(mask, MaskSet) else open_mask(mask, whole=True)
    try:
        checkpoint = open_checkpoint(base) if base else _named_base(maskset)
    except CheckpointError as error:
        if base is not None:
            raise
        raise CheckpointError(
            f"{error} (the base that the mask names)", hint="Pass base=..., a folder or a Hub id."
        ) from error
    model = load_model(checkpoint, maskset)
    kind = task or (maskset.task.type if maskset.task else None)
    options = {"tokenizer": load_tokenizer(checkpoint, maskset), "trust_remote_code": False} | options
    return transformers.pipeline(kind, model=model, **options)  # type: ignore[call-overload, no-any-return]


def _named_base(maskset: MaskSet) -> Checkpoint:
    """The base that a mask names: from the Hub at the very commit, where it names one, else by its name."""
    if (hub := maskset.base.hub) is not None:
        return open_checkpoint(hub.id, revision=hub.commit)
    return open_checkpoint(maskset.base.name)


def _model_class(config: dict[str, Any]) -> type[PreTrainedModel]:
    """The class that ``architectures`` names: one of transformers' own, never code from a repository."""
    name = (config.get("architectures") or ["?"])[0]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel) and found.config_class):
        raise FormatError(
            f"the task's architecture {name!r} is no model class of transformers {transformers.__version__}"
        )
    return found
