"""What a kind of task is: what it reads, how that becomes a model's input, what its answers are, how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskhub.errors import FormatError
from maskhub.tasks.examples import Examples, Inputs, Table

Names = tuple[str, ...]  # the names of a task's classes
Answer = dict[str, Any]  # as JSON has it
Array = NDArray[Any]


class TaskType:
    """One kind of task: a subclass for each, that says what is its own.

    Its methods import torch and transformers themselves, so that reading data needs neither.
    """

    name: str  # as ``--task`` takes it
    type: str  # the Hub's name, which masks record and pipelines go by
    model: str  # transformers' auto class
    columns: str  # what it reads, for people
    images = False  # read by an image processor in place of a tokenizer
    generates = False  # answers by ``generate``, with a text, in place of ``answer``
    ensembles: tuple[str, ...] = ("logits", "probs", "vote")  # ways to put several models' answers together

    fits: Callable[[Table], bool]  # whether a table looks like it
    inputs: Callable[[Table], Inputs]  # what a table holds for it; raises DataError
    labels: Callable[[Table, Inputs], tuple[list[Any], Names]]  # and its labels, with the names of all classes
    encode: Callable[[Examples, Any, Names, int], Any]  # with tokenizer or image processor, cut to a length in tokens
    metrics: Callable[[Names], tuple[str, ...]]  # what ``measure`` gives; the first picks the best evaluation
    measure: Callable[[Array, Array, Names], dict[str, float]]  # of predictions and labels
    # One example, the tokenizer or image processor, the logits and labels of its row, the classes, and how many of the
    # likeliest to name: what it was asked and what it answers.
    answer: Callable[[Answer, Any, Array, Array, Names, int], Answer]

    def told(self, config: dict[str, Any]) -> TaskType:
        """This kind of task with what a mask's ``config`` says of how it reads; raises FormatError."""
        return self

    def counted(self, examples: Examples) -> Examples:
        """The examples without the labels that this task leaves out: None in their places."""
        return examples

    def config(self, names: Names) -> dict[str, Any]:
        """What it overrides in the base's config.json."""
        return {}

    def collator(self, processor: Any) -> Any:
        """What makes batches of what ``encode`` gives: of texts, each padded to its longest."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(processor)

    def reduce(self, logits: Any, labels: Any) -> Any:
        """The predictions that are kept of a batch's logits (torch)."""
        return logits

    def given(self, inputs: Sequence[Any]) -> Inputs:
        """What people ask of it one by one, as a table's inputs; raises ArgumentError or DataError."""
        raise FormatError(
            f"the mask is for {self.name}, which cannot be asked one by one", hint="Use maskhub evaluate."
        )


def classes_config(names: Names) -> dict[str, Any]:
    """Overrides of ``config.json`` that name a task's classes."""
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    odds: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    return odds


def likeliest(answers: Sequence[Answer], top_k: int) -> Answer:
    """The answer of the highest ``score``; with ``top_k`` it has the so many best, the best first, under ``top``."""
    best = sorted(answers, key=lambda answer: -answer["score"])
    return best[0] | ({"top": best[:top_k]} if top_k else {})


def rows(encoded: dict[str, Any], lengths: list[int]) -> Any:
    """Encoded texts as a ``datasets.Dataset``, with the length of each, by which the trainer makes batches."""
    from datasets import Dataset

    return Dataset.from_dict({**encoded, "length": lengths})


def padded_labels(tokenizer: Any) -> Any:
    """Batches of texts with a label for each token."""
    from transformers import DataCollatorForTokenClassification

    return DataCollatorForTokenClassification(tokenizer)
