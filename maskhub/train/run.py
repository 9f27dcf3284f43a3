"""A run folder: what was asked for, what was learned, and the mask set in it. Read without torch.

``run.json`` (settings, base binding, task), ``scores.safetensors`` (by the task model's parameter names),
``head.safetensors`` (what the base does not hold), ``metrics.json``, ``checkpoints/`` and ``mask.msk``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from maskhub import dense
from maskhub.checkpoint import Checkpoint, read_json
from maskhub.errors import FormatError, TrainingError
from maskhub.files import write_atomic
from maskhub.mask import BaseBinding, Mask, MaskSet, Task
from maskhub.scores import UniformScores
from maskhub.tensor import RawTensor
from maskhub.tensorfile import TensorFile, write_tensors
from maskhub.train.settings import TrainSettings

RECORD = "run.json"
METRICS = "metrics.json"
SCORES = "scores.safetensors"
HEAD = "head.safetensors"
MASK = "mask.msk"
CHECKPOINTS = "checkpoints"

# What of the settings belongs to a mask's lineage; paths on the trainer's machine do not.
PRIVATE = {"base", "revision", "base_name", "train_file", "eval_file", "dataset", "columns", "report_to"}


class RunRecord(msgspec.Struct, frozen=True):
    """Contents of ``run.json``. ``data`` names the examples: file names or dataset, and their numbers."""

    settings: TrainSettings
    base: BaseBinding
    task: Task
    scores: UniformScores
    data: dict[str, Any]


def write_record(folder: Path, record: RunRecord) -> None:
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read_record(folder: Path) -> RunRecord:
    """Raises TrainingError where ``folder`` is no run, FormatError where its record is damaged."""
    path = folder / RECORD
    if not path.is_file():
        raise TrainingError(f"{folder}: no run folder: it has no {RECORD}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path}: {error}") from error


def write_weights(folder: Path, scores: Mapping[str, RawTensor], head: Mapping[str, RawTensor]) -> None:
    """Store scores and head in ``folder``, each file whole or not at all."""
    for name, tensors in ((SCORES, scores), (HEAD, head)):
        buffer = io.BytesIO()
        write_tensors(buffer, tensors, {"format": "pt"})
        write_atomic(folder / name, buffer.getvalue())


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    write_atomic(folder / METRICS, json.dumps(metrics, indent=2).encode() + b"\n")


def maskset_from_run(folder: str | Path, base: Checkpoint | None = None) -> MaskSet:
    """The mask set that a finished run learned; with ``base``, after checking that it is the run's.

    A weight is kept where its score is above the threshold. Masked weights that the base does not hold (the
    classifier) become dense tensors. Raises TrainingError where the run is not finished.
    """
    folder = Path(folder)
    record = read_record(folder)
    if not (folder / SCORES).is_file():
        raise TrainingError(
            f"{folder}: the run is not finished: it has no {SCORES}", hint="Go on with: maskhub train ... --resume."
        )
    scores, head = TensorFile(folder / SCORES), TensorFile(folder / HEAD)
    of_base = {record.base.parameter(name): name for name in record.base.tensors}
    masks: dict[str, Mask] = {}
    tensors = {name: head.read(name) for name in head}
    for parameter in scores:
        mask = Mask.from_bool(scores.read(parameter).numpy() > np.float32(record.settings.threshold))
        if parameter in of_base:
            masks[of_base[parameter]] = mask
        else:
            whole = tensors[parameter]
            tensors[parameter] = RawTensor(whole.dtype, whole.shape, dense.drop(whole, mask))
    settings = {k: v for k, v in msgspec.to_builtins(record.settings).items() if k not in PRIVATE}
    maskset = MaskSet(
        base=record.base,
        masks=masks,
        dense=tensors,
        task=record.task,
        initial=record.scores.initial(record.settings.threshold),
        metrics=read_json(folder / METRICS)["metrics"],
        lineage={
            "operation": "train",
            "settings": settings,
            "data": record.data,
        },
    )
    if base is not None:
        dense.verify_base(base, maskset)
    return maskset
