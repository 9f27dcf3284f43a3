"""A run folder: what was asked for, what was learned, and the mask set in it. Read without torch.

``run.json`` (settings, base binding, task), ``config.yaml`` (settings that repeat it), ``run.h5`` (its recording),
``metrics.json`` and ``mask.msk``, or of a finetuning ``model/``, its dense checkpoint; where flips were selected,
``flips.safetensors`` (what each of them matters); ``checkpoints/`` while it goes on, each with ``scores.safetensors``
and ``head.safetensors`` (what travels whole), by the task model's parameter names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.reader import MaskFile
from maskhub.errors import FormatError, MissingError, TrainingError, library
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage.atomic import write_atomic
from maskhub.storage.size import parse_size
from maskhub.storage.tensor import RawTensor
from maskhub.tasks import label_names, of_mask
from maskhub.training.flips import fit, read_flips
from maskhub.training.settings import TrainSettings, recorded

RECORD = "run.json"
METRICS = "metrics.json"
SCORES = "scores.safetensors"
HEAD = "head.safetensors"
CONFIG = "config.yaml"
MASK = "mask.msk"
FLIPS = "flips.safetensors"
SNAPSHOT = "snapshot-{}.msk"  # of each cycle
MODEL = "model"  # the dense checkpoint of a finetuning
CHECKPOINTS = "checkpoints"

# What of the settings does not belong to a mask's lineage: paths on the trainer's machine, and what becomes of the run.
PRIVATE = {
    "base", "revision", "base_name", "train_file", "eval_file", "dataset", "text_column", "pair_column", "label_column",
    "start_from", "report_to", "keep_checkpoints", "push_to_hub",
}  # fmt: skip


class RunRecord(msgspec.Struct, frozen=True):
    """Contents of ``run.json``. ``data`` names the examples: file names or dataset, and their numbers.

    ``examples`` has the digest of those to learn from, and of those to evaluate on.
    """

    settings: TrainSettings
    base: BaseBinding
    task: Task
    initial: Initial | None
    data: dict[str, Any]
    examples: dict[str, str] = {}


def write_record(folder: Path, record: RunRecord) -> None:
    """Write ``run.json``, and ``config.yaml`` for ``train --config``."""
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    yaml = library("yaml", "YAML files", "pyyaml")
    write_atomic(folder / CONFIG, yaml.safe_dump(recorded(record.settings), sort_keys=False).encode())


def read_record(folder: Path) -> RunRecord:
    """Raises MissingError where ``folder`` is no run, FormatError where its record is damaged."""
    path = folder / RECORD
    if not path.is_file():
        raise MissingError(
            f"{folder}: no run folder: it has no {RECORD}",
            hint="Name a folder that maskhub train wrote; a new run goes without --resume.",
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path}: {error}") from error


def maskset_from_run(
    folder: str | Path, base: Checkpoint | None = None, *, base_name: str | None = None, size: str | None = None
) -> MaskSet:
    """The mask set that a finished run learned; with ``base``, after checking that it is the run's.

    With ``size``, as ``40KB``, without the flips that matter least, until its file fits; its metrics are unknown then.
    Raises TrainingError where the run is not finished, or ``size`` is given and it does not know what flips matter,
    ArgumentError where no file is so small.
    """
    folder = Path(folder)
    if read_record(folder).settings.method == "finetune":
        raise TrainingError(
            f"{folder}: a finetuning has no mask", hint=f"The dense checkpoint that it learns is {folder / MODEL}."
        )
    if not (folder / MASK).is_file():
        raise TrainingError(
            f"{folder}: the run is not finished: it has no {MASK}", hint="Go on with: maskhub train ... --resume."
        )
    maskset = MaskFile(folder / MASK).maskset()
    if base is not None:
        dense.verify_base(base, maskset)
    if size is None:
        return maskset if base_name is None else maskset.with_base_name(base_name)
    return _fitted(maskset, folder, base_name, parse_size(size))


def _fitted(maskset: MaskSet, folder: Path, base_name: str | None, size: int) -> MaskSet:
    if not (folder / FLIPS).is_file():
        raise TrainingError(
            f"{folder}: the run does not know which flips matter: it has no {FLIPS}",
            hint="Runs by threshold, sign or bernoulli do, with an --l2-sp above 0 or a selection.",
        )
    flips = read_flips(folder / FLIPS, maskset)
    maskset = maskset if base_name is None else maskset.with_base_name(base_name)
    kind = of_mask(maskset.task)
    names = (*kind.metrics(label_names(maskset.task)), "majority_accuracy") if maskset.task else ()
    smaller = replace(maskset, metrics=unmeasured(names), lineage=maskset.lineage | {"size": size})
    count = fit(smaller, flips, size)  # with room for metrics
    return maskset if count == flips.count else replace(smaller, metrics={}, masks=flips.masks(count))


def finished(
    record: RunRecord, masks: Mapping[str, Mask], head: Mapping[str, RawTensor], metrics: Mapping[str, float]
) -> MaskSet:
    """The mask set that a run ends with, of masks and head by the task model's parameter names."""
    settings = {k: v for k, v in msgspec.to_builtins(record.settings).items() if k not in PRIVATE}
    lineage = {"operation": "train", "settings": settings, "data": record.data}
    return learned(
        record.base, masks, head, task=record.task, initial=record.initial, metrics=dict(metrics), lineage=lineage
    )


def unmeasured(names: Iterable[str]) -> dict[str, float]:
    """In place of metrics that are not measured yet: numbers that take at least as many bytes in a file."""
    return {name: -math.sqrt(i) / 10 for i, name in enumerate(names, 2)}


def learned(base: BaseBinding, masks: Mapping[str, Mask], head: Mapping[str, RawTensor], **more: Any) -> MaskSet:
    """The mask set of masks, by the task model's parameter names, and of tensors that travel whole.

    Masked weights that the base does not hold (the classifier) become dense tensors. ``more`` are its other fields.
    """
    of_base = {base.parameter(name): name for name in base.tensors}
    tensors = dict(head)
    for parameter in set(masks) - set(of_base):
        whole = tensors[parameter]
        tensors[parameter] = RawTensor(whole.dtype, whole.shape, dense.drop(whole, masks[parameter]))
    return MaskSet(base, {of_base[p]: mask for p, mask in masks.items() if p in of_base}, tensors, **more)
