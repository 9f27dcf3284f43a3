"""What a run records of itself while it goes on: ``RUN/run.h5``, HDF5 that others may read meanwhile (SWMR).

``train/`` holds ``step``, ``loss``, ``learning_rate`` and ``grad_norm``; ``eval/`` holds ``step``, ``names`` and
``values`` (evaluations x metrics); ``mask/`` holds ``step``, ``tensors``, ``weights``, and by step and tensor
``density`` (share of weights kept), ``flips`` (weights kept now and not at the start, or the other way),
``flips_since`` (the same against the row before, or the checkpoint that the run went on from) and ``iou`` (of the
weights dropped now and those dropped at the start: how many are both, over how many are either; 1 where none is).
Steps count optimiser steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskhub.errors import FormatError, MissingError, TrainingError, library, reason
from maskhub.storage import hdf5
from maskhub.storage.atomic import explained, sync_file, sync_folder

RECORDING = "run.h5"
TRAIN = ("loss", "learning_rate", "grad_norm")
CHUNK = 64  # rows


@dataclass(frozen=True)
class Recording:
    """A run as far as it got. Values are NaN where nothing was measured at a step."""

    train_steps: NDArray[np.int64]
    train: dict[str, NDArray[np.float64]]
    eval_steps: NDArray[np.int64]
    eval: dict[str, NDArray[np.float64]]
    mask_steps: NDArray[np.int64]
    tensors: tuple[str, ...]
    weights: NDArray[np.int64]
    density: NDArray[np.float64]  # mask_steps x tensors
    flips: NDArray[np.int64]
    flips_since: NDArray[np.int64]  # the row before
    iou: NDArray[np.float64]  # of the weights dropped now and at the start


def read_recording(run: str | Path, until: float = math.inf) -> Recording:
    """The recording in a run folder, up to the step ``until``, also of a run that goes on or was killed.

    Raises TrainingError where there is none, or none that can be read.
    """
    path = Path(run) / RECORDING
    if not path.is_file():
        raise MissingError(f"{run}: no recording: it has no {RECORDING}", hint="Name the folder of a run.")
    try:
        with _h5py().File(path, "r", libver="latest", swmr=True) as file:

            def read(place: str, kind: type, dimensions: int, rows: int | None = None) -> NDArray[Any]:
                return hdf5.array(hdf5.member(file, place, RECORDING), kind, dimensions, RECORDING, rows)

            steps = {group: read(f"{group}/step", np.int64, 1) for group in ("train", "eval", "mask")}
            rows = {group: int((found <= until).sum()) for group, found in steps.items()}
            names = hdf5.texts(hdf5.member(file, "eval/names", RECORDING), RECORDING)
            values = read("eval/values", np.float64, 2, rows["eval"])
            recording = Recording(
                steps["train"][: rows["train"]],
                {name: read(f"train/{name}", np.float64, 1, rows["train"]) for name in TRAIN},
                steps["eval"][: rows["eval"]],
                {name: values[:, i] for i, name in enumerate(names)},
                steps["mask"][: rows["mask"]],
                hdf5.texts(hdf5.member(file, "mask/tensors", RECORDING), RECORDING),
                read("mask/weights", np.int64, 1),
                read("mask/density", np.float64, 2, rows["mask"]),
                read("mask/flips", np.int64, 2, rows["mask"]),
                read("mask/flips_since", np.int64, 2, rows["mask"]),
                read("mask/iou", np.float64, 2, rows["mask"]),
            )
            by_tensor = recording.density, recording.flips, recording.flips_since, recording.iou
            widths = {len(recording.tensors), *(part.shape[1] for part in by_tensor)}
            if {*widths, len(recording.weights)} != {len(recording.tensors)}:
                raise FormatError("its masks are not of as many tensors as it names")
            return recording
    except Exception as error:  # HDF5 raises every kind over what is not its own
        raise TrainingError(f"{path}: cannot be read as a recording: {reason(error)}") from error


class Recorder:
    """Writes a recording, row by row; each is on its way to the disk, and seen by readers, when the call ends.

    With ``before`` a run goes on: what was recorded until its checkpoint stays. Raises OutputError where the file
    cannot be written.
    """

    def __init__(
        self, run: Path, tensors: Mapping[str, int], metrics: Sequence[str], before: Recording | None = None
    ) -> None:
        self._path = run / RECORDING
        self._metrics = {name: i for i, name in enumerate(metrics)}
        h5py = _h5py()
        with explained(self._path):
            # A killed writer leaves its file marked as open, and HDF5 would not write to it again: it is made anew.
            new = self._path.with_suffix(".new")
            self._file = h5py.File(new, "w", libver="latest")
            for group, names in (("train", TRAIN), ("eval", ()), ("mask", ())):
                for name in ("step", *names):
                    self._rows(f"{group}/{name}", (), np.int64 if name == "step" else np.float64)
            self._rows("eval/values", (len(metrics),), np.float64)
            self._rows("mask/density", (len(tensors),), np.float64)
            self._rows("mask/flips", (len(tensors),), np.int64)
            self._rows("mask/flips_since", (len(tensors),), np.int64)
            self._rows("mask/iou", (len(tensors),), np.float64)
            self._file["eval/names"] = np.array([name.encode() for name in metrics], dtype=h5py.string_dtype())
            self._file["mask/tensors"] = np.array([name.encode() for name in tensors], dtype=h5py.string_dtype())
            self._file["mask/weights"] = np.array(list(tensors.values()), dtype=np.int64)
            if before is not None:
                self._copy(before)
            self._file.swmr_mode = True
            self._file.flush()
            sync_file(new)
            new.replace(self._path)
            sync_folder(run)

    def train(self, step: int, numbers: Mapping[str, float]) -> None:
        """A row of loss, learning rate and gradient norm; NaN where one is missing."""
        self._append("train", step, {name: numbers.get(name, np.nan) for name in TRAIN})

    def eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """A row of the metrics named at the start; others are left out."""
        self._append("eval", step, {"values": [metrics.get(name, np.nan) for name in self._metrics]})

    def mask(self, step: int, density: ArrayLike, flips: ArrayLike, flips_since: ArrayLike, iou: ArrayLike) -> None:
        """A row of what is recorded by tensor, in the order of the tensors named at the start."""
        self._append("mask", step, {"density": density, "flips": flips, "flips_since": flips_since, "iou": iou})

    def sync(self) -> None:
        """Have the disk hold what is recorded so far."""
        with explained(self._path):
            self._file.flush()
        sync_file(self._path)

    def close(self) -> None:
        """Have the disk hold all of it."""
        self._file.close()
        sync_file(self._path)

    def _rows(self, name: str, shape: tuple[int, ...], dtype: type) -> None:
        chunk = tuple(max(1, n) for n in shape)
        self._file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *chunk), chunks=(CHUNK, *chunk))

    def _copy(self, before: Recording) -> None:
        for i, step in enumerate(before.train_steps):
            self.train(int(step), {name: values[i] for name, values in before.train.items()})
        for i, step in enumerate(before.eval_steps):
            self.eval(int(step), {name: values[i] for name, values in before.eval.items()})
        for i, step in enumerate(before.mask_steps):
            self.mask(int(step), before.density[i], before.flips[i], before.flips_since[i], before.iou[i])

    def _append(self, group: str, step: int, values: Mapping[str, ArrayLike]) -> None:
        with explained(self._path):
            for name, value in (*values.items(), ("step", step)):  # readers count steps: those come last
                if name == "step":
                    self._file.flush()
                rows = self._file[group][name]
                rows.resize(len(rows) + 1, axis=0)
                rows[-1] = value
            self._file.flush()


def _h5py() -> Any:
    return library("h5py", "recordings of runs", "h5py")
