"""Text classification: one text or a pair of texts, and its class. Inputs ``text`` and, in pairs, ``pair``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from maskhub.errors import ArgumentError
from maskhub.tasks.examples import LABEL_COLUMNS, Examples, Inputs, Table, label_ids
from maskhub.tasks.metrics import classification_metrics, classification_names
from maskhub.tasks.task import Answer, Names, TaskType, classes_config, likeliest, rows, softmax

# Usual names, in the order they are looked for. Pairs come first: ``sentence`` alone may be half of one.
PAIR_COLUMNS = (
    ("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("question", "context"), ("query", "document"),
)  # fmt: skip
TEXT_COLUMNS = ("text", "sentence", "review", "content", "message", "comment", "tweet", "document", "question", "sms")


def text_columns(table: Table) -> tuple[str, str | None]:
    """The column of texts, and that of their partners where there are pairs."""
    given = table.columns
    pairs = (p for p in PAIR_COLUMNS if p[0] in table.names and p[1] in table.names)
    if given.text is None and (found := next(pairs, None)):
        return found[0], given.pair or found[1]
    return table.column("text", TEXT_COLUMNS), given.pair


def read_texts(table: Table) -> Inputs:
    """Inputs of a task on texts."""
    text, pair = text_columns(table)
    return {"text": table.texts(text), **({"pair": table.texts(pair)} if pair else {})}


def given_texts(inputs: Sequence[Any]) -> Inputs:
    """Texts as they are, or pairs of them."""
    if all(isinstance(text, str) for text in inputs):
        return {"text": list(inputs)}
    if all(isinstance(pair, tuple | list) and list(map(type, pair)) == [str, str] for pair in inputs):
        return {"text": [first for first, _ in inputs], "pair": [second for _, second in inputs]}
    raise ArgumentError(
        "the mask's task reads texts, or pairs of texts", hint="Give only the ones, or only the others."
    )


def encode_texts(examples: Examples, tokenizer: Any, labels: list[Any], max_length: int) -> Any:
    """Tokens and labels of examples on texts."""
    texts, pairs = list(examples.inputs["text"]), examples.inputs.get("pair")
    encoded = tokenizer(texts, list(pairs) if pairs else None, truncation=True, max_length=max_length)
    return rows({**encoded, "labels": labels}, [len(ids) for ids in encoded["input_ids"]])


def text_collator(tokenizer: Any) -> Any:
    """Batches of texts, each padded to its longest."""
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer)


def _fits(table: Table) -> bool:
    return table.find("label", LABEL_COLUMNS) is not None


def read_classes(table: Table, inputs: Inputs) -> tuple[list[str], Names]:
    """Each row's class."""
    return table.classes(table.column("label", LABEL_COLUMNS))


def single_label_config(names: Names) -> dict[str, Any]:
    """Overrides for one class an example."""
    return classes_config(names) | {"problem_type": "single_label_classification"}


def class_of(logits: NDArray[Any], names: Names, top_k: int | None) -> Answer:
    """The likeliest class and its probability."""
    scores = softmax(logits).tolist()
    return likeliest([{"label": name, "score": score} for name, score in zip(names, scores, strict=True)], top_k)


def _encode(examples: Examples, tokenizer: Any, names: Names, max_length: int) -> Any:
    return encode_texts(examples, tokenizer, label_ids(examples, names), max_length)


TEXT_CLASSIFICATION = TaskType(
    name="text-classification",
    type="text-classification",
    model="AutoModelForSequenceClassification",
    columns="text, or a pair such as sentence1 and sentence2; label",
    fits=_fits,
    inputs=read_texts,
    labels=read_classes,
    config=single_label_config,
    encode=_encode,
    collator=text_collator,
    metrics=classification_names,
    measure=classification_metrics,
    given=given_texts,
    answer=lambda asked, tokenizer, logits, labels, names, top_k: asked | class_of(logits, names, top_k),
)
