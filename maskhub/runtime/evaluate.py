"""Running a task model over examples: logits, and the metrics of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maskhub.checkpoint import Checkpoint, open_checkpoint
from maskhub.data import Examples, label_ids
from maskhub.errors import FormatError
from maskhub.mask import MaskSet
from maskhub.metrics import classification_metrics, majority_share
from maskhub.runtime.load import load_model, load_tokenizer

BATCH = 32

Progress = Callable[[int, int], None]  # examples done, examples in all


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    *,
    max_length: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Logits (examples x classes), in batches in the order of the examples, each padded to its longest."""
    logits = []
    for start in range(0, len(examples), batch_size):
        stop = start + batch_size
        pairs = examples.pairs[start:stop] if examples.pairs else None
        batch = tokenizer(
            examples.texts[start:stop],
            pairs,
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            logits.append(model(**batch).logits.float().cpu().numpy())
        if progress:
            progress(min(stop, len(examples)), len(examples))
    return np.concatenate(logits)


def evaluate(
    base: str | Path | Checkpoint, mask: MaskSet, examples: Examples, *, progress: Progress | None = None
) -> dict[str, float]:
    """Metrics of a mask's task model on examples. Raises DataError for labels that the task does not know.

    ``majority_accuracy`` is that of always guessing the examples' commonest class.
    """
    if mask.task is None or "id2label" not in mask.task.config:
        raise FormatError("the mask names no labels, so it cannot be evaluated on labelled examples")
    names = mask.task.config["id2label"]
    labels = label_ids(examples, tuple(names[key] for key in sorted(names, key=int)))
    checkpoint = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    model = load_model(checkpoint, mask)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]
    logits = predict(
        model, load_tokenizer(checkpoint, mask), examples, max_length=mask.task.max_length, progress=progress
    )
    return classification_metrics(logits, labels) | {"majority_accuracy": majority_share(labels)}
