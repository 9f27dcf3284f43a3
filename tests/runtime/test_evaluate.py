from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import ArgumentError, DataError, FormatError
from maskhub.masks.mask import MaskSet
from maskhub.runtime import shared
from maskhub.runtime.evaluate import _gathered, evaluate, logits_of, outputs
from maskhub.runtime.load import build_model, load_model, load_processor
from maskhub.tasks import REGISTRY
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
    model, tokenizer, data = load_model(bert, task), load_processor(bert, task), examples(count, pairs=pairs)
    done: list[tuple[int, int]] = []
    logits = logits_of(model, tokenizer, data, batch_size=4, progress=lambda *at: done.append(at))
    assert logits.dtype == np.float32
    assert logits.shape == (count, 2)
    assert done == [(min(i + 4, count), count) for i in range(0, count, 4)]
    for i in range(count):
        one = tokenizer(*(texts[i] for texts in data.inputs.values()), return_tensors="pt")
        with torch.inference_mode():
            assert np.allclose(logits[i], model(**one).logits[0], atol=1e-6)


def test_examples_are_cut_to_the_length(bert: Checkpoint, task: MaskSet) -> None:
    model, tokenizer = load_model(bert, task), load_processor(bert, task)
    texts = ["who what when", "who what", "who what when where how is"]
    long = Examples("s", "text-classification", {"text": texts}, ["x"] * 3, ("x",))
    logits = logits_of(model, tokenizer, long, max_length=4)
    assert np.ptp(logits, axis=0) == pytest.approx([0, 0], abs=1e-6)  # rows of a batch may round differently
    assert not np.array_equal(*logits_of(model, tokenizer, long.head(2)))


def test_metrics(bert: Checkpoint, task: MaskSet) -> None:
    data = examples(30)
    logits = logits_of(load_model(bert, task), load_processor(bert, task), data)
    (metrics,) = evaluate(bert.folder, task, data)
    said = [("ham", "spam")[i] for i in logits.argmax(-1)]
    assert metrics["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(said, data.labels, strict=True)]))
    assert metrics["majority_accuracy"] == pytest.approx(2 / 3)
    assert set(metrics) == {"accuracy", "f1", "f1_ham", "f1_spam", "matthews_correlation", "majority_accuracy"}
    assert evaluate(bert, [task], data) == [metrics]


def test_the_tasks_order_of_labels_counts(bert: Checkpoint, task: MaskSet) -> None:
    """Not that of the file, nor that of the text "10" before "2"."""
    assert task.task is not None
    data = dataclasses.replace(examples(30), label_names=("spam", "ham"))
    assert evaluate(bert, task, data) == evaluate(bert, task, examples(30))


def together(logits: list[np.ndarray], ensemble: str) -> np.ndarray:
    """The classes that an ensemble says, computed by hand."""
    if ensemble == "logits":
        return np.asarray(np.mean(logits, 0).argmax(-1))
    odds = np.mean([np.exp(one) / np.exp(one).sum(-1, keepdims=True) for one in logits], 0)
    if ensemble == "probs":
        return np.asarray(odds.argmax(-1))
    votes = np.sum([one.argmax(-1)[:, None] == np.arange(one.shape[1]) for one in logits], 0)
    most = votes == votes.max(-1, keepdims=True)
    return np.asarray(np.where(most, odds, -1).argmax(-1))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("ensemble", ["logits", "probs", "vote"])
def test_ensembles(bert: Checkpoint, ensemble: str, count: int) -> None:
    """Also of an even number, where votes may be equal."""
    rng = np.random.default_rng(0)
    words = np.array(["who", "free", "prize", "city", "call", "the", "man"])
    texts = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(60)]
    data = Examples("s", "text-classification", {"text": texts}, ["ham", "spam"] * 30, ("ham", "spam"))
    masks = [tiny.tiny_maskset(bert, seed=seed, sparsity=0.4) for seed in range(count)]
    logits = [logits_of(load_model(bert, mask), load_processor(bert, mask), data) for mask in masks]
    said = together(logits, ensemble)
    (metrics,) = evaluate(bert, masks, data, ensemble=ensemble)
    assert metrics["accuracy"] == pytest.approx(np.mean(said == np.tile([0, 1], 30)))


def test_masks_that_make_no_ensemble(bert: Checkpoint, task: MaskSet) -> None:
    assert task.task is not None
    labels = {"id2label": {"0": "spam", "1": "ham"}}
    other = dataclasses.replace(task, task=msgspec.structs.replace(task.task, config=labels))
    cut = dataclasses.replace(task, task=msgspec.structs.replace(task.task, max_length=9))
    tags = dataclasses.replace(task, task=msgspec.structs.replace(task.task, type="token-classification"))
    elsewhere = dataclasses.replace(task, base=msgspec.structs.replace(task.base, root="0" * 64))
    numbers = msgspec.structs.replace(task.task, config=task.task.config | {"problem_type": "regression"})
    for masks, ensemble, message in (
        ([task, task], "mean", "ensemble of text-classification masks: there is no 'mean'"),
        ([task, other], "vote", "mask 2 of the ensemble is for another task than the first: "),
        ([task, task, cut], "vote", "mask 3 of the ensemble is for another task than the first: "),
        ([task, tags], "vote", "mask 2 of the ensemble is for another task than the first: "),
        ([task, elsewhere], "vote", "mask 2 of the ensemble has another base than the first"),
        ([dataclasses.replace(task, task=numbers)] * 2, "vote", "ensemble of regression masks: there is no 'vote'"),
    ):
        with pytest.raises(ArgumentError if message.startswith("ensemble of") else FormatError) as caught:
            evaluate(bert, masks, examples(3), ensemble=ensemble)
        assert str(caught.value).startswith(message)
    with pytest.raises(DataError, match=r"^some\.csv: holds examples for text-classification, and the mask's task is "):
        evaluate(bert, tags, examples(3))


def test_labels_that_the_task_does_not_know(bert: Checkpoint, task: MaskSet) -> None:
    data = dataclasses.replace(examples(3), labels=["ham", "eggs", "spam"])
    with pytest.raises(DataError) as caught:
        evaluate(bert, task, data)
    assert caught.value.message == "some.csv: row 2 has the label 'eggs', which the task does not know"
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


@pytest.mark.parametrize("several", [2, 3])
def test_masks_measured_together_are_as_alone(bert: Checkpoint, several: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, and with one base in memory."""
    masks = [tiny.tiny_maskset(bert, seed=seed, sparsity=0.1 + seed / 5) for seed in range(several)]
    data = examples(50)
    alone = [evaluate(bert, mask, data)[0] for mask in masks]
    assert len({str(metrics) for metrics in alone}) > 1
    loaded: list[object] = []
    monkeypatch.setattr(shared, "build_model", lambda *args, **kw: loaded.append(1) or build_model(*args, **kw))
    assert evaluate(bert, masks, data) == alone
    assert len(loaded) == 1


@pytest.mark.parametrize("way", ["logits", "probs", "vote"])
def test_ensembles_are_as_of_models_of_their_own(bert: Checkpoint, way: str) -> None:
    masks = [tiny.tiny_maskset(bert, seed=seed, sparsity=0.1 + seed / 5) for seed in range(3)]
    data, names = examples(50), ("ham", "spam")
    batches = outputs(
        [load_model(bert, mask) for mask in masks], load_processor(bert, masks[0]), data, names, ensemble=way
    )
    right = REGISTRY["text-classification"].measure(*_gathered(batches, REGISTRY["text-classification"]), names)
    assert evaluate(bert, masks, data, ensemble=way) == [right]


def test_masks_together_on_a_base_with_other_names(bert: Checkpoint, tmp_path: Path) -> None:
    masks = [tiny.tiny_maskset(bert, seed=seed) for seed in range(2)]
    transformers.BertForPreTraining.from_pretrained(bert.folder).save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    with pytest.warns(UserWarning, match="matched by their digests"):
        found = evaluate(tmp_path, masks, examples(20))
    assert found == [evaluate(bert, mask, examples(20))[0] for mask in masks]
