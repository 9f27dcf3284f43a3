"""Examples held out to evaluate on, and what is said of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("datasets")

from maskhub.errors import ArgumentError
from maskhub.tasks.examples import Examples
from maskhub.training.examples import classes, held_out, read, told
from maskhub.training.settings import settings_from
from tests import toy


def labelled(**counts: int) -> Examples:
    labels = [label for label, count in counts.items() for _ in range(count)]
    texts = [str(i) for i in range(len(labels))]
    return Examples("t.csv", "text-classification", {"text": texts}, labels, tuple(sorted(counts)), ("text", "label"))


def test_a_share_of_each_class_is_held_out() -> None:
    examples = labelled(often=200, seldom=40, once=1)
    rest, out = held_out(examples, 0.1, 0)
    assert Counter(out.labels) == {"often": 20, "seldom": 4}
    assert len(rest) + len(out) == 241
    assert not set(rest.inputs["text"]) & set(out.inputs["text"])
    for part in (rest, out):
        assert [examples.labels[int(text)] for text in part.inputs["text"]] == part.labels
        assert part.label_names == examples.label_names
    assert out.source == "t.csv, held out"


def test_the_seed_draws_them() -> None:
    first, again, other = (held_out(labelled(a=50, b=50), 0.2, seed)[1].inputs["text"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("share", "count"), [(0.01, 0), (0.99, 20)])
def test_shares_that_leave_nothing(share: float, count: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        held_out(labelled(a=10, b=10), share, 0)
    assert caught.value.message == (
        f"training settings: eval_split: {share} of 20 examples is {count}, where 1 to 18 can be held out"
    )


@pytest.mark.parametrize("kind", ["tags", "choices", "numbers", "texts", "images"])
def test_every_kind_of_task_can_be_split(kind: str, tmp_path: Path) -> None:
    made = {"tags": toy.tagged, "choices": toy.choices, "numbers": toy.scored, "texts": toy.spoken}
    file = toy.write_images(tmp_path / "images", 20) if kind == "images" else tmp_path / "t.jsonl"
    if kind != "images":
        toy.write_rows(file, made[kind](20))
    data = read(settings_from(base="b", train_file=file, eval_split=0.25), None)
    assert data.evaluation is not None
    assert (len(data.training), len(data.evaluation)) == (15, 5)


def test_what_is_said_of_them(tmp_path: Path) -> None:
    train, dev = toy.write_task(tmp_path, 3, pairs=True, count=41)
    settings = settings_from(base="b", train_file=train, eval_file=dev)
    data = read(settings, None)
    assert list(told(data)) == [
        "Task: text-classification, by the columns sentence1, sentence2, label",
        f"Examples: 41 to learn from, 24 to evaluate on ({dev})",
        "Classes: 3, from 13 examples (trivia) to 14 (film)",
    ]
    assert classes(data.training) == {"film": 14, "spam": 14, "trivia": 13}
    toy.write_rows(
        tmp_path / "tags.jsonl", [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": ["a"], "tags": ["O"]}]
    )
    data = read(settings_from(base="b", train_file=tmp_path / "tags.jsonl"), None)
    assert list(told(data)) == [
        "Task: token-classification, by the columns tokens, tags",
        "Examples: 2 to learn from, none to evaluate on",
        "Classes: 2, from 1 tokens (X) to 2 (O)",
    ]
