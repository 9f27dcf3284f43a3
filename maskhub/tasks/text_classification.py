"""Text classification: one text or a pair of texts, and its class. Inputs ``text`` and, in pairs, ``pair``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskhub.errors import ArgumentError
from maskhub.tasks.examples import LABEL_COLUMNS, Examples, Inputs, Table, label_ids
from maskhub.tasks.metrics import classification_metrics
from maskhub.tasks.task import Answer, Array, Names, TaskType, classes_config, likeliest, rows, softmax

# Usual names, in the order they are looked for. Pairs come first: ``sentence`` alone may be half of one.
PAIR_COLUMNS = (
    ("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("question", "context"), ("query", "document"),
)  # fmt: skip
TEXT_COLUMNS = ("text", "sentence", "review", "content", "message", "comment", "tweet", "document", "question", "sms")


class TextClassification(TaskType):
    """A text's class."""

    name = "text-classification"
    type = "text-classification"
    model = "AutoModelForSequenceClassification"
    columns = "text, or a pair such as sentence1 and sentence2; label"

    def fits(self, table: Table) -> bool:
        return table.find("label", LABEL_COLUMNS) is not None

    def inputs(self, table: Table) -> Inputs:
        given = table.columns
        text, pair = None, None
        if given.text is None:
            pairs = ((table.named(first), table.named(second)) for first, second in PAIR_COLUMNS)
            text, pair = next(filter(all, pairs), (None, None))
        text = text or table.column("text", TEXT_COLUMNS)
        pair = given.pair or pair
        return {"text": table.texts(text), **({"pair": table.texts(pair)} if pair else {})}

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        return table.classes(table.column("label", LABEL_COLUMNS))

    def config(self, names: Names) -> dict[str, Any]:
        return classes_config(names) | {"problem_type": "single_label_classification"}

    def encode(self, examples: Examples, processor: Any, names: Names, max_length: int) -> Any:
        texts, pairs = list(examples.inputs["text"]), examples.inputs.get("pair")
        encoded = processor(texts, list(pairs) if pairs else None, truncation=True, max_length=max_length)
        return rows({**encoded, "labels": self.targets(examples, names)}, [len(ids) for ids in encoded["input_ids"]])

    def targets(self, examples: Examples, names: Names) -> list[Any]:
        """The labels as the model's loss takes them."""
        return label_ids(examples, names)

    def metrics(self, names: Names) -> tuple[str, ...]:
        of_each = [f"f1_{name}" for name in names] if len(names) == 2 else []
        return ("accuracy", "f1", "matthews_correlation", *of_each)

    def measure(self, predictions: Array, labels: Array, names: Names) -> dict[str, float]:
        return classification_metrics(predictions, labels, names)

    def given(self, inputs: Sequence[Any]) -> Inputs:
        if all(isinstance(text, str) for text in inputs):
            return {"text": list(inputs)}
        if all(isinstance(pair, tuple | list) and list(map(type, pair)) == [str, str] for pair in inputs):
            return {"text": [first for first, _ in inputs], "pair": [second for _, second in inputs]}
        raise ArgumentError(
            "the mask's task reads texts, or pairs of texts", hint="Give only the ones, or only the others."
        )

    def answer(self, asked: Answer, processor: Any, logits: Array, labels: Array, names: Names, top_k: int) -> Answer:
        scores = softmax(logits).tolist()
        said = [{"label": name, "score": score} for name, score in zip(names, scores, strict=True)]
        return asked | likeliest(said, top_k)
