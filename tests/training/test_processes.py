"""Training that is killed, that several processes share, that runs out of disk, that goes wrong: by the command."""

from __future__ import annotations

import functools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from maskhub.container.reader import MaskFile, open_mask
from maskhub.training import checkpoints
from maskhub.training.loop import TrainResult
from maskhub.training.recording import RECORDING, read_recording
from maskhub.training.run import MASK
from maskhub.training.settings import TrainSettings
from maskhub.training.train import learn
from tests import tiny, toy
from tests.waiting import until

pytestmark = pytest.mark.slow

CLI = [sys.executable, "-m", "maskhub_cli", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """24 steps; without dropout, whose draws several processes would not share."""
    folder = tmp_path_factory.mktemp("settings")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base = tiny.tiny_model("bert", folder / "base", initializer_range=0.1, **still)
    toy.write_task(folder / "task", count=64)
    given = {"batch_size": 8, "epochs": 3.0, "eval_steps": 5, "learning_rate": 1e-2, "classifier": "dense"}
    return toy.settings(base, folder / "task", **given)


@pytest.fixture(scope="module")
def unbroken(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return learn(settings, tmp_path_factory.mktemp("unbroken") / "run")


def command(settings: TrainSettings, run: Path, *more: str) -> list[str]:
    return [*CLI, *toy.options(settings), "-o", str(run), *more]


def finished(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=300, **options)  # type: ignore[call-overload,no-any-return]


def test_killed_again_and_again_it_ends_with_the_same_mask(
    settings: TrainSettings, unbroken: TrainResult, tmp_path: Path
) -> None:
    """SIGKILL at moments after the first checkpoint, half of them while the next one is written."""
    run = tmp_path / "run"
    rng = random.Random(0)
    for kill in range(4):
        resume = ["--resume"] if (run / "run.json").exists() else []
        process = subprocess.Popen(command(settings, run, *resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        saved = functools.partial(_saved, run, {p.name for p in run.glob("checkpoints/*")}, process)
        until(saved)
        time.sleep(rng.random() * 0.2 if kill % 2 else 0)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        if process.returncode == 0:
            break
    assert kill > 0
    if not (run / MASK).exists():
        done = finished(command(settings, run, "--resume"))
        assert done.returncode == 0, done.stderr
    assert (run / MASK).read_bytes() == unbroken.mask.read_bytes()
    recording, whole = read_recording(run), read_recording(unbroken.folder)
    for field in ("train_steps", "eval_steps", "mask_steps", "density", "flips"):
        assert getattr(recording, field).tolist() == getattr(whole, field).tolist()


def _saved(run: Path, known: set[str], process: subprocess.Popen[bytes]) -> bool:
    """Whether there are other checkpoints than those, or all is over."""
    return process.poll() is not None or not {p.name for p in run.glob("checkpoints/*")} <= known


def test_the_recording_of_a_run(unbroken: TrainResult) -> None:
    recording = read_recording(unbroken.folder)
    assert recording.mask_steps.tolist() == [0, 5, 10, 15, 20, 24]
    assert recording.eval_steps.tolist() == [5, 10, 15, 20, 24]
    assert set(recording.eval) >= {"accuracy", "f1", "loss"}
    assert recording.flips[0].tolist() == [0] * len(recording.tensors)
    assert recording.flips[-1].sum() > 0
    assert recording.train["loss"][-1] < recording.train["loss"][0]
    masks = MaskFile(unbroken.mask).maskset().masks
    assert len(recording.tensors) == len(masks)
    assert sorted(recording.weights.tolist()) == sorted(mask.size for mask in masks.values())


def same_masks(run: Path, other: TrainResult) -> bool:
    """The dense classifier's last bits follow the order in which gradients are summed; masks do not."""
    return open_mask(run / MASK).masks == open_mask(other.mask).masks


def test_two_processes_learn_the_mask_of_one(settings: TrainSettings, unbroken: TrainResult, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = finished([*TORCHRUN, *command(settings, run)[1:]])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mask.msk") == 1
    assert same_masks(run, unbroken)
    together, alone = read_recording(run), read_recording(unbroken.folder)
    assert together.train["loss"].tolist() == pytest.approx(alone.train["loss"].tolist(), rel=1e-3)
    assert together.eval["loss"].tolist() == pytest.approx(alone.eval["loss"].tolist(), rel=1e-3)


def test_two_processes_select_the_flips_of_one_and_are_resumed(settings: TrainSettings, tmp_path: Path) -> None:
    """Scores are left out of DDP's buckets, so that they can become fewer."""
    settings = msgspec.structs.replace(settings, keep_flips=0.5, keep_checkpoints=True)
    alone = learn(settings, tmp_path / "alone")
    run = tmp_path / "run"
    done = finished([*TORCHRUN, *command(settings, run)[1:]])
    assert done.returncode == 0, done.stderr
    assert same_masks(run, alone)
    for name in (MASK, "checkpoints/checkpoint-20", "checkpoints/checkpoint-24"):  # as killed after the selections
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = finished([*TORCHRUN, *command(settings, run)[1:], "--resume"])
    assert done.returncode == 0, done.stderr
    assert same_masks(run, alone)


def test_accelerate_launch(settings: TrainSettings, unbroken: TrainResult, tmp_path: Path) -> None:
    """One process: without MPI, accelerate starts no more on a CPU."""
    done = finished([*ACCELERATE, *command(settings, tmp_path / "run")[1:]])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / MASK).read_bytes() == unbroken.mask.read_bytes()


def test_two_processes_are_resumed(settings: TrainSettings, unbroken: TrainResult, tmp_path: Path) -> None:
    module = command(settings, tmp_path / "run")[1:]
    process = subprocess.Popen(
        [*TORCHRUN, *module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: (tmp_path / "run/checkpoints/checkpoint-10/digests.json").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for worker in _workers(tmp_path / "run"):
        os.kill(worker, signal.SIGKILL)
    assert not (tmp_path / "run" / MASK).exists()
    done = finished([*TORCHRUN, *module, "--resume"])
    assert done.returncode == 0, done.stderr
    assert same_masks(tmp_path / "run", unbroken)


def _workers(run: Path) -> list[int]:
    """Processes that still train ``run``: torchrun starts them in sessions of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(run).encode() in line and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def test_a_batch_that_cannot_be_shared(settings: TrainSettings, tmp_path: Path) -> None:
    odd = msgspec.structs.replace(settings, batch_size=7)
    done = finished([*TORCHRUN, *command(odd, tmp_path / "run")[1:]])
    assert done.returncode == 1  # torchrun's own
    message = "Error: training settings: batch_size: 7 examples cannot be shared by 2 processes."
    assert f"{message} Name a multiple of their number." in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run(settings: TrainSettings, tmp_path: Path) -> None:
    """A dense classifier at such a rate overflows after some steps."""
    wild = msgspec.structs.replace(settings, dense_learning_rate=1e37, eval_steps=1, patience=99)
    done = finished(command(wild, tmp_path / "run"))
    assert done.returncode == 1
    line = (
        r"Error: .*run: the loss or its gradient is not a number any more at step \d+ of 24\. Start a new run with a "
    )
    assert re.fullmatch(
        line + r"lower --learning-rate\. The last good state is the newest of its checkpoints\.",
        done.stderr.strip().splitlines()[-1],
    )
    assert not (tmp_path / "run" / MASK).exists()
    assert list((tmp_path / "run/checkpoints").glob("checkpoint-*/scores.safetensors"))


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from maskhub_cli.main import main
sys.argv[0] = "maskhub"
main()
"""


def test_a_disk_that_fills_up(settings: TrainSettings, unbroken: TrainResult, tmp_path: Path) -> None:
    """No file may be larger than that, and the optimiser's state is."""
    run = tmp_path / "run"
    done = finished([sys.executable, "-c", LIMITED, *command(settings, run)[3:]])
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith(f"Error: {run / 'checkpoints'}: the checkpoint of step 5 cannot be written: ")
    assert error.endswith("Make room; the same command with --resume goes on from the one before.")
    done = finished(command(settings, run, "--resume"))
    assert done.returncode == 0, done.stderr
    assert (run / MASK).read_bytes() == unbroken.mask.read_bytes()


def test_gradient_checkpointing_changes_nothing(settings: TrainSettings, unbroken: TrainResult, tmp_path: Path) -> None:
    saving = learn(msgspec.structs.replace(settings, gradient_checkpointing=True), tmp_path / "run")
    assert saving.manifest.id == unbroken.manifest.id


def test_a_recording_that_is_lost_keeps_no_run_from_going_on(
    settings: TrainSettings, unbroken: TrainResult, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int, steps: int, numbers: object) -> None:
        if step == 12:
            raise Killed

    with pytest.raises(Killed):
        learn(settings, tmp_path / "run", report=kill)
    (tmp_path / "run" / RECORDING).write_bytes(b"torn")
    again = learn(settings, tmp_path / "run", resume=True)
    assert again.manifest.id == unbroken.manifest.id
    assert read_recording(again.folder).mask_steps.tolist() == [15, 20, 24]


def test_texts_weigh_by_their_tokens_in_several_processes(tmp_path: Path) -> None:
    """The last block of 2 tokens, 1 of which is predicted, beside whole ones of 16 and 15."""
    base = tiny.tiny_model("gpt2", tmp_path / "base", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "' + "a" * 16 * 3 + "bcdefghijklmnopq" * 4 + 'z"}\n')  # and the token that ends it
    given = {"task": "text-generation", "train_file": str(texts), "eval_file": None, "batch_size": 2, "max_length": 16}
    settings = toy.settings(base, tmp_path, epochs=1.0, eval_steps=1, learning_rate=1e-30, **given)
    learn(settings, tmp_path / "alone")
    done = finished([*TORCHRUN, *command(settings, tmp_path / "together")[1:]])
    assert done.returncode == 0, done.stderr
    together, alone = (read_recording(tmp_path / name).train["loss"] for name in ("together", "alone"))
    assert together.tolist() == pytest.approx(alone.tolist(), rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_several_processes_that_are_told_to_stop_save_their_state(
    settings: TrainSettings, tmp_path: Path, number: int
) -> None:
    """By torchrun, which passes the signal on to each, at slightly different times."""
    run = tmp_path / "run"
    long = msgspec.structs.replace(settings, epochs=50.0)
    module = command(long, run)[1:]
    process = subprocess.Popen([*TORCHRUN, *module], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: (run / "checkpoints/checkpoint-5/digests.json").exists(), process)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Nothing is lost: the same command with --resume goes on." in said
    newest = checkpoints.found(run / "checkpoints")[0]
    assert f"interrupted after step {checkpoints.step(newest)} of 400" in said
    assert checkpoints.fault(newest) is None
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in newest.iterdir()}
