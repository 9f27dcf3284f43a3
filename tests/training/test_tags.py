"""Where a token's tag is learned, and tags that do not count: recorded in the mask, and so for evaluate and predict."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoTokenizer

import maskhub
from maskhub import tasks
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, DataError, FormatError
from maskhub.tasks.data import read_file
from maskhub.tasks.examples import Examples
from maskhub.tasks.metrics import IGNORED
from maskhub.tasks.token_classification import TokenClassification
from maskhub.training.train import learn
from tests import toy

NAMES = ("A", "B", "O")
LONG = ["unbelievable", "a", "incomprehensible"]  # of letters that the tiny vocabulary knows one by one


def encoded(base: Path, kind: TokenClassification, tokens: list[str], tags: list[str], length: int = 128) -> Any:
    examples = Examples("given", kind.name, {"tokens": [tokens]}, [tags] if tags else [], NAMES)
    tokenizer = AutoTokenizer.from_pretrained(base)
    counted = kind.counted(examples)
    rows = kind.encode(examples, tokenizer, counted.label_names, length)
    words = tokenizer([tokens], is_split_into_words=True, truncation=True, max_length=length).word_ids(0)
    return words, rows[0]["labels"]


def test_a_tag_is_at_the_first_or_the_last_sub_word(bert: Path) -> None:
    words, first = encoded(bert, TokenClassification(), LONG, ["A", "B", "O"])
    same, last = encoded(bert, TokenClassification(piece="last"), LONG, ["A", "B", "O"])
    assert words == same
    assert max(Counter(words).values()) > 3  # several pieces
    for word, label in enumerate([0, 1, 2]):
        places = [i for i, one in enumerate(words) if one == word]
        assert (first[places[0]], last[places[-1]]) == (label, label)
    assert [sum(label != IGNORED for label in labels) for labels in (first, last)] == [3, 3]


def test_a_word_whose_last_piece_is_cut_off_does_not_count(bert: Path) -> None:
    words, _ = encoded(bert, TokenClassification(piece="last"), LONG, ["A", "B", "O"])
    whole = max(i for i, word in enumerate(words) if word == 1) + 2  # with what ends a text
    for length in (whole, whole + 3):
        _, labels = encoded(bert, TokenClassification(piece="last"), LONG, ["A", "B", "O"], length)
        assert [label for label in labels if label != IGNORED] == [0, 1]
    _, labels = encoded(bert, TokenClassification(), LONG, ["A", "B", "O"], whole + 3)
    assert [label for label in labels if label != IGNORED] == [0, 1, 2]


def test_ignored_tags_do_not_count_and_are_no_classes(bert: Path) -> None:
    _, labels = encoded(bert, TokenClassification(ignored=("A",)), LONG, ["A", "B", "O"])
    assert [label for label in labels if label != IGNORED] == [0, 1]
    _, numbers = encoded(bert, TokenClassification(ignored=("A",)), LONG, [])
    assert [label for label in numbers if label != IGNORED] == [0, 1, 2]  # all words are answered


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagged")
    for name, count in (("train", 40), ("eval", 24)):
        toy.write_rows(folder / f"{name}.jsonl", toy.tagged(count, entities=False))
    return folder


def test_a_mask_records_both_and_is_measured_so(bert: Path, tagged: Path, tmp_path: Path) -> None:
    run = learn(toy.settings(bert, tagged, tag_piece="last", ignore_tags="other"), tmp_path / "run")
    mask = open_mask(run.mask)
    assert mask.task.config["tag_piece"] == "last"
    assert mask.task.config["ignored_tags"] == ["other"]
    assert tasks.label_names(mask.task) == ("film", "towns")
    assert tasks.of_mask(mask.task) == TokenClassification("last", ("other",))
    (measured,) = maskhub.evaluate(bert, run.mask, file=tagged / "eval.jsonl")
    shown = {name: value for name, value in run.metrics.items() if name != "loss"}
    assert measured.metrics == pytest.approx(shown)
    examples = read_file(tagged / "eval.jsonl")
    counts = Counter(tag for tags in examples.labels for tag in tags if tag != "other")
    assert measured.metrics["majority_accuracy"] == pytest.approx(max(counts.values()) / sum(counts.values()))

    text = [["man", "unbelievable", "who"], ["incomprehensible", "film"]]
    answers = maskhub.predict(bert, run.mask, text)
    assert {tag["label"] for answer in answers for tag in answer["tags"]} <= {"film", "towns"}
    assert [len(answer["tags"]) for answer in answers] == [3, 2]
    live = maskhub.load_tasks(bert, {"one": run.mask})
    assert live.predict(text, "one") == answers
    plain = dataclasses.replace(
        mask, task=msgspec.structs.replace(mask.task, config=mask.task.config | {"tag_piece": "first"})
    )
    assert any(
        not np.isclose(a["score"], b["score"])
        for one, other in zip(answers, maskhub.predict(bert, plain, text), strict=True)
        for a, b in zip(one["tags"], other["tags"], strict=True)
    )


def test_without_these_options_nothing_is_recorded(bert: Path, tagged: Path, tmp_path: Path) -> None:
    task = open_mask(learn(toy.settings(bert, tagged, epochs=0.2), tmp_path / "run").mask).task
    assert set(task.config) == {"id2label", "label2id"}
    assert tasks.of_mask(task) is tasks.REGISTRY["token-classification"]


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"ignore_tags": "noun"}, "ignore_tags: no token has the tag 'noun'", "There are: film, other, towns."),
        ({"ignore_tags": "film,other,towns"}, "ignore_tags: no tag is left to learn", "Name fewer."),
        ({"tag_piece": "middle"}, "tag_piece: there is no 'middle'", "It is one of: first, last."),
    ],
)
def test_tags_that_cannot_be(
    bert: Path, tagged: Path, tmp_path: Path, given: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        learn(toy.settings(bert, tagged, **given), tmp_path / "run")
    assert (caught.value.message, caught.value.hint) == (f"training settings: {message}", hint)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [{"tag_piece": "last"}, {"ignore_tags": "film"}])
def test_tasks_without_tags(bert: Path, task: Path, tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(given))}: text-classification has no tags"):
        learn(toy.settings(bert, task, **given), tmp_path / "run")


def test_one_tag_left_is_no_task(bert: Path, tagged: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all examples have the label 'film'"):
        learn(toy.settings(bert, tagged, ignore_tags="other,towns"), tmp_path / "run")


@pytest.mark.parametrize(
    "config", [{"tag_piece": "both"}, {"tag_piece": 1}, {"ignored_tags": "O"}, {"ignored_tags": [1]}]
)
def test_a_mask_that_says_what_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"^the mask's task has "):
        TokenClassification().told(config)
