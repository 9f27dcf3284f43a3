"""Signals end every command alike: nothing is left half done, and one line says what happened."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub.storage.tensor import RawTensor
from maskhub.training import checkpoints
from tests import tiny, toy
from tests.waiting import until

ENDS = {
    signal.SIGINT: (130, "Interrupted.\n"),
    signal.SIGTERM: (143, "Terminated.\n"),
    signal.SIGHUP: (129, "Hung up.\n"),
}


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "maskhub_cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that accepts, and says nothing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        yield server


COMMANDS: dict[str, tuple[object, ...]] = {
    "verify": ("verify", "{url}"),
    "pack": ("pack", "{url}", "-o", "packed.msk"),
    "evaluate": ("evaluate", "{base}", "{url}", "--file", "eval.jsonl"),
    "apply": ("apply", "{base}", "{url}", "-o", "built"),
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name in COMMANDS for n in ENDS if name != "evaluate" or n == signal.SIGTERM]
)
def test_while_it_waits_for_a_server(silent: socket.socket, base_folder: Path, name: str, number: int) -> None:
    toy.write_task(Path())
    before = sorted(os.listdir())
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/task.msk"
    process = start(*(str(word).format(url=url, base=base_folder) for word in COMMANDS[name]))
    with silent.accept()[0]:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == ENDS[signal.Signals(number)]
    assert out == ""
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("number", ENDS)
def test_nothing_is_left_half_built(number: int) -> None:
    shape = (1024, 4096)
    tensors = {f"encoder.layer.{i}.output.dense.weight": RawTensor.from_numpy(np.ones(shape, "f4")) for i in range(4)}
    tiny.write_checkpoint(Path("base"), tensors)
    tiny.tiny_maskset(Path("base")).save("task.msk")
    process = start("apply", "base", "task.msk", "-o", "built", "--no-verify")
    until(lambda: len(os.listdir()) > 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode, err) == ("", *ENDS[signal.Signals(number)])
    assert sorted(os.listdir()) == ["base", "task.msk"]


def test_what_is_ignored_at_the_start_stays_so(silent: socket.socket) -> None:
    """As under nohup, and of Ctrl-C in a script's background."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    url = f"http://127.0.0.1:{silent.getsockname()[1]}/task.msk"
    process = start("verify", url, preexec_fn=ignore)
    with silent.accept()[0]:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == ENDS[signal.SIGTERM]


def test_ctrl_c_while_the_program_is_still_imported() -> None:
    """At twelve moments of its first steps. Python's own start has tracebacks, before main is called."""
    for moment in np.linspace(0.03, 0.4, 12):
        process = start("--help")
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert err in ("", "Interrupted.\n") or not re.search(r'main\.py", line \d+, in main\n', err)  # as site's
        assert process.returncode in (0, 130, -signal.SIGINT) or "Traceback" in err


LONG = {"batch_size": 8, "epochs": 60, "eval_steps": 3, "classifier": "dense", "max_length": 32}


def training(base: Path, run: str = "run", *more: str, **options: Any) -> subprocess.Popen[str]:
    """A program that trains 300 steps, when it has written two checkpoints."""
    toy.write_task(Path())
    given = (text for name, value in LONG.items() for text in ("--" + name.replace("_", "-"), str(value)))
    command = ("train", base, "--train-file", "train.jsonl", *given, "-o", run, *more)
    process = start(*command, **options)
    until(lambda: f'"pid": {process.pid},' in _text(Path(run, ".lock")), process)
    until(lambda: len(list(Path(run).glob("checkpoints/*/digests.json"))) > 1, process)
    return process


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_saves_its_state(tiny_bert: Path, number: signal.Signals) -> None:
    process = training(tiny_bert)
    process.send_signal(number)
    if number == signal.SIGHUP:
        process.send_signal(number)  # the second one is the system's
    _, err = process.communicate(timeout=60)
    assert process.returncode == ENDS[number][0]
    line = err.splitlines()[-1]
    step = int(line.split("after step ")[1].split()[0])
    assert line == (
        f"Error: run: interrupted after step {step} of 300. Nothing is lost: the same command with --resume goes on."
    )
    newest = checkpoints.found(Path("run/checkpoints"))[0]
    assert (newest.name, checkpoints.fault(newest)) == (f"checkpoint-{step}", None)
    assert not Path("run/.lock").exists()


def test_a_training_whose_terminal_is_gone_saves_its_state(tiny_bert: Path) -> None:
    """Nobody hears its lines any more, and that is no reason to fail."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "maskhub_cli", "train", tiny_bert, "--train-file", "train.jsonl", "-o", "run"]
    given = [text for name, value in LONG.items() for text in ("--" + name.replace("_", "-"), str(value))]
    toy.write_task(Path())
    process = subprocess.Popen(
        ["setsid", "-c", "-w", *command, *given], stdin=theirs, stdout=theirs, stderr=theirs, text=True
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = b""
    deadline = time.monotonic() + 120
    while len(list(Path("run").glob("checkpoints/*/digests.json"))) < 2:
        assert process.poll() is None, seen
        assert time.monotonic() < deadline
        try:
            seen += os.read(ours, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(ours)
    assert process.wait(timeout=60) == 129
    newest = checkpoints.found(Path("run/checkpoints"))[0]
    assert checkpoints.fault(newest) is None
    assert not Path("run/.lock").exists()


def test_a_second_signal_ends_a_training_at_once(tiny_bert: Path) -> None:
    process = training(tiny_bert)
    process.send_signal(signal.SIGSTOP)  # so that both come before the step's end
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    assert err.splitlines()[-1] in ("Interrupted.", "Terminated.")
