"""Two trainings in one folder: the second one ends at once, and says who is at work there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maskhub.training import checkpoints
from tests.cli.conftest import Run
from tests.cli.test_signals import training

pytest.importorskip("torch")


def options(base: Path, *more: str) -> tuple[object, ...]:
    return ("train", base, "--train-file", "train.jsonl", "--batch-size", "8", "--epochs", "60", "--eval-steps", "3",
            "--classifier", "dense", "--max-length", "32", "-o", "run", *more)  # fmt: skip


def refused(run: Run, process: subprocess.Popen[str], base: Path, *more: str) -> None:
    ran = run(*options(base, *more))
    assert (ran.status, ran.out) == (1, "")
    assert re.fullmatch(
        rf"Error: run: another training is at work there: process {process.pid} on {re.escape(socket.gethostname())}, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d\. "
        r"Wait until it ends, or stop it\. A new run needs a new folder\.\n",
        ran.stderr,
    )


def test_one_training_at_a_time(run: Run, tiny_bert: Path) -> None:
    process = training(tiny_bert)
    process.send_signal(signal.SIGSTOP)  # so that it does not end before all is tried
    try:
        refused(run, process, tiny_bert)
        refused(run, process, tiny_bert, "--resume")
        assert run("plot", "run", "-o", "run.png").status == 0  # readers are not kept out
        assert run("pack", "run", "-o", "x.msk").stderr.startswith("Error: run: the run is not finished")
    finally:
        process.kill()
        process.communicate()
    assert Path("run/.lock").exists()  # of one that was killed: it keeps nobody out
    assert run(*options(tiny_bert)).err.startswith("Error: run: holds a run already.")
    again = training(tiny_bert, "run", "--resume")
    again.send_signal(signal.SIGSTOP)
    try:
        refused(run, again, tiny_bert, "--resume")
        refused(run, again, tiny_bert)
        again.send_signal(signal.SIGCONT)
        again.send_signal(signal.SIGTERM)
        again.communicate(timeout=60)
    finally:
        again.kill()
    assert checkpoints.fault(checkpoints.found(Path("run/checkpoints"))[0]) is None
    assert not Path("run/.lock").exists()


PREPARES = """
import sys, time
from pathlib import Path
from maskhub.training.lock import held
with held(Path("deep/run")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kill", [False, True])
def test_also_before_there_is_anything_in_the_folder(run: Run, tiny_bert: Path, kill: bool) -> None:
    Path("train.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    process = subprocess.Popen([sys.executable, "-c", PREPARES], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    ran = run("train", tiny_bert, "--train-file", "train.jsonl", "-o", "deep/run")
    assert ran.err.startswith(f"Error: deep/run: another training is at work there: process {process.pid} on ")
    if kill:
        process.kill()
    process.communicate("", timeout=60)
    assert os.path.exists("deep") == kill  # where nothing came of it, nothing is left
    ran = run("train", tiny_bert, "--train-file", "train.jsonl", "-o", "deep/run", "--layers", "99",
              "--max-length", "32")  # fmt: skip
    assert "there is no layer 99" in ran.err
    assert not Path("deep/run/.lock").exists()
