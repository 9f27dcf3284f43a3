"""``train``: from a base and examples to a run folder with scores, metrics and a packed mask."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from datasets import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from maskhub.checkpoints.checkpoint import open_checkpoint, read_json
from maskhub.container import codecs, writer
from maskhub.container.manifest import Manifest
from maskhub.container.reader import MaskFile
from maskhub.errors import (
    CheckpointError,
    DataError,
    ExistsError,
    FormatError,
    MaskhubError,
    MissingError,
    OutputError,
    TrainingError,
    reason,
)
from maskhub.runtime.load import processor_from
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.atomic import claim_folder
from maskhub.tasks import REGISTRY, TaskType
from maskhub.tasks.data import read_dataset, read_file, split_names
from maskhub.tasks.examples import Examples, label_ids
from maskhub.tasks.metrics import LOWER_IS_BETTER
from maskhub.training import processes
from maskhub.training.masking import masked_weights, masks_of
from maskhub.training.plan import Plan, plan_of
from maskhub.training.prepare import Prepared, prepare
from maskhub.training.recording import Recorder, Recording, read_recording
from maskhub.training.run import (
    CHECKPOINTS,
    MASK,
    RECORD,
    RunRecord,
    maskset_from_run,
    read_record,
    write_masks,
    write_metrics,
    write_record,
)
from maskhub.training.settings import TrainSettings, check
from maskhub.training.trainer import MaskTrainer, Record, Report, Reporter, StopOnInterrupt, save_weights


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, the packed mask and its manifest, the metrics, and the model still in memory.

    ``tokenizer`` is an image processor where the task is one on images.
    """

    folder: Path
    mask: Path
    manifest: Manifest
    metrics: dict[str, float]
    model: PreTrainedModel
    tokenizer: Any


def train(
    settings: TrainSettings,
    output: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    token: str | None = None,
) -> TrainResult:
    """Learn a mask and pack it as ``output/mask.msk``.

    The output folder must be new or empty, or with ``resume`` hold a run of the same settings, which goes on from
    its last checkpoint. Raises DataError, CheckpointError, TrainingError or OutputError before training starts; later
    TrainingError after Ctrl-C, when a checkpoint has been written, or when a gradient is not a number any more, and
    OutputError where a checkpoint cannot be written.

    Started by ``torchrun`` or ``accelerate launch``, each process calls it, and the first writes.
    """
    folder = Path(output)
    settings = check(settings)
    before = read_record(folder) if resume else None
    if before:
        _check_same(before.settings, settings)
        if (folder / MASK).exists():
            raise TrainingError(f"{folder}: the run is finished", hint=f"Its mask is {folder / MASK}.")
    elif processes.is_first():
        if (folder / RECORD).exists():
            raise ExistsError(f"{folder}: holds a run already", hint="Go on with it by --resume, or name a new folder.")
        claim_folder(folder)
    training, evaluation = _examples(settings, token)
    kind, labels = REGISTRY[training.task], training.label_names
    metric = _metric(kind, labels, settings)
    processor, prepared = _masked(training, settings, token)
    rows = kind.encode(training, processor, labels, settings.max_length)
    eval_rows = kind.encode(evaluation, processor, labels, settings.max_length) if evaluation else None
    record = RunRecord(
        settings=settings,
        base=prepared.binding,
        task=prepared.task,
        initial=prepared.initial,
        data={"train": Path(training.source).name, "train_examples": len(training)}
        | ({"eval": Path(evaluation.source).name, "eval_examples": len(evaluation)} if evaluation else {}),
    )
    if before and (changed := _changed(before, record)):
        raise TrainingError(f"{folder}: the run's {changed} changed since it was started", hint="Start a new run.")

    if settings.gradient_checkpointing:
        _checkpoint_gradients(prepared.model)
    callbacks: list[TrainerCallback] = [Reporter(report)] if report else []
    if eval_rows is not None:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    try:
        trainer = MaskTrainer(
            model=prepared.model,
            args=_arguments(settings, folder, rows, metric if evaluation else None),
            train_dataset=rows,
            eval_dataset=eval_rows,
            data_collator=kind.collator(processor),
            compute_metrics=lambda said: kind.measure(said.predictions, said.label_ids, labels),
            preprocess_logits_for_metrics=lambda logits, wanted: _predictions(kind, logits, wanted),
            callbacks=callbacks,
            head=prepared.head,
            dense_learning_rate=settings.dense_learning_rate,
        )
        folder.mkdir(parents=True, exist_ok=True)
    except MaskhubError:
        raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    except (ValueError, RuntimeError, ImportError) as error:  # a tracker or precision that is not to be had here
        raise TrainingError(f"training settings: {reason(error)}") from error
    if processes.is_first():
        write_record(folder, record)
    trainer.remove_callback(PrinterCallback)
    checkpoint = _last_checkpoint(folder) if resume else None
    started = time.perf_counter()
    with _recorded(trainer, folder, (*kind.metrics(labels), "loss"), checkpoint), StopOnInterrupt() as stop:
        trainer.add_callback(stop)
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.interrupted:
        state_now = trainer.state
        raise TrainingError(
            f"{folder}: interrupted after step {state_now.global_step} of {state_now.max_steps}",
            hint="Nothing is lost: the same command with --resume goes on.",
        )
    seconds = time.perf_counter() - started

    metrics: dict[str, float] = {}
    if evaluation and eval_rows is not None:
        measured = trainer.evaluate()
        reported = (*kind.metrics(labels), "loss", "majority_accuracy")
        metrics = {key: measured[f"eval_{key}"] for key in reported if f"eval_{key}" in measured}
        if not all(map(math.isfinite, metrics.values())):
            raise TrainingError(f"{folder}: the loss is not a number any more", hint="Try a lower --learning-rate.")
    if processes.is_first():
        save_weights(prepared.model, prepared.head, folder)
        write_masks(folder, masks_of(prepared.model))
        write_metrics(
            folder,
            {
                "metrics": metrics,
                "steps": trainer.state.global_step,
                "seconds": round(seconds, 3),
                "history": trainer.state.log_history,
            },
        )
        writer.save(maskset_from_run(folder), folder / MASK, codec=codecs.AUTO)
    trainer.accelerator.wait_for_everyone()
    manifest = MaskFile(folder / MASK).manifest
    prepared.model.eval()  # type: ignore[no-untyped-call]
    return TrainResult(folder, folder / MASK, manifest, metrics, prepared.model, processor)


def plan(settings: TrainSettings, *, token: str | None = None) -> Plan:
    """What ``train`` would mask, and the memory it would take. Raises as ``train`` does before it starts."""
    settings = check(settings)
    training, _ = _examples(settings, token)
    return plan_of(_masked(training, settings, token)[1].model)


def _masked(training: Examples, settings: TrainSettings, token: str | None) -> tuple[Any, Prepared]:
    """The processor of the examples, and the model to train on them."""
    kind = REGISTRY[training.task]
    base = open_checkpoint(settings.base, revision=settings.revision, token=token)
    processor = processor_from(base.folder, base.name, kind)
    set_seed(settings.seed)
    return processor, prepare(base, kind, training.label_names, processor, settings)


def _examples(settings: TrainSettings, token: str | None) -> tuple[Examples, Examples | None]:
    """Examples to train and to evaluate on, the latter read as the former's kind of task."""
    columns = settings.columns
    if settings.train_file is not None:
        training = read_file(settings.train_file, columns, settings.task)
        split = None
    else:
        assert settings.dataset is not None
        training = read_dataset(settings.dataset, "train", columns, token, settings.task)
        splits = [] if settings.eval_file else split_names(settings.dataset, token)
        split = next((s for s in ("validation", "validation_matched", "dev", "test") if s in splits), None)
    evaluation = None
    if settings.eval_file:
        evaluation = read_file(settings.eval_file, columns, training.task)
    elif settings.dataset and split:
        evaluation = read_dataset(settings.dataset, split, columns, token, training.task)
    distinct = {one for label in training.labels for one in (label if isinstance(label, list) else [label])}
    if len(distinct) == 1:
        raise DataError(f"{training.source}: all examples have the label {distinct.pop()!r}; a task needs two or more")
    if evaluation and training.label_names:
        label_ids(evaluation, training.label_names)
    return training, evaluation


def _metric(kind: TaskType, labels: tuple[str, ...], settings: TrainSettings) -> str:
    """The metric that picks the best evaluation. Raises TrainingError for one that the task does not have."""
    known = (*kind.metrics(labels), "loss")
    if settings.metric is None:
        return known[0]
    if settings.metric not in known:
        raise TrainingError(
            f"training settings: metric: {kind.name} has no {settings.metric!r}", hint=f"It has: {', '.join(known)}."
        )
    return settings.metric


def _predictions(kind: TaskType, logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """What is kept of a batch's logits for the metrics; some models give more than logits."""
    first = logits[0] if isinstance(logits, tuple) else logits
    kept: torch.Tensor = kind.reduce(first, labels) if kind.reduce else first
    return kept


def _checkpoint_gradients(model: PreTrainedModel) -> None:
    try:
        with quiet_transformers():
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise TrainingError(f"training settings: gradient_checkpointing: {reason(error)}") from error


@contextlib.contextmanager
def _recorded(trainer: MaskTrainer, folder: Path, metrics: Sequence[str], checkpoint: Path | None) -> Iterator[None]:
    """Lets a run record itself, after what was recorded until its checkpoint."""
    if not processes.is_first():
        yield
        return
    before = _recording_until(folder, checkpoint) if checkpoint else None
    weights = {name: math.prod(one.shape) for name, one in masked_weights(trainer.masked).items()}
    with contextlib.closing(Recorder(folder, weights, metrics, before)) as recorder:
        callback = Record(recorder, trainer.masked)
        trainer.add_callback(callback)
        yield
        trainer.remove_callback(callback)


def _recording_until(folder: Path, checkpoint: Path) -> Recording | None:
    """None where there is none that can be read: that is no reason not to go on."""
    try:
        return read_recording(folder).until(_step(checkpoint))
    except (MissingError, TrainingError):
        return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _arguments(settings: TrainSettings, folder: Path, rows: Any, metric: str | None) -> TrainingArguments:
    """What transformers' Trainer is told; ``metric`` picks the best evaluation, None where there is none."""
    own_size, rest = divmod(settings.batch_size, processes.number())
    if rest:
        raise TrainingError(
            f"training settings: batch_size: {settings.batch_size} examples cannot be shared by "
            f"{processes.number()} processes",
            hint="Name a multiple of their number.",
        )
    steps_an_epoch = math.ceil(len(rows) / (settings.batch_size * settings.gradient_accumulation))
    steps = max(1, math.ceil(steps_an_epoch * settings.epochs))
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": settings.eval_steps, "save_total_limit": 2}
    if metric:
        saving |= {
            "eval_strategy": "steps",
            "eval_steps": settings.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": metric not in LOWER_IS_BETTER,
        }
    return TrainingArguments(
        output_dir=str(folder.absolute() / CHECKPOINTS),  # the trainer's state names its best checkpoint by this
        use_cpu=not torch.accelerator.is_available(),
        restore_callback_states_from_checkpoint=True,  # the evaluations of the patience
        learning_rate=settings.learning_rate,
        adam_beta2=settings.beta2,
        weight_decay=0.0,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=own_size,
        per_device_eval_batch_size=own_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        lr_scheduler_type="linear",
        warmup_steps=round(steps * settings.warmup),
        seed=settings.seed,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # all processes make the same
        train_sampling_strategy="group_by_length" if isinstance(rows, Dataset) else "random",
        logging_steps=min(10, settings.eval_steps),
        report_to=settings.report_to,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **saving,
    )


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; None where it was stopped before the first. Torn ones are removed."""
    for path in sorted((folder / CHECKPOINTS).glob("checkpoint-*"), key=_step, reverse=True):
        try:
            read_json(path / TRAINER_STATE_NAME)  # written last
        except (CheckpointError, FormatError, MissingError):
            if processes.is_first():
                shutil.rmtree(path)
        else:
            return path
    return None


def _changed(before: RunRecord, now: RunRecord) -> str | None:
    fields = {"base": "base", "data": "examples", "task": "labels"}
    return next((what for field, what in fields.items() if getattr(before, field) != getattr(now, field)), None)


def _check_same(before: TrainSettings, now: TrainSettings) -> None:
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(now)
    if changed := [f"{key} {old[key]!r} is now {new[key]!r}" for key in old if old[key] != new[key]]:
        raise TrainingError(
            f"the run was started with other settings: {'; '.join(changed)}",
            hint="Give them as they were, or name a new folder.",
        )
