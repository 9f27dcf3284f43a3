"""Multiple choice: a prompt, its possible continuations, and which is right. Inputs ``prompt`` and ``choices``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from maskhub.errors import ArgumentError, DataError
from maskhub.tasks.examples import Examples, Inputs, Table, number
from maskhub.tasks.metrics import choice_metrics
from maskhub.tasks.task import Answer, Array, Names, TaskType, likeliest, rows, softmax

PROMPT_COLUMNS = ("prompt", "question_propmt", "question", "ctx", "context", "startphrase")  # the second is CODAH's
CHOICE_COLUMNS = ("choices", "candidate_answers", "endings", "options")
INDEX_COLUMNS = ("label", "labels", "correct_answer_idx", "answer")


class MultipleChoice(TaskType):
    """Which of some continuations is right."""

    name = "multiple-choice"
    type = "multiple-choice"
    model = "AutoModelForMultipleChoice"
    columns = "prompt, choices (a list), label (an index); or SWAG's sent1, sent2, ending0, ending1, ..., label"

    def fits(self, table: Table) -> bool:
        choices = table.find("pair", CHOICE_COLUMNS)
        return bool(_endings(table)) or (choices is not None and table.is_list(choices))

    def inputs(self, table: Table) -> Inputs:
        if endings := _endings(table):
            columns = [table.texts(name) for name in endings]
            choices = [list(row) for row in zip(*columns, strict=True)]
            if not table.columns.text and {"sent1", "sent2"} <= set(
                table.names
            ):  # each ending goes on the second sentence
                prompts = table.texts("sent1")
                begun = table.texts("sent2")
                choices = [[f"{start} {end}" for end in row] for start, row in zip(begun, choices, strict=True)]
            else:
                prompts = table.texts(table.column("text", PROMPT_COLUMNS))
        else:
            prompts = table.texts(table.column("text", PROMPT_COLUMNS))
            choices = table.lists(table.column("pair", CHOICE_COLUMNS))
        return _checked(prompts, choices, table.source)

    def labels(self, table: Table, inputs: Inputs) -> tuple[list[Any], Names]:
        column, count = table.column("label", INDEX_COLUMNS), len(inputs["choices"][0])
        values = enumerate(table.values(column), 1)
        return [_index(value, count, table.source, column, row) for row, value in values], ()

    def encode(self, examples: Examples, processor: Any, names: Names, max_length: int) -> Any:
        prompts, choices = examples.inputs["prompt"], examples.inputs["choices"]
        count = len(choices[0])
        flat = processor(
            [prompt for prompt in prompts for _ in range(count)],
            [choice for row in choices for choice in row],
            truncation=True,
            max_length=max_length,
        )
        starts = range(0, len(prompts) * count, count)
        encoded = {key: [values[start : start + count] for start in starts] for key, values in flat.items()}
        lengths = [max(map(len, row)) for row in encoded["input_ids"]]
        return rows({**encoded, "labels": examples.targets()}, lengths)

    def collator(self, processor: Any) -> Any:
        from transformers import DataCollatorForMultipleChoice

        return DataCollatorForMultipleChoice(processor)

    def metrics(self, names: Names) -> tuple[str, ...]:
        return ("accuracy",)

    def measure(self, predictions: Array, labels: Array, names: Names) -> dict[str, float]:
        return choice_metrics(predictions, labels)

    def given(self, inputs: Sequence[Any]) -> Inputs:
        for asked in inputs:
            if not isinstance(asked, dict) or not {"prompt", "choices"} <= set(asked):
                raise ArgumentError(
                    f"{asked!r}: the mask's task reads a prompt and its choices",
                    hint='Give {"prompt": ..., "choices": [..., ...]}, or a file of them.',
                )
        return _checked([asked["prompt"] for asked in inputs], [list(asked["choices"]) for asked in inputs], "inputs")

    def answer(self, asked: Answer, processor: Any, logits: Array, labels: Array, names: Names, top_k: int) -> Answer:
        said = enumerate(zip(asked["choices"], softmax(logits).tolist(), strict=True))
        return asked | likeliest([{"index": i, "choice": choice, "score": score} for i, (choice, score) in said], top_k)


def _endings(table: Table) -> list[str]:
    """SWAG's columns of endings, where the caller names no column of choices."""
    found = [name for name in table.names if re.fullmatch(r"ending\d+", name)]
    return sorted(found, key=lambda name: int(name.removeprefix("ending"))) if not table.columns.pair else []


def _checked(prompts: list[str], choices: list[list[str]], source: str) -> Inputs:
    count = len(choices[0])
    for row, given in enumerate(choices, 1):
        if len(given) != count:
            raise DataError(
                f"{source}: row {row} has {len(given)} choices, and row 1 has {count}",
                hint="Give all rows the same number of choices.",
            )
    if count < 2:
        raise DataError(f"{source}: row 1 has one choice only; two or more are needed")
    return {"prompt": prompts, "choices": choices}


def _index(value: Any, count: int, source: str, column: str, row: int) -> int:
    index = number(value)
    if index is None or index not in range(count):
        raise DataError(
            f"{source}: row {row} has {value!r} in column {column!r}, which is no index of its {count} choices",
            hint=f"It counts from 0 to {count - 1}.",
        )
    return int(index)
