"""Regression: one text or a pair of texts, and a number. Inputs as text classification's."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from maskhub.errors import DataError
from maskhub.tasks.examples import LABEL_COLUMNS, NUMBER, Examples, Inputs, Table
from maskhub.tasks.metrics import regression_metrics
from maskhub.tasks.task import Answer, Array, Names, classes_config
from maskhub.tasks.text_classification import TextClassification

SCORES = ("score", "similarity_score", "similarity", "rating")  # looked for after the usual names of labels


class TextRegression(TextClassification):
    """A text's number."""

    name = "regression"
    columns = "text, or a pair; label or score: numbers, some with a fraction"
    ensembles = ("logits",)

    def fits(self, table: Table) -> bool:
        """Whether a label is a number with a fraction, or a column that scores are in has numbers only.

        Other whole numbers, and all that is written as a text, are taken for classes.
        """
        label = table.find("label", (*LABEL_COLUMNS, *SCORES))
        if label is None:
            return False
        values = [value for value in table.rows.values(label) if value is not None]
        if label in SCORES and values and all(isinstance(value, str) and NUMBER.fullmatch(value) for value in values):
            return True
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return numbers and any(
            isinstance(value, float) and math.isfinite(value) and not value.is_integer() for value in values
        )

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        column = table.column("label", (*LABEL_COLUMNS, *SCORES))
        return [_number(value, table.source, column, row) for row, value in enumerate(table.values(column), 1)], ()

    def config(self, names: Names) -> dict[str, Any]:
        return classes_config(("score",)) | {"problem_type": "regression"}

    def targets(self, examples: Examples, names: Names) -> list[Any]:
        return list(map(float, examples.targets()))

    def metrics(self, names: Names) -> tuple[str, ...]:
        return ("spearman_correlation", "pearson_correlation", "mse")

    def measure(self, predictions: Array, labels: Array, names: Names) -> dict[str, float]:
        return regression_metrics(predictions, labels)

    def answer(self, asked: Answer, processor: Any, logits: Array, labels: Array, names: Names, top_k: int) -> Answer:
        return asked | {"score": float(logits[0])}


def _number(value: Any, source: str, column: str, row: int) -> float:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise DataError(
        f"{source}: row {row} has {value!r} in column {column!r}, which is no number to learn",
        hint="Give each row a number, or learn classes with --task text-classification.",
    )
