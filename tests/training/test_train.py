from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import maskhub
from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import MaskFile, open_mask
from maskhub.errors import (
    CheckpointError,
    DataError,
    ExistsError,
    MaskhubError,
    MissingError,
    OutputError,
    TrainingError,
)
from maskhub.masks.scores import draw
from maskhub.runtime.evaluate import evaluate, logits_of
from maskhub.tasks.data import read_file
from maskhub.training.examples import read
from maskhub.training.loop import TrainResult
from maskhub.training.masking import scores_of
from maskhub.training.model import head_of
from maskhub.training.run import maskset_from_run, read_record
from maskhub.training.settings import TrainSettings, read_config, settings_from
from maskhub.training.train import learn, ready
from tests import tiny, toy
from tests.training.conftest import Base

CASES = {
    "bert-2-pairs": "masked", "bert-3": "dense", "roberta-2": "dense", "roberta-3-pairs": "masked",
    "distilbert-2-pairs": "frozen", "distilbert-4": "dense",
}  # fmt: skip
IN_A_CHECKPOINT = {
    "head",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "scores",
    "trainer_state.json",
    "digests.json",
}


class Trained(NamedTuple):
    settings: TrainSettings
    result: TrainResult
    base_before: dict[str, bytes]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, base_of: Base, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished run for each family of models, with single texts or pairs, of two to four classes."""
    family, classes, *pairs = request.param.split("-")
    folder, base = tmp_path_factory.mktemp("trained"), base_of(family)
    toy.write_task(folder / "task", int(classes), pairs=bool(pairs), count=72)
    before = files(base)
    settings = toy.settings(base, folder / "task", classifier=CASES[request.param], eval_steps=10, epochs=3.0)
    return Trained(settings, learn(settings, folder / "run"), before)


def test_the_run_folder(trained: Trained) -> None:
    folder = trained.result.folder
    assert {p.name for p in folder.iterdir()} == {"run.json", "config.yaml", "run.h5", "metrics.json", "mask.msk"}
    record = read_record(folder)
    assert record.settings == trained.settings
    assert record.data == {"train": "train.jsonl", "train_examples": 72, "eval": "eval.jsonl", "eval_examples": 24}


def test_no_file_holds_a_weight_of_the_base(trained: Trained) -> None:
    base = open_checkpoint(trained.settings.base)
    weights = {n: base.read(n).numpy() for n in base}
    telling = {n: w.tobytes() for n, w in weights.items() if len(np.unique(w)) > 2}
    assert {n for n in telling if "query" in n or "q_lin" in n}
    for path, data in files(trained.result.folder).items():
        assert not [n for n, weight in telling.items() if weight in data or weight[-64:] in data], path


def test_the_base_is_left_as_it_was(trained: Trained) -> None:
    assert files(Path(trained.settings.base)) == trained.base_before


def test_the_masks_are_the_scores_above_the_threshold(trained: Trained) -> None:
    folder = trained.result.folder
    scores = {name: tensor.detach().numpy() for name, tensor in scores_of(trained.result.model).items()}
    mask = open_mask(folder / "mask.msk")
    head = {n: t.detach().numpy() for n, t in head_of(trained.result.model, frozenset(mask.dense)).items()}
    parameters = {mask.base.parameter(name): name for name in mask.masks}
    threshold = np.float32(trained.settings.threshold)
    assert set(parameters) == set(scores) - set(head)
    for parameter, name in parameters.items():
        assert scores[parameter].shape == mask[name].shape
        assert np.array_equal(mask[name].to_bool(), scores[parameter] > threshold)
    assert head
    for name, tensor in head.items():
        kept = np.where(scores[name] > threshold, tensor, 0) if name in scores else tensor
        assert np.array_equal(mask.dense[name].numpy().view(np.uint32), kept.view(np.uint32))
    of_head = {name for name in head if name.endswith("weight")}
    assert set(scores) & set(head) == (of_head if trained.settings.classifier == "masked" else set())


def test_what_the_mask_says_of_itself(trained: Trained) -> None:
    settings, result = trained.settings, trained.result
    file = MaskFile(result.mask)
    file.verify()
    mask = file.maskset()
    assert mask.id == result.manifest.id == maskset_from_run(result.folder).id
    verify_base(open_checkpoint(settings.base), mask)
    labels = sorted(read_file(str(settings.train_file)).label_names)
    assert mask.task is not None
    assert mask.task.type == "text-classification"
    assert mask.task.architecture == type(result.model).__name__
    assert mask.task.config["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert mask.task.max_length == settings.max_length
    assert mask.base.name == settings.base
    assert mask.lineage["settings"]["seed"] == settings.seed
    assert mask.initial == read_record(result.folder).initial
    assert (mask.initial.seed, mask.initial.cut) == (settings.seed, 3277)
    assert str(settings.train_file) not in json.dumps(msgspec.to_builtins(mask.lineage))
    measured = json.loads((result.folder / "metrics.json").read_text())
    assert mask.metrics == measured["metrics"] == result.metrics
    each = {f"f1_{label}" for label in labels} if len(labels) == 2 else set()
    assert set(result.metrics) == {"accuracy", "f1", "matthews_correlation", "loss", "majority_accuracy"} | each
    assert measured["steps"] == 27
    assert result.metrics["majority_accuracy"] == pytest.approx(1 / len(labels))


def test_dense_weights_give_the_trained_models_logits(trained: Trained, tmp_path: Path) -> None:
    """The model in memory, a plain one from the dense checkpoint, ``load_model`` and a pipeline: all the same bits."""
    settings, result = trained.settings, trained.result
    mask = maskhub.open(result.mask)
    tiny.build(maskhub.open_checkpoint(settings.base), mask, tmp_path / "dense")
    plain, report = getattr(transformers, type(result.model).__name__).from_pretrained(
        tmp_path / "dense", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    loaded = maskhub.load_model(settings.base, result.mask)
    examples = read_file(str(settings.eval_file))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "dense")
    trained_logits = logits_of(result.model, result.tokenizer, examples, max_length=32)
    assert trained_logits.shape == (24, len(examples.label_names))
    for model in (plain, loaded):
        assert not model.training
        assert logits_of(model, tokenizer, examples, max_length=32).tobytes() == trained_logits.tobytes()

    pipe = maskhub.pipeline(result.mask, settings.base, top_k=None)
    names = [loaded.config.id2label[i] for i in range(len(examples.label_names))]
    assert names == sorted(names) == list(examples.label_names)
    for i in (0, 5, 23):
        texts = [inputs[i] for inputs in examples.inputs.values()]
        one = texts[0] if len(texts) == 1 else dict(zip(("text", "text_pair"), texts, strict=True))
        said = {entry["label"]: entry["score"] for entry in pipe([one])[0]}
        with torch.inference_mode():
            logits = result.model(**tokenizer(*texts, return_tensors="pt")).logits[0].numpy()
        odds = np.exp(logits - logits.max())
        assert [said[name] for name in names] == pytest.approx((odds / odds.sum()).tolist(), rel=1e-6)


def test_evaluate_agrees_with_the_run(trained: Trained) -> None:
    examples = read_file(str(trained.settings.eval_file))
    (metrics,) = evaluate(trained.settings.base, open_mask(trained.result.mask), examples)
    assert metrics == {name: value for name, value in trained.result.metrics.items() if name != "loss"}


@pytest.mark.parametrize(
    ("family", "classes", "pairs"), [("bert", 2, False), ("roberta", 3, True), ("distilbert", 3, True)]
)
def test_it_learns(base_of: Base, tmp_path: Path, family: str, classes: int, pairs: bool) -> None:
    toy.write_task(tmp_path, classes, pairs=pairs, count=64)
    given = {"classifier": "dense", "learning_rate": 3e-2, "epochs": 10.0, "eval_steps": 40}
    result = learn(toy.settings(base_of(family), tmp_path, **given), tmp_path / "run")
    assert result.metrics["accuracy"] > 0.9
    assert result.metrics["matthews_correlation"] > 0.8
    flipped = sum(m.size - m.kept for m in open_mask(result.mask).masks.values())
    assert flipped > 0


def masks_of(result: TrainResult) -> Mapping[str, maskhub.Mask]:
    return open_mask(result.mask).masks


def test_seeds(bert: Path, task: Path, tmp_path: Path) -> None:
    first, again, other = (
        learn(toy.settings(bert, task, seed=seed), tmp_path / name)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.manifest.id == again.manifest.id
    assert first.metrics == again.metrics
    assert files(first.folder)["mask.msk"] == files(again.folder)["mask.msk"]
    assert other.manifest.id != first.manifest.id
    assert all(masks_of(other)[name] != mask for name, mask in masks_of(first).items())


@pytest.mark.parametrize(("sparsity", "threshold"), [(0.05, 1e-2), (0.3, 0.5)])
def test_the_initial_mask_is_the_draws_from_the_cut_on(
    bert: Path, task: Path, tmp_path: Path, sparsity: float, threshold: float
) -> None:
    """Without learning the mask stays the initial one, whatever the data."""
    given = {"initial_sparsity": sparsity, "threshold": threshold, "learning_rate": 1e-30, "seed": 9}
    result = learn(toy.settings(bert, task, **given), tmp_path / "run")
    cut = read_record(result.folder).initial.cut
    total = dropped = 0
    for name, mask in masks_of(result).items():
        assert np.array_equal(mask.to_bool().reshape(-1), draw(9, name, mask.size) >= cut)
        total, dropped = total + mask.size, dropped + mask.size - mask.kept
    assert total == 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32
    assert dropped / total == pytest.approx(sparsity, abs=4 * np.sqrt(sparsity / total))


@pytest.mark.parametrize("classifier", ["masked", "frozen", "dense"])
def test_classifiers(bert: Path, task: Path, tmp_path: Path, classifier: str) -> None:
    result = learn(toy.settings(bert, task, classifier=classifier), tmp_path / "run")
    still = learn(toy.settings(bert, task, classifier="frozen", learning_rate=1e-30), tmp_path / "still")
    names = frozenset({"classifier.weight", "classifier.bias"})
    head, fresh = ({n: t.detach().numpy() for n, t in head_of(r.model, names).items()} for r in (result, still))
    assert set(head) == {"classifier.weight", "classifier.bias"}
    same = {name: np.array_equal(head[name], fresh[name]) for name in head}
    assert same == dict.fromkeys(head, classifier != "dense")
    assert np.any(fresh["classifier.weight"])
    assert ("classifier.weight" in scores_of(result.model)) == (classifier == "masked")


def test_layers_chosen(bert: Path, task: Path, tmp_path: Path) -> None:
    result = learn(toy.settings(bert, task, layers="top:1"), tmp_path / "run")
    assert {name.split(".")[2] for name in masks_of(result) if name != "pooler.dense.weight"} == {"1"}
    assert len(masks_of(result)) == 7


def test_without_evaluation(bert: Path, task: Path, tmp_path: Path) -> None:
    steps = []
    result = learn(
        toy.settings(bert, task, eval_file=None, epochs=1.0),
        tmp_path / "run",
        report=lambda step, of, numbers: steps.append((step, of, set(numbers))),
    )
    assert result.metrics == {} == open_mask(result.mask).metrics
    assert json.loads((result.folder / "metrics.json").read_text())["metrics"] == {}
    assert steps[-1] == (5, 5, {"loss"})
    assert [step for step, _, _ in steps] == sorted(step for step, _, _ in steps)


def test_the_best_evaluation_is_kept_and_patience_ends_it(bert: Path, task: Path, tmp_path: Path) -> None:
    """Where nothing is learned, the first evaluation stays the best."""
    given = {"learning_rate": 1e-30, "epochs": 50.0, "eval_steps": 2, "patience": 3, "keep_checkpoints": True}
    result = learn(toy.settings(bert, task, **given), tmp_path / "run")
    measured = json.loads((result.folder / "metrics.json").read_text())
    assert measured["steps"] == 8  # the first evaluation, and three that are no better
    state = json.loads((result.folder / "checkpoints/checkpoint-8/trainer_state.json").read_text())
    assert state["best_global_step"] == 2


def test_bf16_weights(task: Path, tmp_path: Path) -> None:
    """A base stored in bfloat16 is masked and applied in bfloat16."""
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.1)
    transformers.AutoModel.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    result = learn(toy.settings(base, task, classifier="dense"), tmp_path / "run")
    tiny.build(maskhub.open_checkpoint(base), maskhub.open(result.mask), tmp_path / "dense")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
    assert plain.dtype == torch.bfloat16
    examples = read_file(task / "eval.jsonl")
    logits = [logits_of(model, result.tokenizer, examples) for model in (plain, result.model)]
    assert logits[0].tobytes() == logits[1].tobytes()


def test_gradient_accumulation_and_precision(bert: Path, task: Path, tmp_path: Path) -> None:
    given = {"gradient_accumulation_steps": 2, "batch_size": 4, "precision": "bf16"}
    result = learn(toy.settings(bert, task, **given), tmp_path / "run")
    assert json.loads((result.folder / "metrics.json").read_text())["steps"] == 10
    assert {t.dtype for t in scores_of(result.model).values()} == {torch.float32}


UNBROKEN = {"keep_checkpoints": True, "epochs": 3.0, "eval_steps": 2, "classifier": "dense", "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def unbroken(bert: Path, task: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """15 steps in three epochs, nothing in their way."""
    return learn(toy.settings(bert, task, **UNBROKEN), tmp_path_factory.mktemp("unbroken") / "run")


def last_weights(result: TrainResult) -> list[bytes]:
    """What the last step left, which need not be the best."""
    last = result.folder / "checkpoints/checkpoint-15"
    assert {p.name.removesuffix(".safetensors") for p in last.iterdir()} == IN_A_CHECKPOINT
    return [(last / f"{name}.safetensors").read_bytes() for name in ("scores", "head")]


@pytest.mark.parametrize("step", [1, 4, 5, 7, 10, 14])
def test_ctrl_c_and_resume(
    bert: Path, task: Path, unbroken: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """In the first epoch, at an evaluation, at an epoch's end, in a later epoch: the same mask as unbroken."""
    settings = toy.settings(bert, task, **UNBROKEN)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError) as caught:
        learn(settings, "run", report=toy.interrupt_after(step))
    assert signal.getsignal(signal.SIGINT) is handler
    assert caught.value.message == f"run: interrupted after step {step} of 15"
    assert caught.value.hint == "Nothing is lost: the same command with --resume goes on."
    assert Path(f"run/checkpoints/checkpoint-{step}/trainer_state.json").is_file()
    assert not Path("run/mask.msk").exists()
    with pytest.raises(TrainingError, match=r"^run: the run is not finished: it has no mask\.msk\. "):
        maskset_from_run("run")
    monkeypatch.chdir("/")
    result = learn(settings, tmp_path / "run", resume=True)
    assert result.manifest.id == unbroken.manifest.id
    assert result.metrics == unbroken.metrics
    assert last_weights(result) == last_weights(unbroken)


class Killed(BaseException):
    """Ends a run where it is, as a signal would: nothing is caught, nothing more is written."""


@pytest.mark.parametrize("step", [1, 3, 7, 12])
def test_killed_and_resumed(bert: Path, task: Path, unbroken: TrainResult, tmp_path: Path, step: int) -> None:
    settings = toy.settings(bert, task, **UNBROKEN)

    def kill(done: int, total: int, numbers: object) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        learn(settings, tmp_path, report=kill)
    # What a process that died while it saved leaves behind: files missing, or the last one cut short.
    for number, state in ((13, None), (14, "{"), (15, ""))[: 1 if step == 1 else 3]:
        torn = tmp_path / f"checkpoints/checkpoint-{number}"
        torn.mkdir(parents=True)
        (torn / "scores.safetensors").touch()
        if state is not None:
            (torn / "trainer_state.json").write_text(state)
    resumed_at = []
    with pytest.warns(UserWarning, match="this checkpoint is not used: it has no digests"):
        result = learn(settings, tmp_path, resume=True, report=lambda done, total, numbers: resumed_at.append(done))
    assert resumed_at[0] == step - (step - 1) % 2
    assert result.manifest.id == unbroken.manifest.id
    assert last_weights(result) == last_weights(unbroken)
    for name in os.listdir(tmp_path / "checkpoints"):
        assert {f.split(".")[0] for f in os.listdir(tmp_path / "checkpoints" / name)} >= {"scores", "trainer_state"}


def test_patience_counts_on_after_a_resume(bert: Path, task: Path, tmp_path: Path) -> None:
    settings = toy.settings(bert, task, learning_rate=1e-30, epochs=50.0, eval_steps=2, patience=3)

    def kill(done: int, total: int, numbers: object) -> None:
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        learn(settings, tmp_path, report=kill)
    result = learn(settings, tmp_path, resume=True)
    assert json.loads((result.folder / "metrics.json").read_text())["steps"] == 8


def test_resuming_is_for_the_same_run(bert: Path, task: Path, tmp_path: Path) -> None:
    settings = toy.settings(bert, task)
    run = tmp_path / "run"
    with pytest.raises(MissingError, match=r"run: no run folder: it has no run\.json\. Name"):
        learn(settings, run, resume=True)

    def kill(done: int, total: int, numbers: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        learn(settings, run, report=kill)
    before = files(run)
    with pytest.raises(ExistsError) as caught:
        learn(settings, run)
    assert caught.value.message == f"{run}: holds a run already"
    assert caught.value.hint == "Go on with it by --resume, or name a new folder."
    with pytest.raises(TrainingError) as caught:
        learn(msgspec.structs.replace(settings, seed=5, epochs=9.0), run, resume=True)
    assert caught.value.message == ("the run was started with other settings: seed 0 is now 5; epochs 2.0 is now 9.0")
    assert caught.value.hint == "Give them as they were, or name a new folder."
    shutil.copytree(bert, tmp_path / "bert")
    moved = msgspec.structs.replace(settings, base=str(tmp_path / "bert"))
    with pytest.raises(TrainingError, match="the run was started with other settings: base '"):
        learn(moved, run, resume=True)
    assert files(run) == before
    finished = learn(settings, run, resume=True)
    with pytest.raises(TrainingError) as caught:
        learn(settings, run, resume=True)
    assert caught.value.message == f"{run}: the run is finished"
    assert caught.value.hint == f"Its mask is {finished.mask}."


@pytest.mark.parametrize(
    "what", ["base", "examples", "labels", "examples of the same number", "examples to evaluate on"]
)
def test_a_base_or_data_that_changed_since(bert: Path, tmp_path: Path, what: str) -> None:
    shutil.copytree(bert, tmp_path / "base")
    toy.write_task(tmp_path / "task")
    settings = toy.settings(tmp_path / "base", tmp_path / "task")

    def kill(done: int, total: int, numbers: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        learn(settings, tmp_path / "run", report=kill)
    if what == "base":
        tiny.tiny_model("bert", tmp_path / "base", seed=1)
    elif what == "examples":
        toy.write_task(tmp_path / "task", count=32)
    elif what == "labels":
        for name in ("train.jsonl", "eval.jsonl"):
            path = tmp_path / "task" / name
            path.write_text(path.read_text().replace('"spam"', '"ham"'))
    else:
        path = tmp_path / "task" / ("eval.jsonl" if "evaluate" in what else "train.jsonl")
        first, *others = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*others, first]))
    before = files(tmp_path / "run")
    with pytest.raises(TrainingError) as caught:
        learn(settings, tmp_path / "run", resume=True)
    assert caught.value.message == f"{tmp_path / 'run'}: the run's {what.split()[0]} changed since it was started"
    assert caught.value.hint == "Start a new run."
    assert files(tmp_path / "run") == before


def refused(settings: TrainSettings, output: Path) -> MaskhubError:
    """The error of a run that must not start, which writes nothing."""
    with pytest.raises(MaskhubError) as caught:
        learn(settings, output)
    assert "\n" not in str(caught.value)
    return caught.value


def test_examples_that_make_no_task(bert: Path, task: Path, tmp_path: Path) -> None:
    path = toy.write_rows(tmp_path / "one.jsonl", [row for row in toy.rows(9) if row["label"] == "spam"])
    error = refused(toy.settings(bert, task, train_file=str(path)), tmp_path / "run")
    assert isinstance(error, DataError)
    assert error.message == f"{path}: all examples have the label 'spam'; a task needs two or more"
    path = toy.write_rows(tmp_path / "other.jsonl", toy.rows(9, 3))
    error = refused(toy.settings(bert, task, eval_file=str(path)), tmp_path / "run")
    assert error.message == f"{path}: row 3 has the label 'trivia', which the task does not know"
    assert error.hint == "It knows: film, spam."
    error = refused(toy.settings(bert, task, text_column="body"), tmp_path / "run")
    assert error.message.endswith("train.jsonl: no column 'body' (asked for as the text column)")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.jsonl", "other.jsonl"]


def test_an_evaluation_file_that_writes_its_labels_otherwise(task: Path, tmp_path: Path) -> None:
    rows = toy.write_rows(tmp_path / "rows.jsonl", [{"text": "x", "label": value} for value in (False, True) * 2])
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "x,false\nx,true\n" * 2)
    for training, other, labels in ((rows, table, ["False", "True"] * 2), (table, rows, ["false", "true"] * 2)):
        settings = toy.settings(tmp_path, task, train_file=str(training), eval_file=str(other))
        with pytest.warns(UserWarning, match="rows.*: some labels are not written as the task's, and taken for them"):
            data = read(settings, None)
        assert data.evaluation is not None
        assert (data.training.labels, data.evaluation.labels) == (labels, labels)


def test_bases_that_cannot_be_trained(bert: Path, task: Path, tmp_path: Path) -> None:
    def without(*names: str) -> Path:
        folder = tmp_path / "-".join(["base", *names])
        shutil.copytree(bert, folder, ignore=shutil.ignore_patterns(*names))
        return folder

    base = without("tokenizer*")
    error = refused(toy.settings(base, task), tmp_path / "run")
    assert isinstance(error, CheckpointError)
    assert error.message == f"{base}: the folder has no tokenizer"
    assert error.hint == "Put the model's tokenizer.json beside it."
    base = without("tokenizer.json")
    assert refused(toy.settings(base, task), tmp_path / "run").message == f"{base}: the folder has no tokenizer"
    (base / "tokenizer.json").write_text("{")
    error = refused(toy.settings(base, task), tmp_path / "run")
    assert str(error).startswith(f"{base}: its tokenizer cannot be loaded: ")
    base = without("model.safetensors")
    error = refused(toy.settings(base, task), tmp_path / "run")
    lacks = "the folder has neither model.safetensors nor pytorch_model.bin, nor an index of shards"
    assert error.message == f"{base}: {lacks}"
    base = without("config.json")
    error = refused(toy.settings(base, task), tmp_path / "run")
    assert str(error).startswith(f"{base}/config.json: no such file")
    config = json.loads((bert / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    error = refused(toy.settings(base, task), tmp_path / "run")
    assert str(error).startswith(
        f"{base}: bert.embeddings.LayerNorm.bias has the shape [32], and its config.json says [64]"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("family", "limit"), [("bert", 66), ("roberta", 64), ("distilbert", 66)])
def test_lengths_up_to_the_models_limit(base_of: Base, tmp_path: Path, family: str, limit: int) -> None:
    toy.write_task(tmp_path)
    long = [{"text": " ".join(["good film"] * 80), "label": label} for label in ("spam", "film")] * 4
    toy.write_rows(tmp_path / "train.jsonl", long)
    settings = toy.settings(base_of(family), tmp_path, max_length=limit, epochs=1.0)
    assert learn(settings, tmp_path / "run").manifest.id
    error = refused(msgspec.structs.replace(settings, max_length=limit + 1), tmp_path / "new")
    told = f"training settings: max_length: {limit + 1}: {base_of(family)} reads at most {limit} tokens"
    assert error.message == told
    assert error.hint == f"Give --max-length {limit} or less."


def test_outputs_that_cannot_be(bert: Path, task: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").touch()
    settings = toy.settings(bert, task)
    for output, message in {
        "full": "the output folder exists and is not empty",
        "file": "the output folder exists and is not a folder",
        "file/run": f"cannot be written: {tmp_path / 'file'} is a file",
    }.items():
        error = refused(settings, tmp_path / output)
        assert isinstance(error, OutputError)
        assert error.message == f"{tmp_path / output}: {message}"
    error = refused(settings, Path("/proc/run"))
    assert error.message == "/proc/run: cannot be written: No such file or directory"
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["file", "full", "full/note"]


def test_tensorboard(bert: Path, task: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    learn(toy.settings(bert, task, report_to="tensorboard"), tmp_path / "run")
    (events,) = (tmp_path / "run" / "checkpoints" / "runs").iterdir()
    found = reader.EventAccumulator(str(events)).Reload()
    history = json.loads((tmp_path / "run" / "metrics.json").read_text())["history"]
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    assert losses
    assert [event.value for event in found.Scalars("train/loss")] == pytest.approx(losses, rel=1e-4)


def test_a_tracker_that_there_is_not(bert: Path, task: Path, tmp_path: Path) -> None:
    error = refused(toy.settings(bert, task, report_to="paper"), tmp_path / "run")
    assert str(error).startswith("training settings: paper is not supported, only ")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_it_does_and_a_plan_the_same(bert: Path, task: Path, tmp_path: Path) -> None:
    settings = toy.settings(bert, task, epochs=1.0)
    said, planned = [], []
    found = ready(settings, tmp_path / "run", say=planned.append).plan
    assert not (tmp_path / "run").exists()
    learn(settings, tmp_path / "run", say=said.append)
    assert said[: len(planned)] == planned
    assert [line.partition(":")[0] for line in said] == [
        "Reading examples", "Task", "Examples", "Classes", "Loading torch and transformers", "Reading the base",
        "Warning", "Encoding 64 examples", "Masked", "Memory", "Training", "Kept", "Deleted",
    ]  # fmt: skip
    assert "Masked: 17,472 weights: 12 tensors in 2 layers and 2 outside them" in said
    assert said[-3].startswith("Training: 5 steps; ")
    assert re.fullmatch(r"Kept: step [1-5] of the 5 done, the first with the best evaluation", said[-2])
    assert re.fullmatch(r"Deleted: 2 checkpoints, [0-9]+ kB \(--keep-checkpoints keeps them\)", said[-1])
    assert (found.examples, found.eval_examples, found.steps) == (40, 24, 5)
    assert found.classes == {"film": 20, "spam": 20}


REFUSED = {
    "labels": {"eval_file": "other.jsonl"},
    "length": {"max_length": 67},
    "metric": {"metric": "bleu"},
    "tracker": {"report_to": "paper"},
    "layers": {"layers": "7"},
    "split": {"eval_file": None, "eval_split": 0.001},
    "base": {"base": "nowhere"},
    "full": {},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_plan_refuses_what_a_run_refuses(bert: Path, task: Path, tmp_path: Path, what: str) -> None:
    toy.write_rows(tmp_path / "other.jsonl", toy.rows(9, 3))
    given = REFUSED[what]
    if given.get("eval_file"):
        given = {"eval_file": str(tmp_path / given["eval_file"])}
    settings = msgspec.structs.replace(toy.settings(bert, task), **given)
    if what == "full":
        (tmp_path / "run").mkdir()
        (tmp_path / "run/note").touch()
    error = refused(settings, tmp_path / "run")
    with pytest.raises(MaskhubError) as caught:
        ready(settings, tmp_path / "run")
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))


def test_the_run_folder_holds_what_repeats_it(bert: Path, task: Path, tmp_path: Path) -> None:
    settings = toy.settings(bert, task, eval_file=None, eval_split=0.2, epochs=1.0, target_modules="Q,V")
    first = learn(settings, tmp_path / "run")
    assert read_record(first.folder).data == {
        "train": "train.jsonl", "train_examples": 32, "eval": "train.jsonl, held out", "eval_examples": 8,
    }  # fmt: skip
    again = learn(settings_from(**read_config(first.folder / "config.yaml")), tmp_path / "again")
    assert again.mask.read_bytes() == first.mask.read_bytes()
