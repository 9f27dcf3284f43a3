"""``predict``: what a mask's task model answers to inputs of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from maskhub import tasks
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError
from maskhub.masks.mask import MaskSet
from maskhub.runtime.evaluate import BATCH, in_batches, outputs, task_model
from maskhub.runtime.load import load_processor
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.work import Progress
from maskhub.tasks.data import read_file
from maskhub.tasks.examples import Columns, Examples
from maskhub.tasks.task import Answer

NEW_TOKENS = 64


def predict(
    base: str | Path | Checkpoint,
    mask: str | Path | MaskSet,
    inputs: Any = (),
    *,
    file: str | Path | None = None,
    columns: Columns | None = None,
    top_k: int | None = None,
    max_new_tokens: int = NEW_TOKENS,
    batch_size: int = BATCH,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """What a mask's task model answers to each input, or to each example of a file, as ``maskhub.predict`` gives it.

    ``generated_text`` begins with the text that it goes on from, by the likeliest tokens; ``entities`` and ``tags`` are
    lists of ``word``, ``label``, ``score``, ``start`` and ``end``.
    """
    check_counts(top_k=top_k, max_new_tokens=max_new_tokens, batch_size=batch_size)
    asked = each_input(inputs)
    if asked and file is not None:
        raise ArgumentError("inputs are given, and a file of them, too", hint="Give the ones or the other.")
    if not asked and file is None:
        raise ArgumentError("there is nothing to predict", hint="Give texts, or a file of examples.")
    maskset = open_mask(mask, whole=True, token=token)
    kind = tasks.of_mask(maskset.task, "used to predict")
    examples = (
        Examples("inputs", kind.name, kind.given(asked), [])
        if file is None
        else read_file(file, columns, kind.name, labelled=False)
    )
    checkpoint = open_checkpoint(base, revision=revision, token=token)
    processor, model = load_processor(checkpoint, maskset), task_model(checkpoint, maskset)
    return answers_of(
        model, processor, maskset, examples,
        top_k=top_k, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress,
    )  # fmt: skip


def check_counts(**counts: int | None) -> None:
    """ArgumentError for one that is less than 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name} {value}: it is 1 or more")


def each_input(inputs: Any) -> list[Any]:
    """Inputs that are given as some, or as one by itself."""
    some = isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Path | dict)
    return list(inputs) if some else [inputs]


def answers_of(
    model: PreTrainedModel,
    processor: Any,
    maskset: MaskSet,
    examples: Examples,
    *,
    top_k: int | None = None,
    max_new_tokens: int = NEW_TOKENS,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> list[Answer]:
    """What a mask's task model answers to examples, in their order."""
    assert maskset.task is not None
    kind = tasks.of_mask(maskset.task, "used to predict")
    if kind.generates:
        texts = _continued(model, processor, examples, max_new_tokens, batch_size, progress)
        return [examples[row] | {"generated_text": text} for row, text in enumerate(texts)]
    names = tasks.label_names(maskset.task)
    answers: dict[int, Answer] = {}
    for chosen, logits, labels in outputs(
        [model], processor, examples, names,
        kind=kind, max_length=maskset.task.max_length, batch_size=batch_size, progress=progress,
    ):  # fmt: skip
        for row, said, label in zip(chosen, logits.cpu().numpy(), labels.cpu().numpy(), strict=True):
            answers[row] = kind.answer(examples[row], processor, said, label, names, top_k or 0)
    return [answers[row] for row in range(len(answers))]


def _continued(
    model: PreTrainedModel,
    tokenizer: Any,
    examples: Examples,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None,
) -> list[str]:
    """Each text, and how the model goes on. It sees the end of a text that is too long for it."""
    texts = examples.inputs["text"]
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and max_new_tokens >= limit:
        raise ArgumentError(f"max_new_tokens {max_new_tokens}: the model has room for {limit} tokens in all")
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    cut = {} if limit is None else {"truncation": True, "max_length": limit - max_new_tokens}
    lengths = [len(ids) for ids in tokenizer(list(texts), **cut)["input_ids"]]
    found: dict[int, str] = {}
    for chosen in in_batches(lengths, batch_size, examples.source, progress):
        batch = tokenizer([texts[row] for row in chosen], padding=True, return_tensors="pt", **cut).to(model.device)
        batch.pop("token_type_ids", None)
        with torch.inference_mode(), quiet_transformers():
            generated = model.generate(  # type: ignore[operator]
                **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        for row, read, all in zip(chosen, batch["input_ids"], generated, strict=True):
            before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (read, all))
            found[row] = texts[row] + whole[len(before) :]
    return [found[row] for row in range(len(found))]
