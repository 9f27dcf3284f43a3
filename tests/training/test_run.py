from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from maskhub.errors import BaseMismatchError, FormatError, MissingError, TrainingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask
from maskhub.masks.scores import Initial
from maskhub.storage.tensor import RawTensor
from maskhub.training.run import (
    MASK,
    RunRecord,
    finished,
    maskset_from_run,
    read_record,
    write_record,
)
from maskhub.training.settings import settings_from
from tests import tiny

SETTINGS = settings_from(base="/home/someone/base", train_file="/home/someone/secret.csv", threshold=0.5)
INITIAL = Initial(0, 3277, -0.02, 0.58)
HEAD = np.array([[1.0, -2.0], [np.nan, -0.0]], np.float32)


@pytest.fixture
def scores(base: Checkpoint) -> dict[str, RawTensor]:
    rng = np.random.default_rng(0)
    shapes = {f"bert.{name}": base.info(name).shape for name in tiny.MASKED}
    tensors = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    return {name: RawTensor.from_numpy(tensor) for name, tensor in tensors.items()}


@pytest.fixture
def run(base: Checkpoint, scores: dict[str, RawTensor], tmp_path: Path) -> Path:
    """A finished run on the tiny base, written without torch."""
    names = {name: f"bert.{name}" for name in base}
    binding = BaseBinding.of("some/base", {name: base.digest(name) for name in base}, names, None)
    record = RunRecord(SETTINGS, binding, tiny.TASK, INITIAL, {"train": "secret.csv"})
    write_record(tmp_path, record)
    of_head = {"classifier.weight": RawTensor.from_numpy(np.array([[0.5, 0.6], [0.1, 0.9]], np.float32))}
    head = {"classifier.weight": RawTensor.from_numpy(HEAD), "classifier.bias": RawTensor.from_numpy(HEAD[0])}
    masks = {name: Mask.from_bool(score.numpy() > np.float32(0.5)) for name, score in (scores | of_head).items()}
    save(finished(record, masks, head, {"accuracy": 0.5}), tmp_path / MASK)
    return tmp_path


def test_the_record_is_read_as_written(run: Path) -> None:
    record = read_record(run)
    assert record.settings == SETTINGS
    assert record.task == tiny.TASK
    assert record.initial == INITIAL
    assert (run / "run.json").read_text().endswith("}\n")


def test_the_masks_of_a_run(run: Path, base: Checkpoint, scores: dict[str, RawTensor]) -> None:
    mask = maskset_from_run(run, base)
    assert set(mask.masks) == set(tiny.MASKED)
    for name in tiny.MASKED:
        assert np.array_equal(mask[name].to_bool(), scores[f"bert.{name}"].numpy() > np.float32(0.5))
    masked = mask.dense["classifier.weight"].numpy()
    assert masked.view(np.uint32).tolist() == np.array([[0.0, -2.0], [0.0, -0.0]], np.float32).view(np.uint32).tolist()
    assert mask.dense["classifier.bias"].numpy().tolist() == [1.0, -2.0]
    assert mask.metrics == {"accuracy": 0.5}


def test_paths_of_the_trainers_machine_stay_out_of_the_mask(run: Path) -> None:
    mask = maskset_from_run(run)
    assert "/home/" not in json.dumps(mask.lineage)
    assert mask.lineage["settings"]["threshold"] == 0.5
    assert mask.initial == INITIAL
    assert mask.lineage["data"] == {"train": "secret.csv"}
    assert mask.base.name == "some/base"


def test_another_base(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from maskhub.checkpoints.checkpoint import open_checkpoint

    other = open_checkpoint(tiny.write_base(tmp_path_factory.mktemp("other"), seed=1))
    with pytest.raises(BaseMismatchError, match=r"This mask belongs|not the base this mask was made for"):
        maskset_from_run(run, other)


def test_folders_that_are_no_finished_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (run / "mask.msk").write_bytes(b"half")
    with pytest.raises(FormatError, match=r"mask\.msk: "):
        maskset_from_run(run)
    (run / "mask.msk").unlink()
    with pytest.raises(TrainingError) as caught:
        maskset_from_run(run)
    assert caught.value.message == f"{run}: the run is not finished: it has no mask.msk"
    assert caught.value.hint == "Go on with: maskhub train ... --resume."
    (run / "run.json").write_text('{"settings": {}}')
    with pytest.raises(FormatError) as error:
        maskset_from_run(run)
    assert str(error.value) == f"{run / 'run.json'}: Object missing required field `base` - at `$.settings`"
    (run / "run.json").write_text("{")
    with pytest.raises(FormatError, match=r"run\.json: Input data was truncated$"):
        read_record(run)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(MissingError, match=r": no run folder: it has no run\.json\. Name"):
        maskset_from_run(empty)


def test_a_run_is_read_without_torch(run: Path) -> None:
    code = (
        "import sys; from maskhub.training.run import maskset_from_run\n"
        f"print(maskset_from_run({str(run)!r}).id, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [maskset_from_run(run).id, "False", "False"]
