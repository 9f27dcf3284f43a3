"""Many tasks live on one base: what may go wrong raises, or is right."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import pickle
import random
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from safetensors.torch import load_file, save_file

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.container.writer import save
from maskhub.errors import (
    ArgumentError,
    BaseChangedError,
    BaseMismatchError,
    FormatError,
    MissingError,
    UnknownTaskError,
)
from maskhub.masks.mask import Mask, MaskSet
from maskhub.runtime.dropped import Bits, Places
from maskhub.runtime.live import Memory, Tasks, load_tasks
from maskhub.runtime.load import load_model
from maskhub.runtime.mixed import Rows
from maskhub.runtime.predict import predict
from maskhub.storage.source import LocalFile
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import from_torch
from maskhub.tasks.examples import Examples
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


@pytest.mark.parametrize("tokens", [9, 7])  # more than rows, and as many: which dimension is which is found out
def test_a_batch_of_many_tasks(tasks: Tasks, expected: dict[str, Any], base: Checkpoint, tokens: int) -> None:
    rows = 7
    torch.manual_seed(0)
    batch = {"input_ids": torch.randint(5, 30, (rows, tokens)), "attention_mask": torch.ones(rows, tokens).long()}
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
    assert list(tasks._batches._mixes.values()) == [True] * 3
    assert tasks.active_task == "trec"
    assert same(tasks["trec"], expected["trec"])


@pytest.mark.parametrize("size", [1e3, 1e5, 1e8])
def test_each_task_has_to_show_that_it_mixes(tmp_path: Path, size: float) -> None:
    """What others show tells nothing of a task that drops weights so large that taking them off again rounds."""
    folder = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.3)
    layer = "encoder.layer.0.intermediate.dense.weight"
    weights = load_file(folder / "model.safetensors")
    weights[layer][:32, :4] = size
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base = open_checkpoint(folder)
    few, large = (np.ones(base.info(layer).shape, bool) for _ in range(2))
    few[40, 5] = large[:32, :4] = False
    masks = {}
    for seed, flags in enumerate([few] * 2 + [large] * 4):
        mask = tiny.tiny_maskset(base, seed=seed, sparsity=0.05)
        masks[str(seed)] = dataclasses.replace(mask, masks={**mask, layer: Mask.from_bool(flags)})
    live, expected = load_tasks(base, masks), {name: load_model(base, mask) for name, mask in masks.items()}
    for names in ("01", "012345", "543210", "2345", "01"):
        torch.manual_seed(0)
        batch = {"input_ids": torch.randint(5, 30, (len(names), 9)), "attention_mask": torch.ones(len(names), 9).long()}
        found = live(**batch, task_names=list(names)).logits
        for row, name in enumerate(names):
            with torch.no_grad():
                right = expected[name](**{key: value[row : row + 1] for key, value in batch.items()}).logits[0]
            assert (found[row] - right).abs().max() <= 1e-4 * (1 + right.abs().max()), (names, name)
    mixes = live._batches._mixes
    assert {name: mixes[live[name]] for name in "01"} == {"0": True, "1": True}
    assert size < 1e4 or {mixes[live[name]] for name in "2345"} == {False}
    live.delete_task("2")
    live.load_task(masks["0"], "2")
    assert live["2"] not in mixes


def test_a_batch_under_autocast(tasks: Tasks, expected: dict[str, Any]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = tasks(**BATCH, task_names=["spam", "trec"]).logits
        for row, name in enumerate(("spam", "trec")):
            one = {key: value[row : row + 1] for key, value in BATCH.items()}
            assert torch.equal(found[row], expected[name](**one).logits[0])
    assert len(tasks._batches._mixes) == 0
    assert tasks(**BATCH, task_names=["spam", "trec"]).logits[0].dtype == torch.float32


def test_a_layers_input_that_changes_in_inference_mode() -> None:
    with torch.inference_mode():
        rows, inputs = Rows([], 2), torch.ones(2, 3, 4)
        assert torch.equal(rows.columns(inputs), torch.ones(2, 4, 3))
        inputs.add_(1)
        assert torch.equal(rows.columns(inputs), torch.full((2, 4, 3), 2.0))


def test_a_mixed_batch_in_inference_mode_is_as_outside(tasks: Tasks) -> None:
    names = ["spam", "trec"]
    right = tasks(**BATCH, task_names=names).logits
    right = tasks(**BATCH, task_names=names).logits
    with torch.inference_mode():
        inside = tasks(**{key: value.clone() for key, value in BATCH.items()}, task_names=names).logits
    assert all(torch.equal(one, other) for one, other in zip(inside, right, strict=True))
    assert not any(one.is_inference() for one in inside)


@pytest.mark.parametrize("name", ["sparn", "Spam", "", "__base__", None, 0])
def test_names_that_no_task_has(tasks: Tasks, expected: dict[str, Any], name: Any) -> None:
    """In no way a mistyped name gives the base's answers, or those of the task before."""
    tasks.set_task("spam")
    ways: list[Callable[[], object]] = [
        lambda: tasks[name],
        lambda: tasks.delete_task(name),
        lambda: tasks.mask(name),
        lambda: tasks.pipeline(name),
        lambda: tasks.processor(name),
        lambda: tasks.predict(["who", "what"], ["spam", name]),
    ]
    if name is not None:
        ways.append(lambda: tasks.set_task(name))
        ways.append(lambda: tasks.predict("who", name) if name else tasks[name])
    if name != "__base__":
        ways.append(lambda: tasks(**BATCH, task_names=["spam", name]))
    for way in ways:
        with pytest.raises(UnknownTaskError, match=f"no task is called {name!r}. Loaded are spam, trec, many."):
            way()
    assert name not in tasks
    assert tasks.active_task == "spam"
    assert same(tasks["spam"], expected["spam"])


@pytest.mark.parametrize("name", ["spam", "__base__", "", 7, None])
def test_names_that_cannot_be_given(tasks: Tasks, masks: dict[str, MaskSet], name: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^task {name!r}: "):
        tasks.load_task(masks["trec"], name)
    assert tasks.task_names == list(NAMES)


def changed(maskset: MaskSet, **task: Any) -> MaskSet:
    assert maskset.task is not None
    return dataclasses.replace(maskset, task=msgspec.structs.replace(maskset.task, **task))


def wide(maskset: MaskSet) -> MaskSet:
    """With a head for other vectors."""
    head = {"classifier.weight": tiny.random_tensor("F32", (2, 31), np.random.default_rng(0))}
    return dataclasses.replace(maskset, dense={**maskset.dense, **head})


def test_masks_that_do_not_fit(
    tasks: Tasks, masks: dict[str, MaskSet], expected: dict[str, Any], tmp_path: Path
) -> None:
    other = tiny.tiny_maskset(tiny.tiny_model("bert", tmp_path / "other", seed=1))
    deeper = tiny.tiny_maskset(tiny.tiny_model("bert", tmp_path / "deeper", layers=3))
    spam = masks["spam"]
    more = {"classifier.extra": tiny.random_tensor("F32", (2,), np.random.default_rng(0))}
    wrong: list[tuple[MaskSet, type[Exception], str]] = [
        (other, BaseMismatchError, "not the base this mask was made for: it differs in"),
        (deeper, BaseMismatchError, "not the base this mask was made for: it lacks"),
        (dataclasses.replace(spam, task=None), FormatError, "the mask names no task"),
        (changed(spam, architecture="BertForNothing"), FormatError, "'BertForNothing' is no model class"),
        (changed(spam, architecture="GPT2ForSequenceClassification"), FormatError, "does not fit GPT2For"),
        (wide(spam), FormatError, r"does not fit BertForSequenceClassification: classifier.weight has the shape"),
        (dataclasses.replace(spam, dense={}), FormatError, "does not fit BertForSequenceClassification: it has no cl"),
        (dataclasses.replace(spam, dense={**spam.dense, **more}), FormatError, "unknown: classifier.extra"),
        (changed(wide(spam), architecture="BertForTokenClassification"), FormatError, "does not fit BertForToken"),
    ]

    for number, (maskset, error, told) in enumerate(wrong):
        with pytest.raises(error, match=f"^task 'wrong {number}': .*{told}"):
            tasks.load_task(maskset, f"wrong {number}")
    assert tasks.task_names == list(NAMES)
    for name in NAMES:
        assert same(tasks[name], expected[name])
    tasks.verify()


def test_a_head_is_looked_at_before_its_model_is_made(tasks: Tasks, masks: dict[str, MaskSet]) -> None:
    four = {"id2label": {str(i): f"l{i}" for i in range(4)}, "label2id": {f"l{i}": i for i in range(4)}}
    with pytest.raises(FormatError, match=r"classifier.weight has the shape \[3, 32\], not \[4, 32\]"):
        tasks.load_task(changed(masks["trec"], config=four), "more labels than the head has")
    with pytest.raises(FormatError, match=r"^task 'odd': the mask does not fit BertForSequenceClassification: "):
        tasks.load_task(changed(masks["trec"], config={"id2label": 5}), "odd")
    tasks.load_task(masks["trec"], "more")
    assert "more" not in tasks._models


def test_a_deleted_task(tasks: Tasks, masks: dict[str, MaskSet], expected: dict[str, Any]) -> None:
    held, other = tasks["spam"], tasks["trec"]
    tasks.set_task("spam")
    tasks.delete_task("spam")
    assert (tasks.active_task, tasks.task_names) == (None, ["trec", "many"])
    tasks.verify()
    for way in (lambda: held(**BATCH), lambda: held.forward(**BATCH), held.state_dict):
        with pytest.raises(UnknownTaskError, match="the task 'spam' was deleted"):
            way()
    tasks.load_task(masks["many"], "spam")  # another one of its name
    with pytest.raises(UnknownTaskError, match="the task 'spam' was deleted"):
        held(**BATCH)
    assert torch.equal(tasks["spam"](**BATCH).logits, expected["many"](**BATCH).logits)
    assert torch.equal(other(**BATCH).logits, expected["trec"](**BATCH).logits)


def test_a_task_deleted_by_another_thread(tasks: Tasks, masks: dict[str, MaskSet], expected: dict[str, Any]) -> None:
    """Each answer is right, until the model says that it is gone."""
    right, begun = expected["spam"](**BATCH).logits, threading.Event()
    said: list[bool] = []

    def ask() -> str:
        model = tasks["spam"]
        try:
            while True:
                said.append(torch.equal(model(**BATCH).logits, right))
                begun.set()
        except UnknownTaskError as error:
            return str(error)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(ask)
        begun.wait(10)
        tasks.delete_task("spam")
        assert told.result(10) == "the task 'spam' was deleted. Take its model anew: tasks[name]."
    assert all(said)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, p: p.add_(1),
        lambda model, p: p.copy_(p * 1),
        lambda model, p: setattr(p, "data", p.data + 1),
        lambda model, p: model.to(torch.bfloat16),
        lambda model, p: model.half(),
        lambda model, p: model.half().float(),  # maybe to the same place
        lambda model, p: model.to("meta"),
        lambda model, p: setattr(model.bert.pooler.dense, "weight", torch.nn.Parameter(p.clone())),
        lambda model, p: torch.optim.SGD([p], lr=1).step(),
    ],
    ids=["add", "copy", "data", "bfloat16", "half", "back", "meta", "parameter", "step"],
)
@pytest.mark.parametrize("same_task", [True, False])
def test_weights_that_someone_changed(tasks: Tasks, change: Callable[..., Any], same_task: bool) -> None:
    tasks.set_task("spam")
    model = tasks["spam"]
    weight = model.bert.encoder.layer[0].attention.self.query.weight
    weight.requires_grad_(True).grad = torch.ones_like(weight)
    with torch.no_grad():
        change(model, weight)
    name = "spam" if same_task else "trec"
    ways: list[Callable[[], object]] = [
        lambda: tasks[name](**BATCH),
        lambda: tasks(**BATCH, task_names=[name, "many"]),
        lambda: tasks.predict("who", name),
        lambda: tasks.verify(),
    ]
    for way in ways:
        with pytest.raises(BaseChangedError, match=r"was changed, moved or cast by someone else\. Load the tasks anew"):
            way()


def test_what_torch_does_not_count_as_a_change(tasks: Tasks) -> None:
    """Is found when asked for, and by samples after some switches."""
    tasks["spam"].bert.encoder.layer[1].output.dense.weight.data.add_(1e-3)
    with pytest.raises(BaseChangedError, match=r"changed by someone else.*: encoder.layer.1.output.dense.weight. Load"):
        tasks.verify()

    def switch() -> None:
        for _ in range(len(tasks.shared.weights) // 4 + 1):
            tasks.set_task("trec")

    with pytest.raises(BaseChangedError, match=r"encoder\.layer\.1\.output\.dense\.weight was changed by someone else"):
        switch()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("step", ["restore", "drop"])
@pytest.mark.parametrize("kind", [Places, Bits])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_switch(
    tasks: Tasks,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    step: str,
    kind: type,
    after: bool,
) -> None:
    """Before, or after, a tensor was changed. Whatever comes next is right, at once."""
    for name in NAMES:
        tasks.set_task(name)  # all are decoded
    old, new = ("many", "spam") if (kind is Bits) is (step == "restore") else ("spam", "many")
    for then in (None, old, new, "trec"):
        tasks.set_task(old)
        with monkeypatch.context() as patch:
            patch.setattr(kind, step, _interrupted(getattr(kind, step), error, after))
            with pytest.raises(error):
                tasks.set_task(new)
        assert tasks.active_task is None
        if then is None:
            with tasks.disable_tasks():
                tasks.verify()
        else:
            assert torch.equal(tasks[then](**BATCH).logits, expected[then](**BATCH).logits)
            assert same(tasks[then], expected[then])


def _interrupted(step: Any, error: type[BaseException], after: bool) -> Any:
    calls = iter(range(100))

    def interrupted(self: Any, words: torch.Tensor) -> None:
        if next(calls) < 3:
            return step(self, words)
        if after:
            step(self, words)
        raise error

    return interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_answer_leaves_no_lock(
    tasks: Tasks, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(transformers.BertModel, "forward", interrupted)
        for way in (lambda: tasks["spam"](**BATCH), lambda: tasks(**BATCH, task_names=["spam", "trec"])):
            with pytest.raises(error):
                way()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: tasks["trec"](**BATCH).logits).result(10)
    assert torch.equal(found, expected["trec"](**BATCH).logits)


def test_disabled_tasks(tasks: Tasks, expected: dict[str, Any], base: Checkpoint) -> None:
    plain = transformers.AutoModel.from_pretrained(base.folder)
    encoder = tasks["spam"].bert
    tasks.set_task("spam")
    with contextlib.suppress(ZeroDivisionError), tasks.disable_tasks():
        assert same(encoder, plain)
        assert torch.equal(tasks["trec"](**BATCH).logits, expected["trec"](**BATCH).logits)  # which does not stay
        assert same(encoder, plain)
        with tasks.disable_tasks():
            assert tasks(**BATCH, task_names=["many", "trec"]).logits[0].shape == (2,)
        assert same(encoder, plain)
        assert tasks.active_task is None
        raise ZeroDivisionError
    assert tasks.active_task == "spam"
    assert same(tasks["spam"], expected["spam"])
    with tasks.disable_tasks():
        tasks.delete_task("spam")
    assert tasks.active_task is None
    assert same(encoder, plain)


def test_threads_get_their_own_answers(tasks: Tasks, expected: dict[str, Any]) -> None:
    right = {name: expected[name](**BATCH).logits for name in NAMES}

    def ask(turn: int) -> bool:
        name = NAMES[turn % 3]
        if turn % 7 == 0:
            found = tasks(**BATCH, task_names=[name, NAMES[turn // 3 % 3]]).logits[0]
            return torch.allclose(found, right[name][0], atol=1e-5)
        with torch.inference_mode(turn % 2 == 0):
            return torch.equal(tasks[name](**BATCH).logits, right[name])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(400)))


def test_models_that_cannot_be_copied(tasks: Tasks) -> None:
    for way in (copy.copy, copy.deepcopy, pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
        with pytest.raises(ArgumentError, match="a live task's model shares its weights, and cannot be copied"):
            way(tasks["spam"])


def test_what_is_saved_is_the_tasks(tasks: Tasks, expected: dict[str, Any], tmp_path: Path) -> None:
    spam, trec = tasks["spam"], tasks["trec"]
    tasks.set_task("trec")
    spam.save_pretrained(tmp_path / "spam")
    assert same(transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "spam"), expected["spam"])
    tasks.set_task("many")
    assert same(trec, expected["trec"])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("part", ["model", "in place", "encoder"])
def test_compiled_models_stay_right(tasks: Tasks, expected: dict[str, Any], backend: str, part: str) -> None:
    torch._dynamo.reset()
    models: dict[str, Any] = {name: tasks[name] for name in NAMES}
    if part == "model":
        models = {name: torch.compile(model, backend=backend) for name, model in models.items()}
    elif part == "in place":
        for model in models.values():
            model.compile(backend=backend)
    else:
        models["spam"].bert.compile(backend=backend)
    with torch.no_grad():
        for turn in range(3):
            for name in (*NAMES, "spam", "many"):
                assert torch.allclose(models[name](**BATCH).logits, expected[name](**BATCH).logits, atol=1e-6)
            found = tasks(**BATCH, task_names=["many", NAMES[turn]]).logits  # and after rows of many tasks
            for row, name in enumerate(["many", NAMES[turn]]):
                assert torch.allclose(found[row], expected[name](**BATCH).logits[row], atol=1e-5)
    assert same(tasks["trec"], expected["trec"])


def test_encoders_compiled_after_a_mixed_batch(tasks: Tasks, expected: dict[str, Any]) -> None:
    torch._dynamo.reset()
    rows = {key: value.repeat(3, 1)[:5] for key, value in BATCH.items()}
    names = ["spam", "many", "trec", "many", "spam"]
    for turn in range(2):
        for row, said in enumerate(tasks(**rows, task_names=names).logits):
            right = expected[names[row]](**{key: value[row : row + 1] for key, value in rows.items()}).logits[0]
            assert torch.allclose(said, right, atol=1e-5)
        tasks["spam"].bert.encoder.layer[0].compile(backend="eager")
        assert torch.allclose(tasks["spam"](**BATCH).logits, expected["spam"](**BATCH).logits, atol=1e-6), turn


def test_pipelines(tasks: Tasks, expected: dict[str, Any], base: Checkpoint) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(base.folder)
    texts = ["who is the man", "win a free prize now", "z"]
    made = {name: tasks.pipeline(name) for name in NAMES}
    pipeline = partial(transformers.pipeline, "text-classification", tokenizer=tokenizer)
    plain = {name: pipeline(model=tasks[name]) for name in NAMES}
    for name in (*NAMES, *NAMES):
        right = pipeline(model=expected[name])(texts)
        assert made[name](texts) == plain[name](texts) == right
    tasks.delete_task("trec")
    with pytest.raises(UnknownTaskError, match="the task 'trec' was deleted"):
        made["trec"](texts)


def test_trainers_predictions(tasks: Tasks, expected: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"input_ids": [2, 10 + i, 11, 3], "labels": i % 2} for i in range(10)]
    arguments = transformers.TrainingArguments(tmp_path, per_device_eval_batch_size=4, report_to=[], use_cpu=True)
    trainers = {name: transformers.Trainer(model=tasks[name], args=arguments) for name in NAMES}
    for name in (*NAMES, *NAMES):
        right = transformers.Trainer(model=expected[name], args=arguments).predict(rows)
        found = trainers[name].predict(rows)
        assert np.array_equal(found.predictions, right.predictions)
        assert found.metrics["test_loss"] == right.metrics["test_loss"]


@pytest.mark.parametrize(
    ("batch", "names", "told"),
    [
        (BATCH, ["spam"], "1 task names, and input_ids has the shape [2, 4]"),
        (BATCH, [], "0 task names, and input_ids"),
        (BATCH | {"labels": torch.tensor([0, 1])}, ["spam", "trec"], "takes no labels"),
        (BATCH | {"position_ids": torch.arange(4)[None]}, ["spam", "trec"], "2 task names, and position_ids has the"),
        (BATCH | {"past_key_values": object()}, ["spam", "trec"], "past_key_values is a object"),
        ({}, ["spam", "trec"], "a batch has tensors"),
    ],
)
def test_batches_that_are_not_rows(tasks: Tasks, batch: dict[str, Any], names: list[str], told: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(told)):
        tasks(**batch, task_names=names)


def test_no_task_is_active(tasks: Tasks) -> None:
    for way in (lambda: tasks(**BATCH), lambda: tasks.predict("who")):
        with pytest.raises(ArgumentError, match="no task is active"):
            way()
    with pytest.raises(UnknownTaskError, match="no task is loaded"):
        Tasks(tasks.base)(**BATCH, task_names=["__base__", "__base__"])


def test_predictions_of_many_tasks(tasks: Tasks, masks: dict[str, MaskSet], base: Checkpoint) -> None:
    texts = ["who is the man", "win a free prize now", "z", "when", "good film , bad film"]
    right = {name: predict(base, mask, texts) for name, mask in masks.items()}
    for name in NAMES:
        assert tasks.predict(texts, name) == right[name]
    names = ["trec", "spam", "spam", "many", "trec"]
    for row, answer in enumerate(tasks.predict(texts, names, batch_size=3)):
        assert answer["label"] == right[names[row]][row]["label"]
        assert answer["score"] == pytest.approx(right[names[row]][row]["score"], abs=1e-5)
        assert answer["text"] == texts[row]
    for options in ({"batch_size": 0}, {"top_k": 0}):
        with pytest.raises(ArgumentError, match="0: it is 1 or more"):
            tasks.predict(texts, "spam", **options)
    with pytest.raises(ArgumentError, match="2 task names for 5 inputs"):
        tasks.predict(texts, ["spam", "trec"])


def _reading(mask: MaskSet, max_length: int) -> MaskSet:
    assert mask.task is not None
    return dataclasses.replace(mask, task=msgspec.structs.replace(mask.task, max_length=max_length))


def test_threads_cut_texts_as_their_tasks_do(base: Checkpoint, masks: dict[str, MaskSet]) -> None:
    """Tasks share a tokenizer, into which it is written how long texts may be."""
    masks = {"short": _reading(masks["spam"], 4), "long": _reading(masks["spam"], 60)}
    live, texts = load_tasks(base, masks), ["who is the man in the city " * 3 + str(turn) for turn in range(16)]
    assert live.processor("short") is live.processor("long")
    assert live.pipeline("short").tokenizer is not live.processor("short")
    names = ["short", "long"] * 8
    right = {name: predict(base, mask, texts) for name, mask in masks.items()}
    mixed = live.predict(texts, names)

    def ask(turn: int) -> bool:
        if turn % 3 == 2:
            return live.predict(texts, names) == mixed
        return live.predict(texts, names[turn]) == right[names[turn]]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda turn: ask(turn % 16), range(60)))
    for row, answer in enumerate(mixed):
        assert answer["score"] == pytest.approx(right[names[row]][row]["score"], abs=1e-5)


@pytest.mark.parametrize("names", ["spam", ["spam", "trec"]])
def test_a_task_replaced_by_another_thread_while_it_answers(
    tasks: Tasks, masks: dict[str, MaskSet], monkeypatch: pytest.MonkeyPatch, names: Any
) -> None:
    """What is asked before the other task is there is answered by the first one."""
    texts = ["who is the man", "win a free prize now"]
    right = tasks.predict(texts, names)
    new = dataclasses.replace(_reading(masks["many"], 3), dense=masks["spam"].dense)
    threads: list[threading.Thread] = []

    def replace() -> None:
        tasks.delete_task("spam")
        tasks.load_task(new, "spam")

    def replaced(*arguments: Any) -> Examples:
        if not threads:
            threads.append(threading.Thread(target=replace))
            threads[0].start()
            threads[0].join(0.3)
        return Examples(*arguments)

    monkeypatch.setattr("maskhub.runtime.live.Examples", replaced)
    assert tasks.predict(texts, names) == right
    threads[0].join()
    assert tasks.predict(texts, "spam") == predict(tasks.base, new, texts)


@pytest.mark.parametrize("memory", [1, 2000, "1MB"])
def test_more_tasks_than_the_budget_has_room_for(base: Checkpoint, memory: int | str) -> None:
    masks = {str(seed): tiny.tiny_maskset(base, seed=seed, sparsity=0.02 + 0.4 * (seed % 2)) for seed in range(20)}
    live = load_tasks(base, masks, memory=memory)
    expected = {name: load_model(base, mask)(**BATCH).logits for name, mask in masks.items()}
    rng = random.Random(0)
    for _ in range(60):
        a, b = rng.choices([*masks], k=2)
        assert torch.equal(live[a](**BATCH).logits, expected[a])
        for row, (name, said) in enumerate(zip((a, b), live(**BATCH, task_names=[a, b]).logits, strict=True)):
            assert torch.allclose(said, expected[name][row], atol=1e-5)
        live.set_task(b)
        used, kept = live.memory(), len(live.decoded)
        assert used.decoded <= used.budget or kept == 1
        assert used.decoded == sum(change.nbytes for task in live.decoded._kept.values() for change in task.values())
    assert len(live.decoded) == {1: 1, 2000: 1, "1MB": 20}[memory]
    live.set_task(None)
    live.verify()


def test_mixed_batches_keep_to_the_budget(base: Checkpoint) -> None:
    """Of what they add the second forms go first, so that all tasks stay decoded as long as there is room."""
    masks = {str(seed): tiny.tiny_maskset(base, seed=seed, sparsity=0.02) for seed in range(6)}
    roomy = load_tasks(base, masks)
    for name in masks:
        roomy.set_task(name)
    room = roomy.memory().decoded
    expected = {name: load_model(base, mask)(**BATCH).logits for name, mask in masks.items()}
    for budget, kept in ((room, 6), (room // 2, 3), (1, 1)):
        live = load_tasks(base, masks, memory=budget)
        for turn in range(12):
            names = [str(turn % 6), str(turn // 2)]
            for row, said in enumerate(live(**BATCH, task_names=names).logits):
                assert torch.allclose(said, expected[names[row]][row], atol=1e-5)
            used = live.memory().decoded
            assert used <= budget or len(live.decoded) == 1
            assert used == sum(change.nbytes for task in live.decoded._kept.values() for change in task.values())
        assert budget == 1 or len(live.decoded) >= kept - 1
        held = live.memory().decoded
        live.set_task(str(turn % 6))
        assert live.memory().decoded <= max(held, budget)
    roomy(**{key: value.repeat(3, 1) for key, value in BATCH.items()}, task_names=list(masks))
    assert roomy.memory().decoded > room  # second forms


def test_two_hundred_tasks(base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once, and none stays open."""
    for seed in range(200):
        save(tiny.tiny_maskset(base, seed=seed), tmp_path / f"task-{seed:03}.msk")
    read: Counter[str] = Counter()
    monkeypatch.setattr(LocalFile, "open", _counted(LocalFile.open, read))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    live = load_tasks(base, tmp_path)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    shutil.rmtree(tmp_path)
    for seed in (0, 199, 7, 199):
        right = load_model(base, tiny.tiny_maskset(base, seed=seed))
        assert same(live[f"task-{seed:03}"], right)
    assert len(live) == 200
    assert {*read.values()} == {1}
    assert len(read) == 200


def _counted(method: Any, read: Counter[str]) -> Any:
    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        read[str(self.name)] += 1
        return method(self, *arguments, **options)

    return counted


def test_all_ways_to_name_masks(base: Checkpoint, masks: dict[str, MaskSet], tmp_path: Path) -> None:
    folder, pushed = tmp_path / "masks", tmp_path / "pushed"
    folder.mkdir()
    pushed.mkdir()
    paths = [folder / f"{name}.msk" for name in masks]
    for path, mask in zip(paths, masks.values(), strict=True):
        save(mask, path)
        maskhub.push(path, str(pushed))
    given: list[tuple[Any, list[str]]] = [
        (dict(zip("abc", paths, strict=True)), ["a", "b", "c"]),
        (paths, list(NAMES)),
        (list(masks.values()), ["task 1", "task 2", "task 3"]),
        (paths[0], ["spam"]),
        (str(paths[0]), ["spam"]),
        (masks["spam"], ["task 1"]),
        (folder, sorted(NAMES)),
        ([folder], sorted(NAMES)),
        (pushed, sorted(NAMES)),
    ]
    for what, names in given:
        live = maskhub.load_tasks(base.folder, what)
        assert sorted(live) == sorted(names), what
        by_id = {mask.id: name for name, mask in masks.items()}
        for name in live:
            right = load_model(base, masks[by_id[live.mask(name).id]])
            assert same(live[name], right)
    with pytest.raises(MissingError, match="holds no masks"):
        maskhub.load_tasks(base.folder, tmp_path)
    live.load_task(str(paths[0]), "once more")
    assert same(live["once more"], load_model(base, masks["spam"]))


def test_memory(base: Checkpoint, masks: dict[str, MaskSet], tmp_path: Path) -> None:
    paths = {}
    for name, mask in masks.items():
        save(mask, paths.setdefault(name, tmp_path / f"{name}.msk"))
    live = load_tasks(base, paths, memory="10MB")
    coded_of = {name: path.stat().st_size for name, path in paths.items()}
    coded = sum(coded_of.values())
    used = live.memory()
    size = sum(base.info(name).nbytes for name in base)
    assert used == Memory(base=size, heads=4 * 33 * 2, coded=coded, draws=0, decoded=0, budget=10**7)
    live.set_task("spam")
    dropped = sum(mask.size - mask.kept for mask in masks["spam"].values())
    assert live.memory().decoded == dropped * (4 + 4)
    assert live["trec"].classifier.weight.shape == (3, 32)
    assert live.memory().heads == 4 * 33 * (2 + 3)
    for name in NAMES:
        live.delete_task(name)
    assert (live.memory().coded, live.memory().decoded, live.task_names) == (0, 0, [])
    live.load_task(masks["many"], "in memory")  # packed bits
    assert live.memory().coded == sum(mask.bits.nbytes for mask in masks["many"].values()) > 2000
    live.load_task(paths["many"], "in a file")
    assert live.memory().coded == sum(mask.bits.nbytes for mask in masks["many"].values()) + coded_of["many"]
