"""Many tasks live on one base: exact switches."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.masks.mask import MaskSet
from maskhub.runtime.live import Tasks
from maskhub.runtime.load import load_model
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import from_torch
from tests import tiny

BATCH = {
    "input_ids": torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
NAMES = ("spam", "trec", "many")


@pytest.fixture(scope="module")
def base(tiny_bert: Path) -> Checkpoint:
    return open_checkpoint(tiny_bert)


@pytest.fixture(scope="module")
def masks(base: Checkpoint) -> dict[str, MaskSet]:
    """Three tasks: two of few dropped weights, with two and three labels, and one that drops half of them."""
    spam, trec, many = (tiny.tiny_maskset(base, seed=seed) for seed in range(3))
    three = {"id2label": {str(i): f"l{i}" for i in range(3)}, "label2id": {f"l{i}": i for i in range(3)}}
    assert trec.task is not None
    rng = np.random.default_rng(0)
    head = {
        name: RawTensor.from_numpy(rng.normal(size=(3, *tensor.shape[1:])).astype(np.float32))
        for name, tensor in trec.dense.items()
    }
    trec = dataclasses.replace(trec, dense=head, task=msgspec.structs.replace(trec.task, config=three))
    many = dataclasses.replace(many, masks={n: tiny.random_mask(m.shape, rng, 0.5) for n, m in many.items()})
    return dict(zip(NAMES, (spam, trec, many), strict=True))


@pytest.fixture
def tasks(base: Checkpoint, masks: dict[str, MaskSet]) -> Tasks:
    live = Tasks(base, memory="10MB")
    for name, maskset in masks.items():
        live.load_task(maskset, name)
    return live


@pytest.fixture(scope="module")
def expected(base: Checkpoint, masks: dict[str, MaskSet]) -> dict[str, transformers.PreTrainedModel]:
    return {name: load_model(base, maskset) for name, maskset in masks.items()}


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    one, two = model.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(
        from_torch(one[n]).data.tobytes() == from_torch(two[n]).data.tobytes() for n in one
    )


def test_each_task_is_its_dense_model(tasks: Tasks, expected: dict[str, Any]) -> None:
    assert tasks.task_names == list(NAMES)
    for name in (*NAMES, *reversed(NAMES)):
        tasks.set_task(name)
        assert tasks.active_task == name
        model = tasks[name]
        assert type(model) is transformers.BertForSequenceClassification
        assert same(model, expected[name])
        assert model.config.id2label == expected[name].config.id2label
    for name in NAMES:  # also without set_task
        assert torch.equal(tasks[name](**BATCH).logits, expected[name](**BATCH).logits)
        assert tasks.active_task == name


def test_random_switches_are_right(tasks: Tasks, expected: dict[str, Any]) -> None:
    rng = random.Random(0)
    for _ in range(200):
        name = rng.choice([*NAMES, None])
        tasks.set_task(name)
        if name is not None:
            assert same(tasks[name], expected[name])
    tasks.set_task(None)
    tasks.verify()


def test_the_encoder_is_there_once(tasks: Tasks) -> None:
    spam, trec = tasks["spam"], tasks["trec"]
    assert spam.bert is trec.bert
    assert spam.classifier is not trec.classifier
    assert tasks.memory().base == sum(p.nbytes for p in spam.bert.parameters())
    assert tasks.memory().heads < 1000


def test_a_batch_of_many_tasks(tasks: Tasks, expected: dict[str, Any], base: Checkpoint) -> None:
    rows = 7
    torch.manual_seed(0)
    batch = {"input_ids": torch.randint(5, 30, (rows, 9)), "attention_mask": torch.ones(rows, 9, dtype=torch.int64)}
    names = ["spam", "many", "__base__", "trec", "spam", "trec", "many"]
    tasks.set_task("trec")
    found = tasks(**batch, task_names=names).logits
    plain = transformers.AutoModel.from_pretrained(base.folder)
    for row, name in enumerate(names):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        with torch.no_grad():
            right = plain(**one).last_hidden_state[0] if name == "__base__" else expected[name](**one).logits[0]
        assert found[row].shape == right.shape
        assert torch.allclose(found[row], right, atol=1e-5), (row, name)
    assert list(tasks._mixes.values()) == [True]
    assert tasks.active_task == "trec"
    assert same(tasks["trec"], expected["trec"])
