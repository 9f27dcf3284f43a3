"""Token classification (named entities, parts of speech): a tag for each token. Input ``tokens``."""

from __future__ import annotations

from typing import Any

from maskhub.errors import CheckpointError, DataError
from maskhub.tasks.examples import Examples, Table, label_ids
from maskhub.tasks.metrics import IGNORED, tagging_metrics, tagging_names
from maskhub.tasks.task import Names, TaskType, classes_config, rows

TOKEN_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "upos", "labels", "label")


def _fits(table: Table) -> bool:
    tokens = table.find("text", TOKEN_COLUMNS)
    return tokens is not None and table.is_list(tokens)


def _read(table: Table) -> Examples:
    text, label = table.column("text", TOKEN_COLUMNS), table.column("label", TAG_COLUMNS)
    for column in (text, label):
        if not table.is_list(column):
            raise DataError(f"{table.source}: column {column!r} holds no lists: a tag is needed for each token")
    tokens = table.lists(text)
    tags, names = table.class_lists(label)
    for row, (words, marks) in enumerate(zip(tokens, tags, strict=True), 1):
        if len(words) != len(marks):
            raise DataError(
                f"{table.source}: row {row} has {len(words)} tokens in column {text!r} and {len(marks)} tags in "
                f"column {label!r}",
                hint="Give each token one tag.",
            )
    return Examples(table.source, "token-classification", {"tokens": tokens}, tags, names)


def _encode(examples: Examples, tokenizer: Any, names: Names, max_length: int) -> Any:
    """A token's tag goes to the first of its sub-words; the others, and what is cut off, do not count."""
    if not tokenizer.is_fast:
        raise CheckpointError("token classification needs a tokenizer that tells words apart (a tokenizer.json)")
    tags = label_ids(examples, names)
    encoded = tokenizer(
        list(examples.inputs["tokens"]), is_split_into_words=True, truncation=True, max_length=max_length
    )
    labels = []
    for row, ids in enumerate(encoded["input_ids"]):
        words = encoded.word_ids(row)
        first = [word is not None and word != before for before, word in zip([None, *words], words, strict=False)]
        labels.append([tags[row][words[i]] if first[i] else IGNORED for i in range(len(ids))])
    if all(label == IGNORED for row in labels for label in row):
        raise DataError(f"{examples.source}: no token is left of what is cut to {max_length} sub-words")
    return rows({**encoded, "labels": labels}, [len(ids) for ids in encoded["input_ids"]])


def padded_labels(tokenizer: Any) -> Any:
    """Batches of texts with a label for each token."""
    from transformers import DataCollatorForTokenClassification

    return DataCollatorForTokenClassification(tokenizer)


TOKEN_CLASSIFICATION = TaskType(
    name="token-classification",
    type="token-classification",
    model="AutoModelForTokenClassification",
    columns="tokens; tags, ner_tags or pos_tags: lists of equal length",
    fits=_fits,
    read=_read,
    config=classes_config,
    encode=_encode,
    collator=padded_labels,
    metrics=tagging_names,
    measure=tagging_metrics,
    reduce=lambda logits, labels: logits.argmax(-1),
)
