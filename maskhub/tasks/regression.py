"""Regression: one text or a pair of texts, and a number. Inputs as text classification's."""

from __future__ import annotations

import math
from typing import Any

from maskhub.errors import DataError
from maskhub.tasks.examples import LABEL_COLUMNS, Examples, Inputs, Table
from maskhub.tasks.metrics import REGRESSION, regression_metrics
from maskhub.tasks.task import Names, TaskType, classes_config
from maskhub.tasks.text_classification import encode_texts, given_texts, read_texts, text_collator

SCORES = ("score", "similarity_score", "similarity", "rating")  # looked for after the usual names of labels


def _fits(table: Table) -> bool:
    """Whether any label is a fraction: whole numbers are taken for classes."""
    label = table.find("label", (*LABEL_COLUMNS, *SCORES))
    if label is None or not str(getattr(table.feature(label), "dtype", "")).startswith(("float", "double")):
        return False
    return any(value is not None and not value.is_integer() for value in table.values(label))


def _labels(table: Table, inputs: Inputs) -> tuple[list[float], Names]:
    column = table.column("label", (*LABEL_COLUMNS, *SCORES))
    return [_number(value, table.source, column, row) for row, value in enumerate(table.values(column), 1)], ()


def _number(value: Any, source: str, column: str, row: int) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise DataError(
        f"{source}: row {row} has {value!r} in column {column!r}, which is no number to learn",
        hint="Give each row a number, or learn classes with --task text-classification.",
    )


def _config(names: Names) -> dict[str, Any]:
    return classes_config(("score",)) | {"problem_type": "regression"}


def _encode(examples: Examples, tokenizer: Any, names: Names, max_length: int) -> Any:
    return encode_texts(examples, tokenizer, list(map(float, examples.targets())), max_length)


TEXT_REGRESSION = TaskType(
    name="regression",
    type="text-classification",
    model="AutoModelForSequenceClassification",
    columns="text, or a pair; label or score: numbers, some with a fraction",
    fits=_fits,
    inputs=read_texts,
    labels=_labels,
    config=_config,
    encode=_encode,
    collator=text_collator,
    metrics=lambda names: REGRESSION,
    measure=regression_metrics,
    given=given_texts,
    answer=lambda asked, tokenizer, logits, labels, names, top_k: asked | {"score": float(logits[0])},
    ensembles=("logits",),
)
