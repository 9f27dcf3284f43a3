"""Regression: one text or a pair of texts, and a number. Inputs as text classification's."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from maskhub.errors import DataError
from maskhub.tasks.examples import LABEL_COLUMNS, Examples, Inputs, Table, folded, number
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
        """Whether a label is a number with a fraction, or a column of scores has a digit: not in words alone.

        Other whole numbers, and all that is written as a text, are taken for classes.
        """
        label = table.find("label", (*LABEL_COLUMNS, *SCORES))
        if label is None or table.rows.classes(label):
            return False
        values = [value for value in table.rows.values(label) if value is not None]
        if folded(label) in SCORES:
            return any(re.search("[0-9]", str(value)) for value in values)
        numbers = all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values)
        return numbers and any(value % 1 and math.isfinite(value) for value in values)

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        column = table.column("label", (*LABEL_COLUMNS, *SCORES))
        numbers = []
        for row, value in enumerate(table.values(column), 1):
            if (found := number(value)) is None:
                raise DataError(
                    f"{table.source}: row {row} has {value!r:.100} in column {column!r}, which is no number to learn",
                    hint="Write numbers such as 0.5, leave rows without one out, or learn classes with "
                    f"--task text-classification --label-column {column!r}.",
                )
            numbers.append(found)
        return numbers, ()

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
