from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from maskhub.container.reader import open_mask
from tests import toy
from tests.cli.conftest import Ran, Run, fields
from tests.cli.warm import error, maskhub
from tests.waiting import until

Train = Callable[..., Ran]


@pytest.fixture
def train(tiny_bert: Path, folder: Path) -> Train:
    """``maskhub train`` with the toy task's files, which lie in the present folder; None leaves an option out."""
    toy.write_task(folder)

    def train(base: object = tiny_bert, *more: str, **given: Any) -> Ran:
        return maskhub("train", *command(base, **given), *more)

    return train


def command(base: object, **given: Any) -> list[str]:
    values = {
        "train_file": "train.jsonl", "eval_file": "eval.jsonl", "output": "run", "max_length": 32, "batch_size": 8,
        "epochs": 2, "eval_steps": 4,
    } | given  # fmt: skip
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None]
    return [str(base), *(text for pair in named for text in pair)]


def test_a_run(program: Run, tiny_bert: Path, folder: Path) -> None:
    """A cold start, so that nothing that an import says goes unseen."""
    toy.write_task(folder)
    ran = program("train", *command(tiny_bert))
    mask = open_mask("run/mask.msk")
    assert ran.status == 0
    *said, deleted, hint = ran.stderr.splitlines()
    assert said[:4] == [
        "Reading examples: train.jsonl",
        "Task: text-classification, by the columns text, label",
        "Examples: 40 to learn from, 24 to evaluate on (eval.jsonl)",
        "Classes: 2, from 20 examples (spam) to 20 (film)",
    ]
    assert [line.partition(" ")[0] for line in said[4:]] == [
        "Loading", "Reading", "Warning:", "Encoding", "Masked:", "Memory:", "Training:", "Kept:",
    ]  # fmt: skip
    assert deleted.startswith("Deleted: 3 checkpoints, ")
    assert hint == f"Next: maskhub info run/mask.msk, then: maskhub apply {tiny_bert} run/mask.msk -o DIR"
    assert ran.out.splitlines()[0] == "run/mask.msk"
    assert fields(ran.out) == {
        "size": f"{Path('run/mask.msk').stat().st_size:,} bytes",
        **{name.replace("_", " "): f"{value:.4f}" for name, value in mask.metrics.items()},
    }


def test_a_finetuning(train: Train, tiny_bert: Path) -> None:
    ran = train(tiny_bert, "--json", method="finetune")
    assert (ran.status, ran.stderr) == (0, "")
    said = json.loads(ran.out)
    assert (said["run"], said["model"]) == ("run", "run/model")
    assert 0 <= said["metrics"]["accuracy"] <= 1
    assert Path("run/model/model.safetensors").stat().st_size > Path(tiny_bert, "model.safetensors").stat().st_size
    assert maskhub("plot", "run", "-o", "run.png").status == 0
    ran = train(tiny_bert, method="finetune", output="quiet", epochs=0.2)
    assert ran.out.splitlines()[0] == "quiet/model"
    ran = train(tiny_bert, "--dry-run", method="finetune", output="plan")
    assert ran.status == 0
    assert "Finetuned: " in ran.stderr
    assert ran.out.splitlines()[0].endswith(" values would be trained")
    assert not Path("plan").exists()
    ran = train(tiny_bert, method="finetune", output="other", score_init="uniform")
    assert (ran.status, Path("other").exists()) == (2, False)
    assert "score_init: a finetuning learns no mask" in ran.stderr


def test_json_and_quiet(train: Train, tiny_bert: Path) -> None:
    ran = train(tiny_bert, "--json")
    assert (ran.status, ran.stderr) == (0, "")
    mask = open_mask("run/mask.msk")
    assert json.loads(ran.out) == {
        "run": "run",
        "mask": "run/mask.msk",
        "id": mask.id,
        "bytes": Path("run/mask.msk").stat().st_size,
        "metrics": mask.metrics,
    }
    ran = train(tiny_bert, "-q", output="new/run")
    assert (ran.status, ran.out, ran.stderr) == (0, "new/run/mask.msk\n", "")
    assert open_mask("new/run/mask.msk").id == mask.id


def test_without_evaluation(train: Train) -> None:
    ran = train(eval_file=None)
    assert ran.status == 0
    assert "Not evaluated: no --eval-file was given; --eval-split 0.1 holds a tenth of the examples out." in ran.err
    assert open_mask("run/mask.msk").metrics == {}


def fields_of(run: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(Path(run, "run.json").read_text())["settings"]
    return settings


def test_options_reach_the_settings(train: Train, tiny_bert: Path) -> None:
    """One of each kind: numbers, texts, choices, lists, flags, and those that the recipe has else."""
    given = {
        "threshold": 0.02, "layers": "1", "classifier": "dense", "epochs": 1.0, "batch_size": 4, "max_length": 16,
        "text_column": "text", "label_column": "label", "base_name": "some/base", "l2_sp": 0.02, "score_margin": 0.4,
    }  # fmt: skip
    ran = train(tiny_bert, "--target-modules", "Q,V", "--train-norms", **given)
    assert ran.status == 0, ran.stderr
    settings = fields_of("run")
    assert {name: settings[name] for name in given} == given
    assert (settings["target_modules"], settings["train_norms"], settings["train_biases"]) == (["Q", "V"], True, False)
    assert (settings["recipe"], settings["learning_rate"]) == ("default", 0.004)
    assert open_mask("run/mask.msk").base.name == "some/base"


def test_a_configuration_file(train: Train, tiny_bert: Path) -> None:
    """The options go before it, and the one that a run leaves repeats the run."""
    Path("given.toml").write_text('recipe = "paper"\nepochs = 1\nlearning_rate = 0.5\n')
    ran = train(tiny_bert, "--config", "given.toml", "--learning-rate", "0.01", "--json", epochs=None)
    assert ran.status == 0, ran.stderr
    settings = fields_of("run")
    assert (settings["recipe"], settings["epochs"], settings["learning_rate"]) == ("paper", 1.0, 0.01)
    again = maskhub("train", tiny_bert, "--config", "run/config.yaml", "-o", "again", "--json")
    assert again.status == 0, again.stderr
    assert json.loads(again.out)["id"] == json.loads(ran.out)["id"]
    Path("odd.yaml").write_text("lr: 1\n")
    assert error(train(tiny_bert, "--config", "odd.yaml", output="odd"), 2) == (
        "odd.yaml: there is no setting 'lr'. Did you mean learning_rate?"
    )


def test_a_task_and_a_metric_asked_for(train: Train, tiny_bert: Path) -> None:
    toy.write_rows(Path("train.jsonl"), toy.tagged(24))
    toy.write_rows(Path("eval.jsonl"), toy.tagged(8, seed=1))
    ran = train(tiny_bert, "--json", task="token-classification", metric="recall")
    assert (ran.status, ran.stderr) == (0, "")
    assert {"f1", "precision", "recall", "accuracy"} <= set(json.loads(ran.out)["metrics"])
    settings = fields_of("run")
    assert (settings["task"], settings["metric"]) == ("token-classification", "recall")
    ran = maskhub("evaluate", tiny_bert, "run/mask.msk", "--file", "eval.jsonl", "-q")
    assert ran.out == f"{open_mask('run/mask.msk').metrics['f1']}\n"


def test_pairs_and_a_dataset_folder(train: Train, tiny_bert: Path) -> None:
    toy.write_task(Path("news"), 3, pairs=True)
    Path("news/eval.jsonl").rename("news/validation.jsonl")
    ran = train(train_file=None, eval_file=None, dataset="news")
    assert ran.status == 0, ran.stderr
    mask = open_mask("run/mask.msk")
    assert mask.lineage["data"]["train_examples"] == 40
    assert mask.lineage["data"]["eval_examples"] == 24
    assert mask.task is not None
    assert list(mask.task.config["label2id"]) == ["film", "spam", "trivia"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_file": "no.csv"}, "no.csv: no such file"),
        ({"train_file": "empty.csv"}, "empty.csv: the file is empty"),
        ({"train_file": "header.csv"}, "header.csv: no examples in it"),
        ({"train_file": "bare.csv"}, "bare.csv: no label column found among text, x. Name it with --label-column."),
        ({"text_column": "body"}, "train.jsonl: no column 'body' (asked for as the text column). It has: text, label."),
        ({"train_file": "torn.jsonl"}, "torn.jsonl: line 1: not valid JSON: "),
        ({"train_file": "one.csv"}, "one.csv: all examples have the label 'x'; a task needs two or more"),
        (
            {"eval_file": "one.csv"},
            "one.csv: row 1 has the label 'x', which the task does not know. It knows: film, spam.",
        ),
        ({"train_file": None, "dataset": "some/data"}, "some/data: cannot be read: Couldn't reach 'some/data' on the "),
        ({"output": "full"}, "full: the output folder exists and is not empty. Name a new folder."),
        ({"output": "one.csv/run"}, "one.csv/run: cannot be written: {here}/one.csv is a file. Name a new folder."),
        ({"output": "/proc/run"}, "/proc/run: cannot be written: "),
    ],
)
def test_input_that_cannot_be_used(train: Train, folder: Path, given: dict[str, Any], message: str) -> None:
    for name, content in {
        "empty.csv": "", "header.csv": "text,label\n", "bare.csv": "text,x\nx,y\n", "one.csv": "text,label\na,x\nb,x\n",
        "torn.jsonl": '{"text": "x", ', "full/note": "",
    }.items():  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    before = sorted(folder.rglob("*"))
    assert error(train(**given)).startswith(message.format(here=folder))
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "some/data"}, "give either a training file or a dataset"),
        ({"max_length": 67}, "max_length: 67: {base} reads at most 66 tokens. Give --max-length 66 or less."),
        ({"layers": "0-7"}, "layers '0-7': there is no layer 2; the base has layers 0 to 1"),
        ({"layers": "top"}, "layers 'top': expected all, upper, 2-11, 0,3,5 or top:4"),
        ({"initial_sparsity": 1.5}, "initial_sparsity: 1.5 is not above 0 and below 1"),
        ({"classifier": "thick"}, "classifier: there is no 'thick'. It is one of: masked, frozen, dense."),
        ({"report_to": "paper"}, "paper is not supported, only "),
        ({"learning_rate": "nan"}, "learning_rate: nan is not above 0"),
    ],
)
def test_settings_that_cannot_be(train: Train, tiny_bert: Path, given: dict[str, Any], message: str) -> None:
    assert error(train(**given), 2).startswith(f"training settings: {message.format(base=tiny_bert)}")
    assert not Path("run").exists()


def test_bases_that_cannot_be_used(train: Train, tiny_bert: Path) -> None:
    def copy(folder: str, *without: str) -> str:
        Path(folder).mkdir()
        for path in tiny_bert.iterdir():
            if path.name not in without:
                Path(folder, path.name).write_bytes(path.read_bytes())
        return folder

    for base, message in {
        "/no/base": "/no/base: no such folder. Name a folder with config.json and model.safetensors, or a Hub id.",
        "nobase": "nobase: no such folder, and not from the Hub: ",
        "train.jsonl": "train.jsonl: not a checkpoint: expected a folder, a .safetensors or a PyTorch file",
        copy("mute", "tokenizer.json", "tokenizer_config.json"): "mute: the folder has no tokenizer. Put the ",
        copy("light", "model.safetensors"): "light: the folder has neither model.safetensors nor ",
        copy("bare", "config.json"): "bare/config.json: no such file",
    }.items():
        assert error(train(base)).startswith(message)
        assert not Path("run").exists()
    Path("bare/config.json").write_text("{")
    assert error(train("bare")).startswith("bare: ")
    assert not Path("run").exists()


def test_a_cold_start_that_fails(program: Run, tiny_bert: Path, folder: Path) -> None:
    toy.write_task(folder)
    ran = program("train", *command(tiny_bert, layers="9"))
    assert error(ran, 2) == "training settings: layers '9': there is no layer 9; the base has layers 0 to 1"
    assert not Path("run").exists()


def test_a_run_needs_a_folder(tiny_bert: Path) -> None:
    assert error(maskhub("train", tiny_bert), 2) == "a run needs a folder. Name one: -o RUN."
    assert not os.listdir()


LONG = {"eval_file": None, "epochs": 60, "eval_steps": 3, "classifier": "dense"}  # 300 steps, some seconds


@pytest.fixture(scope="module")
def unbroken(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The mask of a run of 300 steps that nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken")
    toy.write_task(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran = maskhub("train", *command(tiny_bert, **LONG), "--json")
    assert ran.status == 0, ran.stderr
    identity: str = json.loads(ran.out)["id"]
    return identity


def start(base: Path) -> subprocess.Popen[str]:
    """A cold program that trains, returned when it has written two checkpoints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "maskhub_cli", "train", *command(base, **LONG)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: len(list(Path("run").glob("checkpoints/*/digests.json"))) > 1, process)
    return process


def test_ctrl_c_then_resume(train: Train, tiny_bert: Path, unbroken: str) -> None:
    process = start(tiny_bert)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    text = error(Ran(process.returncode, out, err), 130)
    assert text.startswith("run: interrupted after step ")
    assert text.endswith(" of 300. Nothing is lost: the same command with --resume goes on.")
    assert not Path("run/mask.msk").exists()

    assert error(train(**LONG)) == "run: holds a run already. Go on with it by --resume, or name a new folder."
    changed = error(train(tiny_bert, "--resume", **LONG | {"seed": 1, "learning_rate": 0.1}))
    assert changed == (
        "the run was started with other settings: seed 0 is now 1; learning_rate 0.004 is now 0.1. "
        "Give them as they were, or name a new folder."
    )
    assert error(maskhub("pack", "run", "-o", "task.msk")) == (
        "run: the run is not finished: it has no mask.msk. Go on with: maskhub train ... --resume."
    )
    ran = train(tiny_bert, "--resume", "--json", **LONG)
    assert (ran.status, ran.stderr) == (0, "")
    assert json.loads(ran.out)["id"] == unbroken
    assert error(train(tiny_bert, "--resume", **LONG)) == "run: the run is finished. Its mask is run/mask.msk."


def test_killed_then_resume(train: Train, tiny_bert: Path, unbroken: str) -> None:
    process = start(tiny_bert)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.communicate()
    torn = Path("run/checkpoints/checkpoint-299")
    torn.mkdir()
    (torn / "scores.safetensors").write_bytes(b"half")
    ran = train(tiny_bert, "--resume", "--json", **LONG)
    assert (ran.status, ran.stderr.splitlines()[0]) == (
        0, f"Warning: {torn}: this checkpoint is not used: it has no digests.json, which is written last"
    )  # fmt: skip
    assert json.loads(ran.out)["id"] == unbroken


def test_resuming_what_is_no_run(train: Train, tiny_bert: Path) -> None:
    assert error(train(tiny_bert, "--resume")) == (
        "run: no run folder: it has no run.json. "
        "Name a folder that maskhub train wrote; a new run goes without --resume."
    )
    assert not Path("run").exists()


def test_a_dry_run_lists_what_would_be_masked(train: Train, tiny_bert: Path) -> None:
    ran = train(tiny_bert, "--dry-run", "--target-modules", "Q,V", "--layers", "1")
    assert ran.status == 0
    assert not Path("run").exists()
    assert "bert.encoder.layer.1.attention.self.query.weight" in ran.out
    planned = json.loads(train(tiny_bert, "--dry-run", "--structure", "heads", "--json", output=None).out)
    assert {weight["kind"] for weight in planned["weights"][:-1]} == {"Q", "K", "V", "AO"}
    assert planned["memory"]["optimiser state"] == 2 * planned["memory"]["gradients"]
    assert error(train(tiny_bert, "--dry-run", "--recipe", "x"), 2).startswith("training settings: recipe: ")
