"""Text classification: one text or a pair of texts, and its class. Inputs ``text`` and, in pairs, ``pair``."""

from __future__ import annotations

from typing import Any

from maskhub.tasks.examples import LABEL_COLUMNS, Examples, Table, label_ids
from maskhub.tasks.metrics import classification_metrics, classification_names
from maskhub.tasks.task import Names, TaskType, classes_config, rows

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


def read_texts(table: Table) -> dict[str, list[str]]:
    """Inputs of a task on texts."""
    text, pair = text_columns(table)
    return {"text": table.texts(text), **({"pair": table.texts(pair)} if pair else {})}


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


def _read(table: Table) -> Examples:
    text_columns(table)
    labels, names = table.classes(table.column("label", LABEL_COLUMNS))
    return Examples(table.source, "text-classification", dict(read_texts(table)), labels, names)


def single_label_config(names: Names) -> dict[str, Any]:
    """Overrides for one class an example."""
    return classes_config(names) | {"problem_type": "single_label_classification"}


def _encode(examples: Examples, tokenizer: Any, names: Names, max_length: int) -> Any:
    return encode_texts(examples, tokenizer, label_ids(examples, names), max_length)


TEXT_CLASSIFICATION = TaskType(
    name="text-classification",
    type="text-classification",
    model="AutoModelForSequenceClassification",
    columns="text, or a pair such as sentence1 and sentence2; label",
    fits=_fits,
    read=_read,
    config=single_label_config,
    encode=_encode,
    collator=text_collator,
    metrics=classification_names,
    measure=classification_metrics,
)
