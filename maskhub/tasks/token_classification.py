"""Token classification (named entities, parts of speech): a tag for each token.

Input ``tokens``, or to be tagged plain ``text``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from maskhub.errors import ArgumentError, CheckpointError, DataError, FormatError
from maskhub.tasks.examples import WRITE, Examples, Inputs, Table, label_ids
from maskhub.tasks.metrics import IGNORED, are_entities, tagging_metrics
from maskhub.tasks.task import Answer, Array, Names, TaskType, classes_config, padded_labels, rows, softmax
from maskhub.tasks.text_classification import TEXT_COLUMNS

PIECE, IGNORE = "tag_piece", "ignored_tags"  # in a task's configuration
PIECES = ("first", "last")
TOKEN_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "upos", "labels", "label")


@dataclass(frozen=True)
class TokenClassification(TaskType):
    """A tag for each word of a text: at its first sub-word, or at its last ``piece``.

    Tags that are ``ignored`` are neither learned, nor measured, nor answered.
    """

    piece: str = "first"
    ignored: tuple[str, ...] = ()

    name = "token-classification"
    type = "token-classification"
    model = "AutoModelForTokenClassification"
    columns = "tokens; tags, ner_tags or pos_tags: lists of equal length"

    def fits(self, table: Table) -> bool:
        tokens = table.find("text", TOKEN_COLUMNS)
        return tokens is not None and table.is_list(tokens)

    def inputs(self, table: Table) -> Inputs:
        column = table.column("text", (*TOKEN_COLUMNS, *TEXT_COLUMNS))
        return {"tokens": table.lists(column)} if table.is_list(column) else {"text": table.texts(column)}

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        text, label = table.column("text", (*TOKEN_COLUMNS, *TEXT_COLUMNS)), table.column("label", TAG_COLUMNS)
        for column in (text, label):
            if not table.is_list(column):
                raise DataError(
                    f"{table.source}: column {column!r} holds no lists: a tag is needed for each token", hint=WRITE
                )
        tags, names = table.class_lists(label)
        for row, (words, marks) in enumerate(zip(inputs["tokens"], tags, strict=True), 1):
            if len(words) != len(marks):
                raise DataError(
                    f"{table.source}: row {row} has {len(words)} tokens in column {text!r} and {len(marks)} tags in "
                    f"column {label!r}",
                    hint="Give each token one tag.",
                )
        return tags, names

    def told(self, config: dict[str, Any]) -> TokenClassification:
        piece, ignored = config.get(PIECE, "first"), config.get(IGNORE, [])
        if piece not in PIECES:
            raise FormatError(f"the mask's task has tags at the {piece!a} piece of a word", hint="It is first or last.")
        if not isinstance(ignored, list) or not all(isinstance(tag, str) for tag in ignored):
            raise FormatError(f"the mask's task has {IGNORE} that are no list of tags")
        told = replace(self, piece=piece, ignored=tuple(ignored))
        return self if told == self else told

    def counted(self, examples: Examples) -> Examples:
        if not self.ignored or not examples.labels:
            return examples
        labels = [[None if tag in self.ignored else tag for tag in tags] for tags in examples.labels]
        names = tuple(name for name in examples.label_names if name not in self.ignored)
        return replace(examples, labels=labels, label_names=names)

    def config(self, names: Names) -> dict[str, Any]:
        own = {PIECE: self.piece} if self.piece != "first" else {}
        return classes_config(names) | own | ({IGNORE: list(self.ignored)} if self.ignored else {})

    def encode(self, examples: Examples, processor: Any, names: Names, max_length: int) -> Any:
        """A token's tag goes to the first of its sub-words, or the last; the others, and what is cut off, do not count.

        Where no tags are known, the token's number takes its place.
        """
        if not processor.is_fast:
            raise CheckpointError("token classification needs a tokenizer that tells words apart (a tokenizer.json)")
        texts = examples.inputs.get("text", ())
        tokens = list(examples.inputs.get("tokens", ())) or [
            [text[start:end] for start, end in _spans(processor, text)] for text in texts
        ]
        tags = label_ids(self.counted(examples), names) if examples.labels else [range(len(words)) for words in tokens]
        encoded = processor(tokens, is_split_into_words=True, truncation=True, max_length=max_length)
        labels = []
        for row, ids in enumerate(encoded["input_ids"]):
            words = encoded.word_ids(row)
            beside, cut = [None, *words], set()
            if self.piece == "last":
                beside = [*words[1:], None]
                cut = {word for rest in encoded[row].overflowing for word in rest.word_ids}
            shown = [
                word is not None and word != other and word not in cut
                for other, word in zip(beside, words, strict=False)
            ]
            labels.append([tags[row][words[i]] if shown[i] else IGNORED for i in range(len(ids))])
        if examples.labels and all(label == IGNORED for row in labels for label in row):
            left_out = " and is not ignored" if self.ignored else ""
            raise DataError(f"{examples.source}: no token is left of what is cut to {max_length} sub-words{left_out}")
        return rows({**encoded, "labels": labels}, [len(ids) for ids in encoded["input_ids"]])

    def collator(self, processor: Any) -> Any:
        return padded_labels(processor)

    def metrics(self, names: Names) -> tuple[str, ...]:
        return ("f1", "precision", "recall", "accuracy") if are_entities(names) else ("accuracy",)

    def measure(self, predictions: Array, labels: Array, names: Names) -> dict[str, float]:
        return tagging_metrics(predictions, labels, names)

    def reduce(self, logits: Any, labels: Any) -> Any:
        return logits.argmax(-1)

    def given(self, inputs: Sequence[Any]) -> Inputs:
        if all(isinstance(text, str) for text in inputs):
            return {"text": list(inputs)}
        if all(isinstance(words, list | tuple) and all(isinstance(word, str) for word in words) for words in inputs):
            return {"tokens": [list(words) for words in inputs]}
        raise ArgumentError(
            "the mask's task reads texts, or lists of their words", hint="Give only the ones, or only the others."
        )

    def answer(self, asked: Answer, processor: Any, logits: Array, labels: Array, names: Names, top_k: int) -> Answer:
        """Entities as ``evaluate`` counts them, or each word's tag.

        ``start`` and ``end`` are characters of the text, in which a space joins words that came as a list.
        """
        if "text" in asked:
            text, spans = asked["text"], _spans(processor, asked["text"])
        else:
            text, spans = " ".join(asked["tokens"]), []
            for word in asked["tokens"]:
                start = spans[-1][1] + 1 if spans else 0
                spans.append((start, start + len(word)))
        at = labels != IGNORED
        spans, scores = [spans[number] for number in labels[at]], softmax(logits[at])
        tags = [names[i] for i in scores.argmax(-1)] if spans else []
        entities = are_entities(names)
        if entities:
            from seqeval.metrics.sequence_labeling import get_entities

            found = get_entities(tags)
        else:
            found = [(tag, i, i) for i, tag in enumerate(tags)]
        answers = []
        for tag, i, last in found:
            start, end = spans[i][0], spans[last][1]
            score = float(scores[i : last + 1].max(-1).mean())
            answers.append({"word": text[start:end], "label": tag, "score": score, "start": start, "end": end})
        return asked | {"entities" if entities else "tags": answers}


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where a text's words are: those that the tokenizer tells apart, or where it tells none apart what spaces do."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    found: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(encoded.word_ids(), encoded["offset_mapping"], strict=True):
        found[word] = (found.get(word, (start, end))[0], end)
    bare = [re.search(r"\S.*\S|\S", text[start:end], re.DOTALL) for start, end in found.values()]
    spans = [(start + at.start(), start + at.end()) for (start, _), at in zip(found.values(), bare, strict=True) if at]
    if any(re.search(r"\s", text[start:end]) for start, end in spans):
        return [at.span() for at in re.finditer(r"\S+", text)]
    return spans
