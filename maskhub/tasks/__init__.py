"""Kinds of tasks, one module each, and their registry. None imports torch or transformers before it is needed."""

from __future__ import annotations

from maskhub.errors import FormatError, check_choice
from maskhub.masks.binding import Task
from maskhub.storage.registry import Registry
from maskhub.tasks.examples import Examples, Table
from maskhub.tasks.image_classification import ImageClassification
from maskhub.tasks.multiple_choice import MultipleChoice
from maskhub.tasks.regression import TextRegression
from maskhub.tasks.task import TaskType
from maskhub.tasks.text_classification import TextClassification
from maskhub.tasks.text_generation import TextGeneration
from maskhub.tasks.token_classification import TokenClassification

__all__ = ["REGISTRY", "TaskType", "TextClassification", "label_names", "of_mask", "read"]

# In the order in which a table is tried for them: what has more telling columns comes first, then what other packages
# bring, and last what fits almost any table.
REGISTRY = Registry(
    "maskhub.tasks",
    "kind of task",
    (ImageClassification(), TokenClassification(), MultipleChoice(), TextRegression()),
    (TextClassification(), TextGeneration()),
)


def read(table: Table, task: str | None = None, *, labelled: bool = True) -> Examples:
    """A table's examples for ``task``, or for the first kind of task that it fits. Raises DataError, ArgumentError."""
    if task is None:
        kind = next((kind for kind in REGISTRY.usable() if kind.fits(table)), REGISTRY["text-classification"])
    else:
        check_choice("task", task, REGISTRY)
        kind = REGISTRY[task]
    inputs = kind.inputs(table)
    labels, names = kind.labels(table, inputs) if labelled else ([], ())
    return Examples(table.source, kind.name, inputs, labels, names)


def of_mask(task: Task | None, use: str = "evaluated") -> TaskType:
    """The kind of task that a mask is for. Raises FormatError for one that cannot be put to this use."""
    if task is None:
        raise FormatError(f"the mask names no task, so it cannot be {use}")
    kind = REGISTRY.get(task.type) or next((one for one in REGISTRY.usable() if one.type == task.type), None)
    if task.type == "text-classification" and task.config.get("problem_type") == "regression":
        kind = REGISTRY["regression"]
    if kind is None:
        raise FormatError(
            f"the mask is for {task.type}, which cannot be {use}", hint=f"What can: {', '.join(REGISTRY)}."
        )
    if "id2label" in kind.config(()) and not label_names(task):
        raise FormatError(f"the mask names no labels, so it cannot be {use}")
    return kind.told(task.config)


def label_names(task: Task) -> tuple[str, ...]:
    """The classes of a mask's task in their order; none where the task has no named ones."""
    names = task.config.get("id2label", {})
    return tuple(names[key] for key in sorted(names, key=int))
