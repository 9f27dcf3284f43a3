"""Recordings of runs: written row by row, read while they grow, after a kill, and carried on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskhub.errors import MissingError, TrainingError
from maskhub.training.recording import RECORDING, Recorder, Recording, read_recording
from tests.waiting import until

pytest.importorskip("h5py")

WRITER = """
import sys
from pathlib import Path
from maskhub.training.recording import Recorder
recorder = Recorder(Path(sys.argv[1]), {"a": 10, "b": 20}, ["accuracy"])
for step in range(1, 1_000_000):
    recorder.train(step, {"loss": 1 / step, "learning_rate": 0.1})
    if step % 5 == 0:
        recorder.mask(step, [0.5, 0.25], [step, 2 * step], [step, 5], [0.5, 1.0])
        recorder.eval(step, {"accuracy": 0.5, "not recorded": 1.0})
"""


def grown(run: Path, rows: int) -> Recording:
    """The recording, once it has so many rows."""
    until((run / RECORDING).is_file)
    until(lambda: len(read_recording(run).train_steps) >= rows)
    return read_recording(run)


def check_rows(recording: Recording) -> None:
    """Every row whole, none missing."""
    steps = np.arange(1, len(recording.train_steps) + 1)
    assert (recording.train_steps == steps).all()
    assert (recording.train["loss"] == 1 / steps).all()
    assert np.isnan(recording.train["grad_norm"]).all()
    assert (recording.mask_steps == 5 * np.arange(1, len(recording.mask_steps) + 1)).all()
    assert (recording.flips == np.stack([recording.mask_steps, 2 * recording.mask_steps], axis=1)).all()
    assert (recording.flips_since == np.stack([recording.mask_steps, np.full_like(recording.mask_steps, 5)], 1)).all()
    assert (recording.density == [0.5, 0.25]).all()
    assert (recording.iou == [0.5, 1.0]).all()
    assert list(recording.eval) == ["accuracy"]
    assert (recording.eval["accuracy"] == 0.5).all()


def test_read_while_written_after_a_kill_and_carried_on(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    try:
        first = grown(tmp_path, 20)
        later = grown(tmp_path, len(first.train_steps) + 20)
        for recording in (first, later):
            check_rows(recording)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    left = read_recording(tmp_path)
    check_rows(left)
    assert left.tensors == ("a", "b")
    assert left.weights.tolist() == [10, 20]

    recorder = Recorder(tmp_path, {"a": 10, "b": 20}, ["accuracy"], read_recording(tmp_path, 12))
    recorder.train(13, {"loss": 7.0})
    recorder.close()
    again = read_recording(tmp_path)
    assert again.train_steps.tolist() == list(range(1, 14))
    assert again.train["loss"][-1] == 7.0
    assert again.mask_steps.tolist() == [5, 10]
    assert again.eval_steps.tolist() == [5, 10]
    assert [path.name for path in tmp_path.iterdir()] == [RECORDING]


def test_empty(tmp_path: Path) -> None:
    Recorder(tmp_path, {}, []).close()
    recording = read_recording(tmp_path)
    assert len(recording.train_steps) == 0
    assert recording.eval == {}
    assert recording.flips.shape == (0, 0)


@pytest.mark.parametrize("content", [None, b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_no_recording(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / RECORDING).write_bytes(content)
    with pytest.raises(MissingError if content is None else TrainingError, match=r"run\.h5"):
        read_recording(tmp_path)
