"""Plain finetuning by ``train``, also on top of a fixed mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import maskhub
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, BaseMismatchError, MissingError, TrainingError
from maskhub.runtime.evaluate import logits_of
from maskhub.tasks.data import read_file
from maskhub.training.recording import read_recording
from maskhub.training.run import maskset_from_run
from maskhub.training.settings import TrainSettings, settings_from
from maskhub.training.train import learn, ready
from tests import tiny, toy


def settings(base: Path, task: Path, **given: Any) -> TrainSettings:
    values = {
        "method": "finetune", "base": str(base), "train_file": task / "train.jsonl", "eval_file": task / "eval.jsonl",
        "max_length": 32, "batch_size": 8, "epochs": 2.0, "eval_steps": 4, "learning_rate": 1e-3,
    }  # fmt: skip
    return settings_from(**values | given)


@pytest.fixture(scope="module")
def mask(bert: Path, task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = {"initial_sparsity": 0.2, "classifier": "dense"}
    return learn(toy.settings(bert, task, **given), tmp_path_factory.mktemp("mask") / "run").mask


def test_a_dense_checkpoint_is_learned(bert: Path, task: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = learn(settings(bert, task), tmp_path / "run", say=said.append)
    assert (result.mask, result.manifest, result.checkpoint) == (None, None, tmp_path / "run/model")
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "config.yaml", "metrics.json", "model", "run.h5", "run.json",
    ]  # fmt: skip
    assert any(line.startswith("Finetuned: ") for line in said)
    model, report = AutoModelForSequenceClassification.from_pretrained(result.checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.id2label == {0: "film", 1: "spam"}
    examples = read_file(task / "eval.jsonl")
    found = logits_of(model, AutoTokenizer.from_pretrained(result.checkpoint), examples, max_length=32)
    assert np.array_equal(found, logits_of(result.model, AutoTokenizer.from_pretrained(bert), examples, max_length=32))
    before, after = load_file(bert / "model.safetensors"), load_file(result.checkpoint / "model.safetensors")
    moved = [name for name in before if not np.array_equal(before[name], after[f"bert.{name}"])]
    assert set(before) - set(moved) <= {"embeddings.token_type_embeddings.weight"}
    assert result.metrics["accuracy"] == json.loads((result.folder / "metrics.json").read_text())["metrics"]["accuracy"]
    assert read_recording(result.folder).tensors == ()


def test_its_defaults_are_those_of_finetuning(bert: Path, task: Path, tmp_path: Path) -> None:
    given = {"learning_rate": None, "dense_learning_rate": 1e-3, "keep_checkpoints": True}
    asked = settings(bert, task, **given)
    assert (asked.learning_rate, asked.beta2, asked.schedule, asked.warmup) == (1e-4, 0.999, "linear", 0.1)
    run = learn(asked, tmp_path / "run").folder
    saved = torch.load(run / "checkpoints/checkpoint-10/optimizer.pt", weights_only=True)
    groups = {(group["initial_lr"], group["weight_decay"]) for group in saved["param_groups"]}
    assert groups == {(rate, decay) for rate in (1e-4, 1e-3) for decay in (0, 0.01)}


def test_what_a_mask_drops_stays_dropped(bert: Path, task: Path, mask: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = learn(settings(bert, task, start_from=mask, epochs=4.0), tmp_path / "run", say=said.append)
    fixed = open_mask(mask)
    count = len(fixed.masks)
    assert f"On top of {mask}: {count} of its {count} masks stay as they are; classifier: begins as the mask's" in said
    after, base = load_file(result.checkpoint / "model.safetensors"), open_checkpoint(bert)
    for name, one in fixed.masks.items():
        weight, keep = after[f"bert.{name}"], one.to_bool()
        assert not weight[~keep].view(np.uint32).any()
        assert (weight[keep] != base.read(name).numpy()[keep]).mean() > 0.9


def test_it_begins_as_the_mask_answers_where_the_task_is_the_same(
    bert: Path, task: Path, mask: Path, tmp_path: Path
) -> None:
    examples, tokenizer = read_file(task / "eval.jsonl"), AutoTokenizer.from_pretrained(bert)
    prepared = ready(settings(bert, task, start_from=mask))
    wanted = logits_of(maskhub.load_model(bert, mask), tokenizer, examples, max_length=32)
    assert np.array_equal(logits_of(prepared.model.eval(), tokenizer, examples, max_length=32), wanted)
    toy.write_task(tmp_path, classes=3)
    said: list[str] = []
    other = ready(settings(bert, tmp_path, start_from=mask), say=said.append)
    assert any(line.endswith("classifier: a new one, as the mask is for another task") for line in said)
    head = open_mask(mask).dense["classifier.weight"].numpy()
    assert other.model.classifier.weight.shape[0] == 3 != len(head)


@pytest.mark.parametrize("on_top", [False, True])
def test_interrupted_and_resumed_it_ends_the_same(
    bert: Path, task: Path, mask: Path, tmp_path: Path, on_top: bool
) -> None:
    asked = settings(bert, task, **({"start_from": mask} if on_top else {}))
    whole = learn(asked, tmp_path / "whole")
    with pytest.raises(TrainingError, match="interrupted after step 7 of 10"):
        learn(asked, tmp_path / "broken", report=toy.interrupt_after(7))
    broken = learn(asked, tmp_path / "broken", resume=True)
    first, second = (load_file(one.checkpoint / "model.safetensors") for one in (whole, broken))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    with pytest.raises(TrainingError, match="the run is finished"):
        learn(asked, tmp_path / "broken", resume=True)


def test_a_finetuning_has_no_mask(bert: Path, task: Path, tmp_path: Path) -> None:
    run = learn(settings(bert, task, epochs=0.2), tmp_path / "run").folder
    with pytest.raises(TrainingError, match=r"a finetuning has no mask\. The dense checkpoint that it learns is "):
        maskset_from_run(run)


def test_a_base_in_bfloat16_is_finetuned_in_float32(task: Path, tmp_path: Path) -> None:
    base = tiny.tiny_model("bert", tmp_path / "base")
    AutoModel.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    result = learn(settings(base, task, epochs=0.4), tmp_path / "run")
    assert {tensor.dtype for tensor in load_file(result.checkpoint / "model.safetensors").values()} == {
        np.dtype("float32")
    }


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"l2_sp": 0.01}, "l2_sp: a finetuning learns no mask", "Leave it out, or method."),
        ({"recipe": "paper"}, "recipe: a finetuning learns no mask", "Leave it out, or method."),
        ({"layers": "all"}, "layers: a finetuning learns no mask", "Leave it out, or method."),
        ({"push_to_hub": "a/b"}, "push_to_hub: a finetuning learns no mask", "Leave it out, or method."),
        ({"sizes": "30KB,60KB"}, "sizes: a finetuning learns no mask", "Leave it out, or method."),
        ({"snapshots": 2}, "snapshots: a finetuning learns no mask", "Leave it out, or method."),
        ({"method": "lora"}, "method: there is no 'lora'", "It is one of: mask, finetune."),
        ({"method": None, "start_from": "x.msk"}, "start_from needs a finetuning", "Give method=finetune as well."),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        settings_from(**{"method": "finetune", "base": "b", "train_file": "t.csv"} | given)
    assert (caught.value.message, caught.value.hint) == (f"training settings: {message}", hint)


def test_masks_that_cannot_be_started_from(bert: Path, task: Path, mask: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.msk"):
        learn(settings(bert, task, start_from=tmp_path / "none.msk"), tmp_path / "run")
    other = tiny.tiny_model("bert", tmp_path / "other", seed=5)
    with pytest.raises(BaseMismatchError, match="not the base this mask was made for"):
        learn(settings(other, task, start_from=mask), tmp_path / "run")
    assert not (tmp_path / "run/model").exists()
