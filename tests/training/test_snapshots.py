"""A cyclic schedule, with a mask at the end of each cycle, for ensembles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import maskhub
from maskhub.container.reader import MaskFile, open_mask
from maskhub.errors import ArgumentError, TrainingError
from maskhub.training.masking import masks_of
from maskhub.training.recording import read_recording
from maskhub.training.snapshots import cycle_ends
from maskhub.training.train import learn, ready
from maskhub.training.trainer import load_weights
from tests import toy

CYCLES: dict[str, Any] = {"schedule": "cosine", "snapshots": 2}


def test_the_rate_goes_round_and_no_patience_ends_it(bert: Path, task: Path, tmp_path: Path) -> None:
    run = learn(toy.settings(bert, task, **CYCLES, eval_steps=1, patience=1), tmp_path / "run").folder
    cycle = [1e-2 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(5)]
    assert read_recording(run).train["learning_rate"] == pytest.approx(np.array(cycle * 2), abs=1e-9)


def test_each_cycle_ends_in_a_mask(bert: Path, task: Path, tmp_path: Path) -> None:
    said: list[str] = []
    asked = toy.settings(bert, task, **CYCLES, eval_steps=5, keep_checkpoints=True)
    run = learn(asked, tmp_path / "run", say=said.append).folder
    masks = sorted(run.glob("snapshot-*.msk"))
    assert [mask.name for mask in masks] == ["snapshot-1.msk", "snapshot-2.msk"]
    assert [line for line in said if line.startswith("Snapshot")] == [f"Snapshot: {mask}" for mask in masks]
    model = ready(asked).model
    for mask, step in zip(masks, (5, 10), strict=True):
        MaskFile(mask).verify()
        load_weights(model, frozenset(), run / f"checkpoints/checkpoint-{step}")
        found, snapshot = masks_of(model), open_mask(mask)
        assert {snapshot.base.parameter(name): one for name, one in snapshot.masks.items()} == {
            name: found[name] for name in found if name != "classifier.weight"
        }
    (together,) = maskhub.evaluate(bert, masks, file=task / "eval.jsonl", ensemble="logits")
    assert len(together.masks) == 2
    assert 0 <= together.metrics["accuracy"] <= 1


def test_a_resumed_run_packs_the_same(bert: Path, task: Path, tmp_path: Path) -> None:
    asked = toy.settings(bert, task, **CYCLES, warmup=0.2)
    learn(asked, tmp_path / "whole")
    with pytest.raises(TrainingError, match="interrupted after step 7 of 10"):
        learn(asked, tmp_path / "broken", report=toy.interrupt_after(7))
    assert (tmp_path / "broken/snapshot-1.msk").is_file()
    learn(asked, tmp_path / "broken", resume=True)
    for name in ("snapshot-1.msk", "snapshot-2.msk", "mask.msk"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


@pytest.mark.parametrize(
    ("steps", "warmup", "count", "ends"),
    [(10, 0, 2, [5, 10]), (10, 2, 2, [6, 10]), (11, 1, 3, [5, 8, 11]), (3, 0, 3, [1, 2, 3])],
)
def test_cycles_are_equal(steps: int, warmup: int, count: int, ends: list[int]) -> None:
    assert cycle_ends(steps, warmup, count) == ends


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"schedule": "linear"}, "snapshots needs the schedule cosine", "Give schedule=cosine."),
        ({"keep_flips": 0.5}, "snapshots: a selection ends in one mask", "Leave one of the two out."),
        ({"snapshots": 0}, "snapshots: 0 is not at least 1", None),
        ({"snapshots": 11}, "snapshots: 11 cycles need as many steps, and there are 10 after the warm-up",
         "Ask for fewer, or train for more epochs."),
    ],
)  # fmt: skip
def test_snapshots_that_cannot_be(
    bert: Path, task: Path, tmp_path: Path, given: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(ArgumentError) as caught:
        learn(toy.settings(bert, task, **CYCLES | given), tmp_path / "run")
    assert (caught.value.message, caught.value.hint) == (f"training settings: {message}", hint)
    assert not (tmp_path / "run").exists()
