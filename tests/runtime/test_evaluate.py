from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from maskhub.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import DataError, FormatError
from maskhub.mask import MaskSet
from maskhub.runtime.evaluate import evaluate, predict
from maskhub.runtime.load import load_model, load_tokenizer
from maskhub.tasks.examples import Examples
from tests import tiny


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Checkpoint:
    return open_checkpoint(tiny_bert)


@pytest.fixture(scope="module")
def task(bert: Checkpoint) -> MaskSet:
    return tiny.tiny_maskset(bert)


def examples(count: int, *, pairs: bool = False) -> Examples:
    texts = [" ".join(["who"] * (1 + i % 7)) for i in range(count)]
    labels = [("ham", "spam", "spam")[i % 3] for i in range(count)]
    inputs = {"text": texts, "pair": texts[::-1]} if pairs else {"text": texts}
    return Examples("some.csv", "text-classification", inputs, labels, ("ham", "spam"))


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("count", [1, 5, 33])
def test_logits_in_the_order_of_the_examples(bert: Checkpoint, task: MaskSet, count: int, pairs: bool) -> None:
    model, tokenizer, data = load_model(bert, task), load_tokenizer(bert, task), examples(count, pairs=pairs)
    done: list[tuple[int, int]] = []
    logits = predict(model, tokenizer, data, batch_size=4, progress=lambda *at: done.append(at))
    assert logits.dtype == np.float32 and logits.shape == (count, 2)
    assert done == [(min(i + 4, count), count) for i in range(0, count, 4)]
    for i in range(count):
        one = tokenizer(*(texts[i] for texts in data.inputs.values()), return_tensors="pt")
        with torch.inference_mode():
            assert np.allclose(logits[i], model(**one).logits[0], atol=1e-6)


def test_examples_are_cut_to_the_length(bert: Checkpoint, task: MaskSet) -> None:
    model, tokenizer = load_model(bert, task), load_tokenizer(bert, task)
    texts = ["who what when", "who what", "who what when where how is"]
    long = Examples("s", "text-classification", {"text": texts}, ["x"] * 3, ("x",))
    logits = predict(model, tokenizer, long, max_length=4)
    assert logits[0].tolist() == logits[1].tolist() == logits[2].tolist()
    assert not np.array_equal(*predict(model, tokenizer, long.head(2)))


def test_metrics(bert: Checkpoint, task: MaskSet) -> None:
    data = examples(30)
    logits = predict(load_model(bert, task), load_tokenizer(bert, task), data)
    metrics = evaluate(bert.folder, task, data)
    said = [("ham", "spam")[i] for i in logits.argmax(-1)]
    assert metrics["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(said, data.labels, strict=True)]))
    assert metrics["majority_accuracy"] == pytest.approx(2 / 3)
    assert set(metrics) == {"accuracy", "f1", "f1_ham", "f1_spam", "matthews_correlation", "majority_accuracy"}
    assert evaluate(bert, task, data) == metrics


def test_the_tasks_order_of_labels_counts(bert: Checkpoint, task: MaskSet) -> None:
    """Not that of the file, nor that of the text "10" before "2"."""
    assert task.task is not None
    data = dataclasses.replace(examples(30), label_names=("spam", "ham"))
    assert evaluate(bert, task, data) == evaluate(bert, task, examples(30))


def test_labels_that_the_task_does_not_know(bert: Checkpoint, task: MaskSet) -> None:
    data = dataclasses.replace(examples(3), labels=["ham", "eggs", "spam"])
    with pytest.raises(DataError) as caught:
        evaluate(bert, task, data)
    assert str(caught.value) == "some.csv: row 2 has the label 'eggs', which the task does not know"
    assert caught.value.hint == "It knows: ham, spam."


def test_a_mask_that_names_no_task_or_no_labels(bert: Checkpoint, task: MaskSet) -> None:
    assert task.task is not None
    for nameless, message in (
        (None, "the mask names no task, so it cannot be evaluated"),
        (msgspec.structs.replace(task.task, config={}), "the mask names no labels, so it cannot be evaluated"),
        (msgspec.structs.replace(task.task, type="fill-mask"), "the mask is for fill-mask, which cannot be evaluated"),
    ):
        with pytest.raises(FormatError, match=f"^{message}"):
            evaluate(bert, dataclasses.replace(task, task=nameless), examples(3))
