"""Causal language modelling: each token from those before it. Input ``text``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskhub.errors import ArgumentError, DataError
from maskhub.tasks.examples import Examples, Inputs, Table
from maskhub.tasks.metrics import GENERATION, IGNORED, perplexity
from maskhub.tasks.task import Names, TaskType, rows
from maskhub.tasks.text_classification import TEXT_COLUMNS
from maskhub.tasks.token_classification import padded_labels


def _fits(table: Table) -> bool:
    """Whether there is nothing but a text: beside other columns it could be anything's."""
    return table.names == [table.find("text", TEXT_COLUMNS)]


def _inputs(table: Table) -> Inputs:
    return {"text": table.texts(table.column("text", TEXT_COLUMNS))}


def _given(inputs: Sequence[Any]) -> Inputs:
    if not all(isinstance(text, str) for text in inputs):
        raise ArgumentError("the mask's task goes on from texts", hint="Give texts only.")
    return {"text": list(inputs)}


def _encode(examples: Examples, tokenizer: Any, names: Names, max_length: int) -> Any:
    """All texts one after the other, each with the token that ends a text, in blocks of ``max_length`` tokens."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    stream: list[int] = []
    for ids in tokenizer(list(examples.inputs["text"]))["input_ids"]:
        stream += ids if ids[-1:] == end else [*ids, *end]
    blocks = [stream[start : start + max_length] for start in range(0, len(stream), max_length)]
    blocks = [block for block in blocks if len(block) > 1]  # one token alone predicts nothing
    if not blocks:
        raise DataError(f"{examples.source}: no two tokens of text in it")
    encoded = {"input_ids": blocks, "attention_mask": [[1] * len(block) for block in blocks], "labels": blocks}
    return rows(encoded, [len(block) for block in blocks])


def _reduce(logits: Any, labels: Any) -> Any:
    """Each token's loss, from the logits of the token before it (blocks x tokens - 1)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=IGNORED)


TEXT_GENERATION = TaskType(
    name="text-generation",
    type="text-generation",
    model="AutoModelForCausalLM",
    columns="text, and no other column",
    fits=_fits,
    inputs=_inputs,
    labels=lambda table, inputs: ([], ()),
    config=lambda names: {},
    encode=_encode,
    collator=padded_labels,
    metrics=lambda names: GENERATION,
    measure=perplexity,
    given=_given,
    reduce=_reduce,
    ensembles=("logits", "probs"),
)
