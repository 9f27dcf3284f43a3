"""Checkpoints that lost something on the disk are named, and the one before is taken."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from maskhub.errors import TrainingError
from maskhub.training import checkpoints
from maskhub.training.loop import TrainResult
from maskhub.training.settings import TrainSettings
from maskhub.training.train import learn
from tests import toy
from tests.cli import durable

HINT = "Remove {}, and --resume begins at the first step."


class Killed(BaseException):
    """Ends a run where it is: nothing more is written."""


@pytest.fixture(scope="module")
def settings(bert: Path, task: Path) -> TrainSettings:
    """15 steps; the first evaluation, after two, stays the best for a while."""
    given = {"epochs": 3.0, "eval_steps": 2, "classifier": "dense", "learning_rate": 3e-2, "keep_checkpoints": True}
    return toy.settings(bert, task, **given)


@pytest.fixture(scope="module")
def unbroken(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return learn(settings, tmp_path_factory.mktemp("unbroken") / "run")


@pytest.fixture(scope="module")
def killed(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after 9 steps, with checkpoints of 6 and 8, and of the best that these go with."""
    run = tmp_path_factory.mktemp("killed") / "run"

    def kill(done: int, total: int, numbers: object) -> None:
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        learn(settings, run, report=kill)
    return run


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def flip(path: Path) -> None:
    """Another byte in the middle, of the same size and time as before."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def other_state(folder: Path) -> None:
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | {"best_metric": 1.0}))


def emptied(folder: Path) -> None:
    os.truncate(folder / "optimizer.pt", 0)


def replaced_by_a_pipe(folder: Path) -> None:
    (folder / "optimizer.pt").unlink()
    os.mkfifo(folder / "optimizer.pt")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no optimizer": (lambda f: (f / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "an empty optimizer": (emptied, "optimizer.pt is not as it was written: 0 bytes of "),
    "a pipe for an optimizer": (replaced_by_a_pipe, "optimizer.pt is missing"),
    "zeros for an optimizer": (
        lambda f: (f / "optimizer.pt").write_bytes(bytes((f / "optimizer.pt").stat().st_size)),
        "optimizer.pt is not as it was written",
    ),
    "a flipped score": (lambda f: flip(f / "scores.safetensors"), "scores.safetensors is not as it was written"),
    "a flipped head": (lambda f: flip(f / "head.safetensors"), "head.safetensors is not as it was written"),
    "another state": (other_state, "trainer_state.json is not as it was written: "),
    "no schedule": (lambda f: (f / "scheduler.pt").unlink(), "scheduler.pt is missing"),
    "a scaler from elsewhere": (
        lambda f: torch.save({"scale": 1.0}, f / "scaler.pt"),
        "scaler.pt was not there when it was written",
    ),
    "another process's chance": (
        lambda f: shutil.copy(f / "rng_state.pth", f / "rng_state_1.pth"),
        "rng_state_1.pth was not there when it was written",
    ),
    "a file in a folder": (
        lambda f: ((f / "optimizer_0").mkdir(), (f / "optimizer_0" / "x").touch()),
        "optimizer_0/x was not there when it was written",
    ),
    "no list": (lambda f: (f / "digests.json").unlink(), "it has no digests.json, which is written last"),
    "half a list": (lambda f: os.truncate(f / "digests.json", 99), "digests.json is damaged"),
    "a list of numbers": (lambda f: (f / "digests.json").write_text("[1]"), "digests.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(run: Path, damage: str) -> None:
    folder, (harm, message) = run / "checkpoints", DAMAGE[damage]
    harm(folder / "checkpoint-8")
    with pytest.warns(UserWarning, match="is not used") as warned:
        assert checkpoints.whole(folder) == folder / "checkpoint-6"
    (line,) = (str(one.message) for one in warned)
    assert line.startswith(f"{folder / 'checkpoint-8'}: this checkpoint is not used: {message}")
    assert not (folder / "checkpoint-8").exists()  # else its files would lie between those of the next one


@pytest.mark.parametrize("damage", ["an empty optimizer", "a flipped score", "a scaler from elsewhere"])
def test_such_a_run_ends_with_the_mask_of_an_unbroken_one(
    run: Path, settings: TrainSettings, unbroken: TrainResult, damage: str
) -> None:
    DAMAGE[damage][0](run / "checkpoints/checkpoint-8")
    seen: list[int] = []
    with pytest.warns(UserWarning, match="checkpoint-8: this checkpoint is not used"):
        result = learn(settings, run, resume=True, report=lambda done, total, numbers: seen.append(done))
    assert seen[0] == 7
    assert result.manifest.id == unbroken.manifest.id
    assert result.metrics == unbroken.metrics


def test_whole_ones_are_taken_without_a_word_and_wherever_the_run_lies(
    run: Path, settings: TrainSettings, unbroken: TrainResult
) -> None:
    moved = run.rename(run.with_name("moved"))
    (moved / "checkpoints/checkpoint-8/.DS_Store").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert checkpoints.whole(moved / "checkpoints") == moved / "checkpoints/checkpoint-8"
    assert learn(settings, moved, resume=True).manifest.id == unbroken.manifest.id


def test_where_all_are_damaged_an_error_says_so_and_nothing_is_removed(run: Path, settings: TrainSettings) -> None:
    folder = run / "checkpoints"
    before = sorted(p.name for p in folder.iterdir())
    for path in folder.glob("checkpoint-*"):
        emptied(path)
    with pytest.warns(UserWarning, match="is not used"), pytest.raises(TrainingError) as caught:
        learn(settings, run, resume=True)
    assert str(caught.value) == f"{run}: no checkpoint of the run is whole. {HINT.format(folder)}"
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_checkpoint_is_of_no_use_without_the_best_that_it_goes_with(run: Path) -> None:
    """Else the run would go on for hours, and fail at its end."""
    folder = run / "checkpoints"
    state = json.loads((folder / "checkpoint-8/trainer_state.json").read_text())
    (folder / "checkpoint-8/trainer_state.json").write_text(json.dumps(state | {"best_global_step": 5}))
    checkpoints.seal(folder / "checkpoint-8")
    with pytest.warns(UserWarning, match="it goes with checkpoint-5, the best until then: it is missing"):
        assert checkpoints.whole(folder) == folder / "checkpoint-6"


def test_a_best_one_that_is_damaged_meanwhile_ends_the_run(settings: TrainSettings, tmp_path: Path) -> None:
    best = tmp_path / "run/checkpoints/checkpoint-2"  # where nothing is learned, the first one stays it
    harmed: list[int] = []

    def harm(done: int, total: int, numbers: object) -> None:
        if done == 5 and not harmed:
            harmed.append(done)
            flip(best / "scores.safetensors")

    still = msgspec.structs.replace(settings, learning_rate=1e-30)
    with pytest.raises(TrainingError) as caught:
        learn(still, tmp_path / "run", report=harm)
    assert str(caught.value) == (
        f"{best}: this checkpoint cannot be used: scores.safetensors is not as it was written. Start a new run."
    )


def test_only_a_first_one_that_was_never_finished_begins_anew(run: Path) -> None:
    folder = run / "checkpoints"
    for path in folder.glob("checkpoint-*"):
        (path / "digests.json").unlink()
    with (
        pytest.warns(UserWarning, match="is not used"),
        pytest.raises(TrainingError, match="no checkpoint of the run is whole"),
    ):
        checkpoints.whole(folder)
    for path in checkpoints.found(folder)[1:]:
        shutil.rmtree(path)
    with pytest.warns(UserWarning, match="is not used"):
        assert checkpoints.whole(folder) is None
    assert checkpoints.found(folder) == []
    assert checkpoints.whole(run / "nothing") is None


def test_those_that_others_go_with_are_not_deleted(tmp_path: Path) -> None:
    bests = {2: 2, 4: 2, 6: 2, 8: 8, 10: 8, 12: 8}
    for step, best in bests.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps({"best_global_step": best}))
        checkpoints.rotate(tmp_path)
        kept = sorted(checkpoints.step(path) for path in checkpoints.found(tmp_path))
        newest = [s for s in (step - 2, step) if s in bests]
        assert kept == sorted({*newest, *(bests[s] for s in newest)})


def test_a_checkpoint_is_on_the_disk_before_an_older_one_is_deleted(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the mask before all of them are: by what was synced, as it was then."""
    run, synced, deleted = tmp_path / "run", dict[tuple[Any, ...], list[Any]](), list[int]()
    sync, remove = os.fsync, shutil.rmtree

    def watched_sync(handle: int) -> None:
        sync(handle)
        one = durable.seen(handle)
        synced[tuple(one[:2])] = one

    def watched_remove(path: Path, *given: Any, **options: Any) -> None:
        if not Path(path).is_relative_to(run):
            return remove(path, *given, **options)
        newest = checkpoints.found(run / "checkpoints")[0]
        there = [*durable.tree(newest), *(durable.tree(run / "mask.msk") if (run / "mask.msk").exists() else ())]
        if not deleted or newest.name != path.name:
            assert [one for one in there if synced.get(tuple(one[:2])) != one] == []
        (folder,) = (synced[tuple(one[:2])] for one in durable.tree(run / "checkpoints")[:1])
        assert newest.name in folder[2]
        assert "checkpoints" in synced[tuple(durable.tree(run)[0][:2])][2]
        deleted.append(checkpoints.step(path))
        return remove(path, *given, **options)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(shutil, "rmtree", watched_remove)
    learn(msgspec.structs.replace(settings, keep_checkpoints=False), run)
    assert sorted(deleted) == [2, 4, 6, 8, 10, 12, 14, 15]
    assert "mask.msk" in synced[tuple(durable.tree(run)[0][:2])][2]
    assert not (run / "checkpoints").exists()
