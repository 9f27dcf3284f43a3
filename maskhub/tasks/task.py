"""What a kind of task is: which columns it reads, how examples become a model's input, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from maskhub.tasks.examples import Examples, Table

Names = tuple[str, ...]  # the names of a task's classes
Ensembles = tuple[str, ...]


@dataclass(frozen=True)
class TaskType:
    """One kind of task. Its functions import torch and transformers themselves, so that reading data needs neither."""

    name: str  # as ``--task`` takes it
    type: str  # the Hub's name, which masks record and pipelines go by
    model: str  # transformers' auto class
    columns: str  # what it reads, for people

    fits: Callable[[Table], bool]  # whether a table looks like it
    read: Callable[[Table], Examples]  # raises DataError

    config: Callable[[Names], dict[str, Any]]  # what it overrides in the base's config.json
    encode: Callable[[Examples, Any, Names, int], Any]  # with tokenizer or image processor, cut to a length in tokens
    collator: Callable[[Any], Any]  # makes batches of what ``encode`` gives

    metrics: Callable[[Names], tuple[str, ...]]  # what ``measure`` gives; the first picks the best evaluation
    measure: Callable[[NDArray[Any], NDArray[Any], Names], dict[str, float]]  # of predictions and labels
    reduce: Callable[[Any, Any], Any] | None = None  # logits and labels (torch) to predictions; None: the logits

    images: bool = False  # read by an image processor in place of a tokenizer
    ensembles: Ensembles = ("logits", "probs", "vote")  # ways to put several models' answers together


def classes_config(names: Names) -> dict[str, Any]:
    """Overrides of ``config.json`` that name a task's classes."""
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def rows(encoded: dict[str, Any], lengths: list[int]) -> Any:
    """Encoded texts as a ``datasets.Dataset``, with the length of each, by which the trainer makes batches."""
    from datasets import Dataset

    return Dataset.from_dict({**encoded, "length": lengths})
