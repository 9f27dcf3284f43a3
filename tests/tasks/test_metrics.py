from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")
pytest.importorskip("seqeval")

from maskhub.tasks import REGISTRY
from maskhub.tasks.metrics import (
    are_entities,
    choice_metrics,
    classification_metrics,
    perplexity,
    regression_metrics,
    tagging_metrics,
)

LOGITS = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])  # says 0, 1, 0, 1


def test_two_classes() -> None:
    assert classification_metrics(LOGITS, [0, 1, 1, 1], ("ham", "spam")) == {
        "accuracy": 0.75,
        "f1": pytest.approx((2 / 3 + 4 / 5) / 2),
        "matthews_correlation": pytest.approx(1 / np.sqrt(3)),
        "f1_ham": pytest.approx(2 / 3),
        "f1_spam": pytest.approx(4 / 5),
        "majority_accuracy": 0.75,
    }


def test_more_classes() -> None:
    found = classification_metrics(np.eye(3), [0, 1, 1], ("a", "b", "c"))
    assert set(found) == {*REGISTRY["text-classification"].metrics(("a", "b", "c")), "majority_accuracy"}
    assert found["accuracy"] == found["majority_accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_choices() -> None:
    assert choice_metrics(LOGITS, [0, 0, 0, 1]) == {"accuracy": 0.75, "majority_accuracy": 0.75}


def test_numbers() -> None:
    found = regression_metrics(np.array([[1.0], [2.0], [4.0]]), [1.0, 3.0, 9.0])
    assert found["spearman_correlation"] == pytest.approx(1)
    assert found["pearson_correlation"] == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 9])[0, 1])
    assert found["mse"] == pytest.approx((0 + 1 + 25) / 3)


@pytest.mark.parametrize(("said", "wanted"), [([2.0, 2.0], [1.0, 3.0]), ([1.0, 2.0], [5.0, 5.0]), ([1.0], [1.0])])
def test_a_constant_has_no_correlation(said: list[float], wanted: list[float]) -> None:
    found = regression_metrics(np.array(said), wanted)
    assert (found["spearman_correlation"], found["pearson_correlation"]) == (0, 0)


TAGS = ("B-LOC", "B-PER", "I-PER", "O")


def test_entities_count_whole() -> None:
    """Two persons and a place are there; one person is found, one cut short, and the place taken for nothing."""
    labels = np.array([[1, 2, 3, 1], [-100, 1, 2, 0]])
    labels[0, 3] = -100
    said = np.array([[1, 2, 3, 0], [0, 1, 3, 3]])
    found = tagging_metrics(said, labels, TAGS)
    assert found == {
        "f1": pytest.approx(2 * (1 / 2 * 1 / 3) / (1 / 2 + 1 / 3)),
        "precision": pytest.approx(1 / 2),
        "recall": pytest.approx(1 / 3),
        "accuracy": pytest.approx(4 / 6),
        "majority_accuracy": pytest.approx(2 / 6),
    }
    assert set(found) == {*REGISTRY["token-classification"].metrics(TAGS), "majority_accuracy"}


def test_parts_of_speech_have_an_accuracy() -> None:
    labels = np.array([[0, 1, -100]])
    assert tagging_metrics(np.array([[0, 0, 0]]), labels, ("NOUN", "VERB")) == {
        "accuracy": 0.5,
        "majority_accuracy": 0.5,
    }


@pytest.mark.parametrize(
    ("tags", "expected"),
    [(TAGS, True), (("I-X", "O"), True), (("S-X", "E-X", "O"), True), (("O",), False), (("NOUN", "O"), False)],
)
def test_what_marks_entities(tags: tuple[str, ...], expected: bool) -> None:
    assert are_entities(tags) == expected


def test_perplexity_is_of_what_counts() -> None:
    losses = np.array([[math.log(2), math.log(8), 99.0]])
    assert perplexity(losses, np.array([[5, 6, 7, -100]])) == {"perplexity": pytest.approx(4)}
