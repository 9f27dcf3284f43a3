"""Every method the whole way: trained, interrupted and resumed, packed, applied; and in other people's loops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import maskhub
import maskhub.training as learning
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import MaskFile, open_mask
from maskhub.errors import ArgumentError, MissingError, TrainingError
from maskhub.runtime.evaluate import logits_of
from maskhub.tasks.data import read_file
from maskhub.training.masking import masks_of, scores_of
from maskhub.training.recording import read_recording
from maskhub.training.train import learn, ready
from maskhub.training.trainer import load_weights
from tests import tiny, toy

METHODS: dict[str, dict[str, Any]] = {
    "sign": {"binarizer": "sign"},
    "bernoulli": {"binarizer": "bernoulli"},
    "topk": {"binarizer": "topk", "final_sparsity": 0.3},
    "topk over all": {"binarizer": "topk", "topk_scope": "global", "final_sparsity": 0.3},
    "nm": {"binarizer": "nm", "score_init": "magnitude"},
    "magnitude": {"score_init": "magnitude"},
    "l2_sp": {"l2_sp": 0.05},
    "margin": {"score_margin": 0.1, "l2_sp": 0.05},
    "penalty": {"sparsity_penalty": 5.0, "final_sparsity": 0.3, "sparsity_schedule": "steps"},
    "beta2": {"beta2": 0.9, "l2_sp": 0.01},
    "heads": {"structure": "heads", "initial_sparsity": 0.3},
    "rows": {"structure": "rows", "binarizer": "topk", "initial_sparsity": 0.2},
    "layers": {"structure": "layers", "initial_sparsity": 0.3},
    "biases and norms": {"train_biases": True, "train_norms": True, "classifier": "dense", "dense_learning_rate": 1e-3},
    "bf16": {"precision": "bf16"},
    "selected": {"keep_flips": 0.5},
    "selected to bits": {"bits": 0.1, "selection_start": 0.3, "selection_rounds": 4, "selection_measure": "distance"},
    "selected to a size": {"size": "14KB", "l2_sp": 0.0},
    "selected in a margin": {"keep_flips": 0.5, "score_margin": 0.1},
    "selected signs": {"keep_flips": 0.5, "binarizer": "sign", "selection_rounds": 1},
    "selected by chance": {"keep_flips": 0.5, "binarizer": "bernoulli", "learning_rate": 0.1},
    "selected sizes": {"keep_flips": 0.5, "score_init": "magnitude"},
    "chosen": {"target_modules": "Q,V", "pattern": "layer.1", "classifier": "frozen"},
}
DRIFT = {"sign", "topk", "topk over all", "l2_sp", "margin", "penalty", "beta2", "biases and norms", "chosen"}
DRIFT |= {"bf16", "selected", "selected to bits", "selected to a size", "selected in a margin", "selected signs"}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def logits(model: Any, folder: Path, task: Path) -> bytes:
    return logits_of(
        model, AutoTokenizer.from_pretrained(folder), read_file(task / "eval.jsonl"), max_length=32
    ).tobytes()


def test_interrupted_or_not_the_packed_mask_is_the_trained_one(
    method: str, bert: Path, task: Path, tmp_path: Path
) -> None:
    """The same mask after Ctrl-C and --resume, and the trained model's logits, bit for bit, from the packed one."""
    settings = toy.settings(bert, task, eval_steps=3, keep_checkpoints=True, **METHODS[method])
    result = learn(settings, tmp_path / "run")
    assert logits(result.model, bert, task) == logits(maskhub.load_model(bert, result.mask), bert, task)
    tiny.build(open_checkpoint(bert), maskhub.open(result.mask), tmp_path / "dense")
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
    assert logits(dense, bert, task) == logits(result.model, bert, task)

    file = MaskFile(result.mask)
    file.verify()
    mask = file.maskset()
    of_base = {mask.base.parameter(name): mask[name] for name in mask.masks}
    assert of_base == {name: one for name, one in masks_of(result.model).items() if name in of_base}
    assert (mask.initial is not None) == (method in DRIFT)

    with pytest.raises(TrainingError, match="interrupted after step 7 of 10"):
        learn(settings, tmp_path / "again", report=toy.interrupt_after(7))
    again = learn(settings, tmp_path / "again", resume=True)
    assert again.manifest.id == result.manifest.id
    assert again.mask.read_bytes() == result.mask.read_bytes()
    last = [tmp_path / run / "checkpoints/checkpoint-10/scores.safetensors" for run in ("run", "again")]
    assert last[0].read_bytes() == last[1].read_bytes()


@pytest.mark.parametrize(("given", "beta2"), [({}, 0.999), ({"beta2": 0.9}, 0.9)])
def test_beta2_reaches_the_optimizer(
    bert: Path, task: Path, tmp_path: Path, given: dict[str, float], beta2: float
) -> None:
    learn(toy.settings(bert, task, classifier="dense", keep_checkpoints=True, **given), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/checkpoint-10/optimizer.pt", weights_only=True)
    assert [group["betas"] for group in saved["param_groups"]] == [(0.9, beta2)] * 2


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({}, [1e-2] * 10),  # the authors' own loop
        ({"schedule": "linear"}, [1e-2 * (1 - step / 10) for step in range(10)]),
        ({"schedule": "constant", "warmup": 0.4}, [0, 2.5e-3, 5e-3, 7.5e-3, *[1e-2] * 6]),
        ({"schedule": "cosine"}, [1e-2 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
        ({"recipe": "default"}, [0, *[1e-2 * (9 - step) / 9 for step in range(9)]]),
    ],
)
def test_the_learning_rate_goes_by_the_schedule(
    bert: Path, task: Path, tmp_path: Path, given: dict[str, Any], rates: list[float]
) -> None:
    learn(toy.settings(bert, task, eval_steps=1, **given), tmp_path / "run")
    assert read_recording(tmp_path / "run").train["learning_rate"] == pytest.approx(np.array(rates), abs=1e-9)


def test_by_the_recipes_own_rate_no_more_flip_where_the_smallest_weights_start_dropped(
    bert: Path, task: Path, tmp_path: Path
) -> None:
    flips: dict[str, np.ndarray] = {}
    for score_init in ("uniform", "magnitude"):
        given = {"recipe": "default", "learning_rate": None, "score_init": score_init, "epochs": 12.0, "eval_steps": 20}
        run = learn(toy.settings(bert, task, **given), tmp_path / score_init).folder
        recording = read_recording(run)
        assert recording.mask_steps.tolist() == [0, 20, 40, 60]
        flips[score_init] = recording.flips.sum(1) / recording.weights.sum()
    assert (flips["magnitude"] <= flips["uniform"] * 1.2).all()
    assert flips["magnitude"][1] < 0.03


@pytest.mark.parametrize(("norm", "clipped"), [(None, False), (0, False), (1e-4, True)])
def test_gradients_are_clipped_where_that_is_asked(
    bert: Path, task: Path, tmp_path: Path, norm: float | None, clipped: bool
) -> None:
    learn(toy.settings(bert, task, keep_checkpoints=True, max_grad_norm=norm), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/checkpoint-10/optimizer.pt", weights_only=True)
    means = torch.cat([state["exp_avg"].flatten() for state in saved["state"].values()])
    assert (float(means.norm()) <= 1e-4) == clipped


def test_scores_and_what_is_trained_besides_are_clipped_apart(bert: Path, task: Path, tmp_path: Path) -> None:
    given = {"classifier": "dense", "max_grad_norm": 1e-4, "epochs": 0.2, "keep_checkpoints": True}
    learn(toy.settings(bert, task, **given), tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoints/checkpoint-1/optimizer.pt", weights_only=True)
    for group in saved["param_groups"]:
        means = torch.cat([saved["state"][i]["exp_avg"].flatten() for i in group["params"]])
        assert float(means.norm()) == pytest.approx(1e-5, rel=0.02)  # a tenth of one gradient


def test_flips_and_overlaps_are_recorded(bert: Path, task: Path, tmp_path: Path) -> None:
    """Each evaluation's masks, from the checkpoints' scores: against the start, the row before, and what both drop."""
    asked = toy.settings(bert, task, keep_checkpoints=True, learning_rate=3e-2)
    run = learn(asked, tmp_path / "run").folder
    recording = read_recording(run)
    assert recording.mask_steps.tolist() == [0, 4, 8, 10]
    start = ready(asked).model
    masks = [{name: mask.to_bool() for name, mask in masks_of(start).items()}]
    for step in (4, 8, 10):
        load_weights(start, frozenset(), run / f"checkpoints/checkpoint-{step}")
        masks.append({name: mask.to_bool() for name, mask in masks_of(start).items()})
    for row, now in enumerate(masks):
        for column, name in enumerate(recording.tensors):
            first, last, mine = masks[0][name], masks[max(0, row - 1)][name], now[name]
            assert recording.flips[row, column] == (mine != first).sum()
            assert recording.flips_since[row, column] == (mine != last).sum()
            both, either = (~mine & ~first).sum(), (~mine | ~first).sum()
            assert recording.iou[row, column] == pytest.approx(both / either if either else 1)
    assert recording.iou[3].max() < 1


def test_what_methods_do_to_a_mask(bert: Path, task: Path, tmp_path: Path) -> None:
    def masks(name: str, **more: Any) -> dict[str, np.ndarray]:
        settings = toy.settings(bert, task, **METHODS[name], **more)
        return {n: m.to_bool() for n, m in open_mask(learn(settings, tmp_path / name).mask).masks.items()}

    for keep in masks("nm").values():
        assert (keep.reshape(-1, 4).sum(1) == 2).all()
    assert {round(1 - keep.mean(), 2) for keep in masks("topk").values()} == {0.3}
    for keep in masks("rows").values():
        assert set(keep.mean(1).tolist()) == {0.0, 1.0}
        assert (~keep.any(1)).sum() == round(0.2 * len(keep))
    heads = masks("heads")
    assert {name.rpartition(".layer.")[2].partition(".")[2] for name in heads} == {
        f"attention.{name}.weight" for name in ("self.query", "self.key", "self.value", "output.dense")
    }
    for name, keep in heads.items():
        by_head = keep.reshape(4, 8, 32) if "self" in name else keep.reshape(32, 4, 8).transpose(1, 0, 2)
        assert set(by_head.reshape(4, -1).mean(1).tolist()) <= {0.0, 1.0}
    assert sorted(masks("chosen")) == [f"encoder.layer.1.attention.self.{name}.weight" for name in ("query", "value")]


def test_trained_biases_and_norms_travel_whole(bert: Path, task: Path, tmp_path: Path) -> None:
    result = learn(toy.settings(bert, task, **METHODS["biases and norms"]), tmp_path / "run")
    mask, base = open_mask(result.mask), open_checkpoint(bert)
    moved = {name for name in base if name.endswith(".bias") or "LayerNorm" in name}
    assert moved
    assert not moved & set(mask.base.tensors)
    assert {f"bert.{name}" for name in moved} | {"classifier.weight", "classifier.bias"} == set(mask.dense)
    changed = {n for n in moved if not np.array_equal(mask.dense[f"bert.{n}"].numpy(), base.read(n).numpy())}
    assert len(changed) > len(moved) / 2


def test_only_scores_within_the_margin_are_trained(bert: Path, task: Path, tmp_path: Path) -> None:
    sizes = []
    for margin in (None, 0.1):
        result = learn(toy.settings(bert, task, score_margin=margin), tmp_path / f"run-{margin}")
        scores = scores_of(result.model)
        sizes.append(sum(s.numel() for n, s in scores.items() if not n.startswith("classifier")))
    assert sizes[1] / sizes[0] == pytest.approx(0.13 / 0.6, abs=0.02)


def test_a_final_sparsity_is_reached_before_an_evaluation_can_be_the_best(
    bert: Path, task: Path, tmp_path: Path
) -> None:
    given = {
        "binarizer": "topk",
        "final_sparsity": 0.4,
        "eval_steps": 1,
        "learning_rate": 1e-30,
        "keep_checkpoints": True,
    }
    result = learn(toy.settings(bert, task, **given), tmp_path / "run")
    state = json.loads((result.folder / "checkpoints/checkpoint-10/trainer_state.json").read_text())
    assert state["best_global_step"] == 8
    assert {round(mask.sparsity, 2) for mask in open_mask(result.mask).masks.values()} == {0.4}


def test_a_plan_trains_nothing(bert: Path, task: Path, tmp_path: Path) -> None:
    settings = toy.settings(
        bert, task, target_modules="Q,O", layers="1", classifier="frozen", score_margin=0.1, l2_sp=0.01
    )
    planned = ready(settings).plan
    names = {f"bert.encoder.layer.1.{name}.weight": kind for name, kind in
             {"attention.self.query": "Q", "output.dense": "O"}.items()}  # fmt: skip
    assert {weight.parameter: weight.kind for weight in planned.weights} == names
    assert planned.masked == 32 * 32 + 32 * 64
    assert planned.dense == 0
    scores = sum(weight.scores for weight in planned.weights)
    assert scores < planned.masked / 4
    assert planned.memory.pop("base") > 4 * planned.masked
    assert planned.memory == {
        "trained values": 4 * scores, "gradients": 4 * scores, "optimiser state": 8 * scores,
        "initial scores": 10 * scores,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (
            {"target_modules": "Q,X"},
            "training settings: target_modules: the base has no X",
            "It has: AO, I, K, O, P, Q, V.",
        ),
        (
            {"pattern": "decoder"},
            "training settings: pattern 'decoder': matches no weight",
            "One is bert.encoder.layer.0.attention.self.query.weight.",
        ),
        ({"pattern": "("}, "training settings: pattern '(': no regular expression: ", None),
        (
            {"pattern": "layer.0", "layers": "1"},
            "training settings: layers, target_modules, pattern and structure together leave no weight to mask",
            "Leave one of them out; --dry-run shows what the others mask.",
        ),
        ({"layers": "7"}, "training settings: layers '7': there is no layer 7; the base has layers 0 to 1", None),
        ({"score_margin": 1e-9}, "score_margin 1e-09: no score starts so near to the threshold", "Give a wider one."),
        ({"binarizer": "nm", "nm": "3:5"}, "training settings: nm: '3:5' is not N:M", None),
        ({"final_sparsity": 1.0}, "training settings: final_sparsity: 1.0 is not above 0 and below 1", None),
    ],
)
def test_what_does_not_fit_the_base(
    bert: Path, task: Path, tmp_path: Path, given: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises((ArgumentError, TrainingError)) as caught:
        learn(toy.settings(bert, task, **given), tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert caught.value.hint == hint
    assert not (tmp_path / "run").exists()


def own_model(base: Path) -> Any:
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(base, id2label={0: "film", 1: "spam"})


def rows_of(base: Path, task: Path) -> Dataset:
    rows = [json.loads(line) for line in (task / "train.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded = tokenizer([row["text"] for row in rows], padding="max_length", truncation=True, max_length=32)
    labels = [("film", "spam").index(row["label"]) for row in rows]
    return Dataset.from_dict({**encoded, "labels": labels}).with_format("torch")


def packed(model: Any, base: Path, task: Path, path: Path) -> None:
    """The model's mask, packed; loaded, it gives its logits bit for bit."""
    manifest = learning.pack(model.eval(), path, max_length=32, metrics={"accuracy": 0.5}, lineage={"by": "hand"})
    mask = maskhub.open(path)
    assert mask.id == manifest.id
    assert mask.metrics == {"accuracy": 0.5}
    assert mask.lineage["by"] == "hand"
    assert mask.task.config["id2label"] == {"0": "film", "1": "spam"}
    assert mask.task.max_length == 32
    assert logits(maskhub.load_model(base, path), base, task) == logits(model, base, task)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"recipe": "paper"},
        {"recipe": "paper", "l2_sp": 0.05, "score_margin": 0.1},
        {"binarizer": "bernoulli", "score_range": 0.9},
    ],
)
def test_a_loop_of_ones_own(bert: Path, task: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    model, rows = own_model(bert).train(), rows_of(bert, task)
    learning.mask_model(model, **given)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    learning.attach(model, optimizer)
    losses = []
    for start in [*range(0, 40, 8)] * 4:
        loss = model(**rows[start : start + 8]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    packed(model, bert, task, tmp_path / "own.msk")


@pytest.mark.parametrize(
    "given",
    [{}, {"recipe": "paper"}, {"recipe": "paper", "binarizer": "topk", "topk_scope": "global", "final_sparsity": 0.3}],
)
def test_a_trainer_of_ones_own(bert: Path, task: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    model = own_model(bert)
    learning.mask_model(model, bert, **given)
    arguments = TrainingArguments(
        str(tmp_path / "out"), max_steps=8, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows_of(bert, task), callbacks=[learning.MaskCallback()]).train()
    packed(model, bert, task, tmp_path / "own.msk")
    if "final_sparsity" in given:
        masks = masks_of(model).values()
        assert sum(m.size - m.kept for m in masks) == round(0.3 * sum(m.size for m in masks))


def test_a_trainer_of_ones_own_clips_apart(bert: Path, task: Path, tmp_path: Path) -> None:
    model = own_model(bert)
    learning.mask_model(model, bert)
    arguments = TrainingArguments(
        str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=8, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True, max_grad_norm=0,
    )  # fmt: skip
    callbacks = [learning.MaskCallback(max_grad_norm=1e-4)]
    trainer = Trainer(model, arguments, train_dataset=rows_of(bert, task), callbacks=callbacks)
    trainer.train()
    state = trainer.optimizer.state
    scores = {id(score) for score in scores_of(model).values()}
    for mine in (True, False):
        means = [state[p]["exp_avg"].flatten() for p in state if (id(p) in scores) == mine]
        assert float(torch.cat(means).norm()) == pytest.approx(1e-5, rel=0.02)
    arguments.max_grad_norm = 1.0
    with pytest.raises(TrainingError, match=r"^the Trainer itself clips all gradients together, at 1\.0\. Give its"):
        Trainer(model, arguments, train_dataset=rows_of(bert, task), callbacks=callbacks).train()


def test_models_that_cannot_be_masked_or_packed(bert: Path, tmp_path: Path) -> None:
    model = own_model(bert)
    with pytest.raises(TrainingError, match="the model is not masked"):
        learning.pack(model, tmp_path / "x.msk")
    with pytest.raises(ArgumentError, match="training settings: there is no setting 'sparsity'"):
        learning.mask_model(model, sparsity=0.1)
    with pytest.raises(ArgumentError, match="training settings: recipe: there is no 'x'"):
        learning.mask_model(model, recipe="x")
    with pytest.raises(MissingError):
        learning.mask_model(model, tmp_path / "nowhere")
    with torch.no_grad():
        model.bert.pooler.dense.weight[0, 0] += 1
    with pytest.raises(TrainingError, match=r"parameter bert\.pooler\.dense\.weight equals no tensor"):
        learning.mask_model(model)
    assert all(p.requires_grad for p in model.parameters())
    bare = transformers.BertForSequenceClassification(model.config.__class__(num_hidden_layers=1))
    with pytest.raises(TrainingError, match="the model names no base"):
        learning.mask_model(bare)
    model = own_model(bert)
    learning.mask_model(model)
    with pytest.raises(TrainingError, match="the model is masked already"):
        learning.mask_model(model)
    assert not (tmp_path / "x.msk").exists()
