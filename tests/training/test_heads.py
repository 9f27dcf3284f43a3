"""What a task puts on a model's body: of several layers the last is trained, and those before it are masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import maskhub
import maskhub.training as learning
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import MaskFile, open_mask
from maskhub.runtime.evaluate import logits_of
from maskhub.tasks.data import read_file
from maskhub.training.masking import scores_of
from maskhub.training.train import learn
from tests import tiny, toy

# Bases as they are pretrained, the inner layer of their task's head, and what they have to spare for it.
SPARE = {
    "distilbert": ("ForMaskedLM", "pre_classifier", "vocab_transform"),
    "roberta": ("ForMaskedLM", "classifier.dense", "lm_head.dense"),
    "electra": ("ForPreTraining", "classifier.dense", "discriminator_predictions.dense"),
}


@pytest.fixture(scope="module", params=SPARE)
def pretrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    head, inner, spare = SPARE[request.param]
    folder = tmp_path_factory.mktemp("base") / request.param
    return tiny.tiny_model(request.param, folder, head=head, initializer_range=0.1), inner, spare


def answers(model: Any, base: Path, task: Path) -> bytes:
    tokenizer = AutoTokenizer.from_pretrained(base)
    return logits_of(model, tokenizer, read_file(task / "eval.jsonl"), max_length=32).tobytes()


def test_inner_layers_are_the_bases_and_masked_and_the_last_is_trained(
    pretrained: tuple[Path, str, str], task: Path, tmp_path: Path
) -> None:
    base, inner, spare = pretrained
    said: list[str] = []
    result = learn(toy.settings(base, task, classifier="dense"), tmp_path / "run", say=said.append)
    assert f"Classifier: {inner}.weight is the base's {spare}.weight, and masked" in said
    mask, stored = open_mask(result.mask), open_checkpoint(base)
    last = "classifier.out_proj" if inner == "classifier.dense" else "classifier"
    assert set(mask.dense) == {f"{last}.weight", f"{last}.bias"}
    assert mask.base.parameter(f"{spare}.weight") == f"{inner}.weight"
    kept = mask[f"{spare}.weight"].to_bool()
    assert 0 < kept.sum() < kept.size
    tiny.build(stored, maskhub.open(result.mask), tmp_path / "dense")
    built = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
    weights = built.get_parameter(f"{inner}.weight").detach().numpy()
    assert np.array_equal(weights, np.where(kept, stored.read(f"{spare}.weight").numpy(), 0))
    assert np.array_equal(built.get_parameter(f"{inner}.bias").detach(), stored.read(f"{spare}.bias").numpy())
    loaded = maskhub.load_model(base, result.mask)
    assert answers(built, base, task) == answers(loaded, base, task) == answers(result.model, base, task)


@pytest.mark.parametrize(
    "given", [{"structure": "heads"}, {"score_margin": 0.1}, {"keep_flips": 0.5}, {"binarizer": "nm"}]
)
def test_they_are_so_by_each_method(
    pretrained: tuple[Path, str, str], task: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    base, _, spare = pretrained
    result = learn(toy.settings(base, task, classifier="dense", **given), tmp_path / "run")
    assert 0 < open_mask(result.mask)[f"{spare}.weight"].kept < 32 * 32
    assert answers(maskhub.load_model(base, result.mask), base, task) == answers(result.model, base, task)


def test_they_are_so_in_ones_own_loop(pretrained: tuple[Path, str, str], tmp_path: Path) -> None:
    base, inner, _ = pretrained
    model = AutoModelForSequenceClassification.from_pretrained(base)
    learning.mask_model(model)
    assert f"{inner}.weight" in scores_of(model)
    learning.pack(model, tmp_path / "own.msk")
    assert not any(name.startswith(inner) for name in open_mask(tmp_path / "own.msk").dense)


@pytest.mark.parametrize("classifier", ["masked", "frozen"])
def test_other_classifiers_are_random_and_travel_whole(
    pretrained: tuple[Path, str, str], task: Path, tmp_path: Path, classifier: str
) -> None:
    base, inner, _ = pretrained
    result = learn(toy.settings(base, task, classifier=classifier, epochs=0.2), tmp_path / "run")
    assert f"{inner}.weight" in open_mask(result.mask).dense


def test_a_base_with_nothing_to_spare_is_told_of(task: Path, tmp_path: Path) -> None:
    base = tiny.tiny_model("distilbert", tmp_path / "base")
    said: list[str] = []
    result = learn(toy.settings(base, task, classifier="dense"), tmp_path / "run", say=said.append)
    told = "Classifier: pre_classifier.weight travels whole, 4 kB: the base has no matrix of its shape to spare"
    assert told in said
    assert {"pre_classifier.weight", "pre_classifier.bias"} < set(open_mask(result.mask).dense)


@pytest.mark.parametrize("keep_head", [False, True])
def test_a_base_with_the_tasks_layers_lends_its_own_inner_ones(task: Path, tmp_path: Path, keep_head: bool) -> None:
    base = tiny.tiny_model("distilbert", tmp_path / "base", head="ForSequenceClassification", initializer_range=0.1)
    given = {"classifier": "dense", "keep_head": keep_head, "learning_rate": 1e-30}
    mask = open_mask(learn(toy.settings(base, task, **given), tmp_path / "run").mask)
    assert mask.base.parameter("pre_classifier.weight") == "pre_classifier.weight"
    assert set(mask.dense) == {"classifier.weight", "classifier.bias"}
    own = open_checkpoint(base).read("classifier.weight").numpy()
    assert np.allclose(mask.dense["classifier.weight"].numpy(), own) == keep_head


def test_such_masks_are_small_at_a_real_width(task: Path, tmp_path: Path) -> None:
    """2.4 MB travelled before, of the inner layer alone."""
    sizes = {"dim": 768, "hidden_dim": 64, "n_layers": 1, "n_heads": 4}
    base = tiny.tiny_model("distilbert", tmp_path / "base", head="ForMaskedLM", **sizes)
    given = {"recipe": "default", "learning_rate": None, "epochs": 0.4}
    result = learn(toy.settings(base, task, **given), tmp_path / "run")
    file = MaskFile(result.mask)
    file.verify()
    assert result.mask.stat().st_size < 100_000


def test_tasks_with_and_without_such_layers_live_on_one_base(
    pretrained: tuple[Path, str, str], task: Path, tmp_path: Path
) -> None:
    base, _, _ = pretrained
    toy.write_rows(tmp_path / "train.jsonl", toy.tagged(16))
    one = learn(toy.settings(base, task, classifier="dense"), tmp_path / "one")
    given = {"train_file": tmp_path / "train.jsonl", "eval_file": None, "classifier": "dense"}
    two = learn(toy.settings(base, tmp_path, **given), tmp_path / "two")
    tasks = maskhub.load_tasks(base, {"one": one.mask, "two": two.mask})
    for name, run in {"one": one, "two": two, "one again": one}.items():
        tasks.set_task(name.split()[0])
        text = {"input_ids": torch.tensor([[2, 5, 6, 7, 8, 3]])}
        with torch.no_grad():
            assert torch.equal(tasks[name.split()[0]](**text).logits, run.model(**text).logits)
