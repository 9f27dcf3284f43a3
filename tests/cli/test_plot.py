"""``maskhub plot``: runs and masks. (Pictures of masks are tested with ``maskhub info``.)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskhub.training.recording import Recorder
from tests.cli.conftest import Run

pytest.importorskip("matplotlib")
pytest.importorskip("h5py")


def record(folder: Path, steps: int) -> Recorder:
    folder.mkdir()
    recorder = Recorder(folder, {"layer.0.query.weight": 30, "layer.1.query.weight": 50, "pooler": 20}, ["f1", "loss"])
    recorder.mask(0, [0.95, 0.95, 0.95], [0, 0, 0], [0, 0, 0], [1, 1, 1])
    for step in range(1, steps + 1):
        recorder.train(step, {"loss": 1 / step, "learning_rate": 0.1, "grad_norm": 1.0})
        recorder.eval(step, {"f1": 1 - 1 / step, "loss": 2 / step})
        recorder.mask(step, [0.9, 0.8, 0.7], [step, 2 * step, 3 * step], [1, 2, 3], [0.9, 0.8, 0.7])
    return recorder


def test_a_run_that_goes_on(run: Run, folder: Path) -> None:
    recorder = record(Path("run"), 5)
    ran = run("plot", "run", "-o", "run.svg", "--json")
    assert (ran.status, json.loads(ran.out)) == (0, {"picture": "run.svg"})
    first = Path("run.svg").read_text()
    for text in ("Run run", "f1", "evaluation", "training", "dropped weights, %", "layer 1", "other", "learning rate"):
        assert f"<!-- {text} -->" in first
    recorder.train(6, {"loss": 0.1})
    recorder.mask(6, [0.9, 0.8, 0.1], [1, 2, 30], [1, 2, 3], [0.9, 0.8, 0.7])
    ran = run("plot", "run", "-o", "run.svg", "--force", "-q")
    assert (ran.status, ran.out) == (0, "run.svg\n")
    assert Path("run.svg").read_text() != first
    recorder.close()


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_has_only_begun(run: Run, folder: Path, steps: int) -> None:
    record(Path("run"), steps).close()
    assert run("plot", "run", "-o", "run.png").status == 0
    assert Path("run.png").read_bytes().startswith(b"\x89PNG")


def test_a_mask(run: Run, mask_path: Path) -> None:
    assert run("plot", mask_path, "-o", "mask.pdf").status == 0
    assert run("info", mask_path, "--plot", "info.pdf").status == 0
    assert Path("mask.pdf").read_bytes() == Path("info.pdf").read_bytes()


def test_what_cannot_be_drawn(run: Run, folder: Path) -> None:
    Path("empty").mkdir()
    Path("torn").mkdir()
    Path("torn/run.h5").write_bytes(b"torn")
    Path("there.png").write_bytes(b"mine")
    for source, output, message in (
        ("empty", "e.png", "empty: no recording: it has no run.h5. Name the folder of a run."),
        ("torn", "e.png", "torn/run.h5: cannot be read as a recording: "),
        ("missing", "e.png", "missing: no such file"),
        ("empty", "e.gif", "e.gif: cannot tell what kind of picture this is. Name it .png, .svg or .pdf."),
        ("empty", "there.png", "there.png: the output file exists. Name another one, or replace it with --force."),
    ):
        ran = run("plot", source, "-o", output)
        assert ran.status == (2 if output == "e.gif" else 1)
        assert ran.err.startswith(f"Error: {message}")
        assert len(ran.err.splitlines()) == 1
    assert Path("there.png").read_bytes() == b"mine"
    assert not Path("e.png").exists()
