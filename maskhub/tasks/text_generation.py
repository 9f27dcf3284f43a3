"""Causal language modelling: each token from those before it. Input ``text``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskhub.errors import ArgumentError, DataError
from maskhub.tasks.examples import Examples, Inputs, Table
from maskhub.tasks.metrics import IGNORED, perplexity
from maskhub.tasks.task import Array, Names, TaskType, padded_labels, rows
from maskhub.tasks.text_classification import TEXT_COLUMNS


class TextGeneration(TaskType):
    """How a text goes on."""

    name = "text-generation"
    type = "text-generation"
    model = "AutoModelForCausalLM"
    columns = "text, and no other column"
    generates = True
    ensembles = ("logits", "probs")

    def fits(self, table: Table) -> bool:
        """Whether there is nothing but a text: beside other columns it could be anything's."""
        return table.names == [table.find("text", TEXT_COLUMNS)]

    def inputs(self, table: Table) -> Inputs:
        return {"text": table.texts(table.column("text", TEXT_COLUMNS))}

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        return [], ()

    def encode(self, examples: Examples, processor: Any, names: Names, max_length: int) -> Any:
        """All texts one after the other, each with the token that ends a text, in blocks of ``max_length`` tokens."""
        end = [] if processor.eos_token_id is None else [processor.eos_token_id]
        stream: list[int] = []
        for ids in processor(list(examples.inputs["text"]))["input_ids"]:
            stream += ids if ids[-1:] == end else [*ids, *end]
        blocks = [stream[start : start + max_length] for start in range(0, len(stream), max_length)]
        blocks = [block for block in blocks if len(block) > 1]  # one token alone predicts nothing
        if not blocks:
            raise DataError(f"{examples.source}: no two tokens of text in it")
        # No token predicts a block's first one, so it counts for no loss.
        labels = [[IGNORED, *block[1:]] for block in blocks]
        encoded = {"input_ids": blocks, "attention_mask": [[1] * len(block) for block in blocks], "labels": labels}
        return rows(encoded, [len(block) for block in blocks])

    def collator(self, processor: Any) -> Any:
        return padded_labels(processor)

    def metrics(self, names: Names) -> tuple[str, ...]:
        return ("perplexity",)

    def measure(self, predictions: Array, labels: Array, names: Names) -> dict[str, float]:
        return perplexity(predictions, labels)

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Each token's loss, from the logits of the token before it (blocks x tokens - 1)."""
        from torch.nn.functional import cross_entropy

        before, after = logits[:, :-1].float().transpose(1, 2), labels[:, 1:]
        return cross_entropy(before, after, reduction="none", ignore_index=IGNORED)

    def given(self, inputs: Sequence[Any]) -> Inputs:
        if not all(isinstance(text, str) for text in inputs):
            raise ArgumentError("the mask's task goes on from texts", hint="Give texts only.")
        return {"text": list(inputs)}
