"""A run from the examples on: the masked model, transformers' Trainer around it, and what is left when it ends."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.identify import base_warning, identify
from maskhub.checkpoints.match import match
from maskhub.container import codecs, writer
from maskhub.container.manifest import Manifest
from maskhub.container.reader import MaskFile, open_mask
from maskhub.errors import (
    ArgumentError,
    MissingError,
    OutputError,
    TrainingError,
    reason,
)
from maskhub.masks.mask import MaskSet
from maskhub.runtime.load import processor_from
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.atomic import write_atomic
from maskhub.storage.size import parse_size
from maskhub.storage.torch import from_torch
from maskhub.tasks import TaskType
from maskhub.tasks.metrics import LOWER_IS_BETTER
from maskhub.training import checkpoints, processes
from maskhub.training.examples import Data
from maskhub.training.finetune import FinetuneTrainer, save
from maskhub.training.flips import Flips, budget, write_flips
from maskhub.training.masking import masked_weights, masks_of
from maskhub.training.model import Origin, head_of
from maskhub.training.plan import Plan, plan_of, size
from maskhub.training.prepare import prepare
from maskhub.training.processes import Report, Say
from maskhub.training.recording import Recorder, read_recording
from maskhub.training.run import (
    CHECKPOINTS,
    FLIPS,
    MASK,
    METRICS,
    MODEL,
    SNAPSHOT,
    RunRecord,
    finished,
    unmeasured,
    write_record,
)
from maskhub.training.selection import fit_masks, mask_budget, measurable, selected
from maskhub.training.settings import TrainSettings
from maskhub.training.snapshots import Snapshots, cycle_ends
from maskhub.training.trainer import MaskTrainer, Record, Reporter, StopOnInterrupt

# transformers' names of learning-rate schedules; its "constant" would leave the warm-up out.
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True)
class Sized:
    """A run's mask of a size that was asked for, and what it reaches where it was evaluated."""

    size: str
    mask: Path
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, the packed mask and its manifest, the metrics, and the model still in memory.

    A finetuning has a dense ``checkpoint``, a folder, in place of mask and manifest. ``tokenizer`` is an image
    processor where the task is one on images. ``sizes`` are the masks of several sizes, the largest first.
    """

    folder: Path
    mask: Path | None
    manifest: Manifest | None
    checkpoint: Path | None
    metrics: dict[str, float]
    model: PreTrainedModel
    tokenizer: Any
    sizes: tuple[Sized, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A run before its first step, with nothing written. ``rows`` are encoded examples, ``resumed`` is one going on."""

    folder: Path
    kind: TaskType
    labels: tuple[str, ...]
    processor: Any
    model: PreTrainedModel
    origin: Origin
    rows: Any
    eval_rows: Any
    arguments: TrainingArguments
    record: RunRecord
    resumed: bool
    plan: Plan


def ready(
    settings: TrainSettings, folder: Path, data: Data, before: RunRecord | None, say: Say, token: str | None
) -> Ready:
    """Load the base, mask it, encode the examples and settle what the Trainer is told.

    ``before`` is the record of a run that goes on. Raises as ``learn`` does before it starts.
    """
    kind, labels = data.kind, data.training.label_names
    say(f"Reading the base: {settings.base}")
    base = _named(open_checkpoint(settings.base, revision=settings.revision, token=token), settings, say, token)
    processor = processor_from(base.folder, base.name, kind.type, images=kind.images)
    set_seed(settings.seed)
    fixed = open_mask(settings.start_from, whole=True, token=token) if settings.start_from else None
    if fixed is not None:
        base = match(base, [fixed])
    model, origin, task = prepare(base, kind, labels, processor, settings, say, fixed)
    if settings.gradient_checkpointing:
        _checkpoint_gradients(model)
    initial = None if settings.method == "finetune" else origin.initial
    record = RunRecord(settings, origin.binding, task, initial, *_named_examples(data))
    if before and (changed := _changed(before, record)):
        raise TrainingError(f"{folder}: the run's {changed} changed since it was started", hint="Start a new run.")
    if settings.fits:
        would_be = _maskset(record, model, origin, unmeasured(_measured(kind, labels, data.evaluation)))
        pairs = selected(model)
        pairs[0][0].progress.budget = mask_budget(pairs, would_be)
        if settings.sizes:
            budget(would_be, min(map(parse_size, settings.sizes)))  # refused before training, too
    say(f"Encoding {len(data.training) + (len(data.evaluation) if data.evaluation else 0):,} examples")
    rows: Any = kind.encode(data.training, processor, labels, settings.max_length)
    eval_rows = kind.encode(data.evaluation, processor, labels, settings.max_length) if data.evaluation else None
    steps = _steps(settings, len(rows))
    if settings.snapshots is not None:
        cycle_ends(steps, _warmup(settings, steps), settings.snapshots)
    arguments = _arguments(settings, folder, rows, steps, data.metric if data.evaluation else None)
    planned = plan_of(model, data, steps)
    say(planned.masks)
    say(planned.needs)
    return Ready(
        folder, kind, labels, processor, model, origin, rows, eval_rows, arguments, record, before is not None, planned
    )


def run(ready: Ready, report: Report | None, say: Say) -> TrainResult:
    """Train, evaluate, and pack the mask. Raises as ``learn`` does when it has started."""
    folder, kind, labels = ready.folder, ready.kind, ready.labels
    settings = ready.record.settings
    callbacks: list[TrainerCallback] = [Reporter(report)] if report else []
    if settings.snapshots is not None and processes.is_first():
        callbacks.append(_snapshots(ready, say))
    if ready.eval_rows is not None and settings.snapshots is None:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    try:
        made: Any = MaskTrainer
        if settings.method == "finetune":
            made = partial(FinetuneTrainer, new=ready.origin.new)
        trainer: MaskTrainer = made(
            model=ready.model,
            args=ready.arguments,
            train_dataset=ready.rows,
            eval_dataset=ready.eval_rows,
            data_collator=kind.collator(ready.processor),
            compute_metrics=lambda said: kind.measure(said.predictions, said.label_ids, labels),
            # Some models give more than logits.
            preprocess_logits_for_metrics=lambda given, wanted: kind.reduce(
                given[0] if isinstance(given, tuple) else given, wanted
            ),
            callbacks=callbacks,
            head=ready.origin.head,
            dense_learning_rate=settings.dense_learning_rate,
        )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    except (ValueError, RuntimeError, ImportError) as error:  # a precision that is not to be had here
        raise ArgumentError(f"training settings: {reason(error)}") from error
    if processes.is_first():
        write_record(folder, ready.record)
    trainer.remove_callback(PrinterCallback)
    checkpoint = checkpoints.whole(folder / CHECKPOINTS) if ready.resumed else None
    done = f", of which {checkpoints.step(checkpoint):,} are done" if checkpoint else ""
    say(f"Training: {ready.plan.steps:,} steps{done}; the first takes longer than the others")
    started = time.perf_counter()
    with _recorded(trainer, folder, (*kind.metrics(labels), "loss"), checkpoint), StopOnInterrupt() as stop:
        trainer.add_callback(stop)
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.signal is not None:
        state_now = trainer.state
        raise TrainingError(
            f"{folder}: interrupted after step {state_now.global_step} of {state_now.max_steps}",
            hint="Nothing is lost: the same command with --resume goes on.",
        ) from KeyboardInterrupt(stop.signal)
    seconds = time.perf_counter() - started
    if (best := trainer.state.best_global_step) is not None:
        say(f"Kept: step {best:,} of the {trainer.state.global_step:,} done, the first with the best evaluation")

    reported = _measured(kind, labels, ready.eval_rows)
    flips = _fitted(ready, trainer, unmeasured(reported)) if settings.method != "finetune" else None
    if flips is not None and settings.selects:
        say(f"Flips: {flips.count:,} are kept, those that matter most")
    metrics = _evaluated(ready, trainer)
    if not all(map(math.isfinite, metrics.values())):
        raise TrainingError(f"{folder}: the loss is not a number any more", hint="Try a lower --learning-rate.")
    sizes = _smaller(ready, trainer, metrics) if settings.sizes else ()
    result = _finish(ready, trainer, flips, metrics, seconds, say, sizes) if processes.is_first() else None
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.unwrap_model(ready.model, keep_fp32_wrapper=False)  # its passes are its own again
    ready.model.eval()  # type: ignore[no-untyped-call]
    if settings.method == "finetune":
        return TrainResult(folder, None, None, folder / MODEL, metrics, ready.model, ready.processor)
    manifest = result or MaskFile(folder / MASK).manifest
    return TrainResult(folder, folder / MASK, manifest, None, metrics, ready.model, ready.processor, sizes)


def _measured(kind: TaskType, labels: tuple[str, ...], rows: Any) -> tuple[str, ...]:
    """Names of what is reported of an evaluation, if there is one."""
    return (*kind.metrics(labels), "loss", "majority_accuracy") if rows is not None else ()


def _evaluated(ready: Ready, trainer: MaskTrainer) -> dict[str, float]:
    """What the model reaches on the examples to evaluate on, if there are such."""
    if ready.eval_rows is None:
        return {}
    measured = trainer.evaluate()
    reported = _measured(ready.kind, ready.labels, ready.eval_rows)
    return {key: measured[f"eval_{key}"] for key in reported if f"eval_{key}" in measured}


def _smaller(ready: Ready, trainer: MaskTrainer, metrics: dict[str, float]) -> tuple[Sized, ...]:
    """A mask of each size that was asked for, the largest first, which is the run's own."""
    asked = sorted({parse_size(one): one for one in ready.record.settings.sizes or ()}.items(), reverse=True)
    pairs, found = selected(trainer.masked), [Sized(asked[0][1], ready.folder / MASK, metrics)]
    history = [*trainer.state.log_history]
    assert trainer.optimizer is not None
    scores = [one.scores.detach().clone() for one, _ in pairs]
    for count, wanted in asked[1:]:
        path = ready.folder / f"mask-{wanted.replace(' ', '')}.msk"
        now = _maskset(ready.record, ready.model, ready.origin, unmeasured(metrics))
        fit_masks(pairs, trainer.optimizer, now, count)
        found.append(Sized(wanted, path, _evaluated(ready, trainer)))
        if processes.is_first():
            writer.save(_maskset(ready.record, ready.model, ready.origin, found[-1].metrics), path, force=True)
    with torch.no_grad():
        for (one, _), before in zip(pairs, scores, strict=True):
            one.scores.copy_(before)
    trainer.state.log_history = history
    return tuple(found)


def _fitted(ready: Ready, trainer: MaskTrainer, metrics: dict[str, float]) -> Flips | None:
    """The flips that the method's size or bits leave, and what each matters; None where that cannot be told."""
    maskset = _maskset(ready.record, ready.model, ready.origin, metrics)
    pairs = measurable(trainer.masked, maskset)
    return fit_masks(pairs, trainer.optimizer, maskset) if len(pairs) == len(maskset) else None


def _maskset(record: RunRecord, model: PreTrainedModel, origin: Origin, metrics: dict[str, float]) -> MaskSet:
    """What a run would end with now."""
    head = {name: from_torch(tensor) for name, tensor in head_of(model, origin.head).items()}
    return finished(record, masks_of(model), head, metrics)


def _finish(
    ready: Ready,
    trainer: MaskTrainer,
    flips: Flips | None,
    metrics: dict[str, float],
    seconds: float,
    say: Say,
    sizes: Sequence[Sized],
) -> Manifest | None:
    """Write what is kept of a run, the mask or the finetuned model last, and delete its checkpoints."""
    folder, state = ready.folder, trainer.state
    history = {"steps": state.global_step, "seconds": round(seconds, 3), "history": state.log_history}
    if sizes:
        history["sizes"] = [{"size": one.size, "mask": one.mask.name, "metrics": one.metrics} for one in sizes]
    write_atomic(folder / METRICS, json.dumps({"metrics": metrics, **history}, indent=2).encode() + b"\n")
    manifest = None
    if ready.record.settings.method == "finetune":
        save(ready.model, ready.processor, folder)
    else:
        maskset = _maskset(ready.record, ready.model, ready.origin, metrics)
        if flips is not None:
            write_flips(folder / FLIPS, flips, maskset.id)
        manifest = writer.save(maskset, folder / MASK, codec=codecs.AUTO)
    if not ready.record.settings.keep_checkpoints:
        left = checkpoints.found(folder / CHECKPOINTS)
        bytes_of_them = sum(p.stat().st_size for one in left for p in one.rglob("*") if p.is_file())
        for one in left:
            shutil.rmtree(one)
        with contextlib.suppress(OSError):  # a tracker's files are there, too
            (folder / CHECKPOINTS).rmdir()
        say(f"Deleted: {len(left)} checkpoints, {size(bytes_of_them)} (--keep-checkpoints keeps them)")
    return manifest


def _named(base: Checkpoint, settings: TrainSettings, say: Say, token: str | None) -> Checkpoint:
    """The base with its place on the Hub, where its files are those of the model that it is to be recorded as."""
    if base.hub:
        return base
    found = identify(base, name=settings.base_name, token=token)
    if found and found.id == settings.base_name:
        return replace(base, hub=found)
    if warning := base_warning(settings.base_name or base.name, found):
        say(f"Warning: {warning}")
    return base


def _named_examples(data: Data) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run records of its examples: names and numbers of them, and their digests."""
    named = {"train": data.training} | ({"eval": data.evaluation} if data.evaluation else {})
    sources = {kind: Path(one.source).name for kind, one in named.items()}
    counts = {f"{kind}_examples": len(one) for kind, one in named.items()}
    return sources | counts, {kind: one.digest() for kind, one in named.items()}


def _checkpoint_gradients(model: PreTrainedModel) -> None:
    try:
        with quiet_transformers():
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ArgumentError(f"training settings: gradient_checkpointing: {reason(error)}") from error


@contextlib.contextmanager
def _recorded(trainer: MaskTrainer, folder: Path, metrics: Sequence[str], checkpoint: Path | None) -> Iterator[None]:
    """Lets a run record itself, after what was recorded until its checkpoint."""
    if not processes.is_first():
        yield
        return
    before = None
    if checkpoint:
        with contextlib.suppress(MissingError, TrainingError):  # one that cannot be read is no reason not to go on
            before = read_recording(folder, checkpoints.step(checkpoint))
    weights = {name: math.prod(one.shape) for name, one in masked_weights(trainer.masked).items()}
    with contextlib.closing(Recorder(folder, weights, metrics, before)) as recorder:
        callback = Record(recorder, trainer.masked)
        trainer.add_callback(callback)
        yield
        trainer.remove_callback(callback)


def _steps(settings: TrainSettings, rows: int) -> int:
    """How many there are in all."""
    an_epoch = math.ceil(rows / (settings.batch_size * settings.gradient_accumulation_steps))
    return max(1, math.ceil(an_epoch * settings.epochs))


def _warmup(settings: TrainSettings, steps: int) -> int:
    """How many of them warm up."""
    return round(steps * settings.warmup)


def _snapshots(ready: Ready, say: Say) -> Snapshots:
    """Packs the mask at the end of each cycle."""
    settings, folder = ready.record.settings, ready.folder
    assert settings.snapshots is not None

    def keep(number: int) -> None:
        path = folder / SNAPSHOT.format(number)
        writer.save(_maskset(ready.record, ready.model, ready.origin, {}), path, codec=codecs.AUTO, force=True)
        say(f"Snapshot: {path}")

    return Snapshots(cycle_ends(ready.plan.steps, _warmup(settings, ready.plan.steps), settings.snapshots), keep)


def _arguments(settings: TrainSettings, folder: Path, rows: Any, steps: int, metric: str | None) -> TrainingArguments:
    """What transformers' Trainer is told; ``metric`` picks the best evaluation, None where there is none.

    Raises ArgumentError for a tracker or a precision that is not to be had here.
    """
    own_size = settings.batch_size // processes.number()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": settings.eval_steps}
    if metric:
        saving |= {
            "eval_strategy": "steps",
            "eval_steps": settings.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": metric not in LOWER_IS_BETTER,
        }
    try:
        arguments = TrainingArguments(
            output_dir=str(folder.absolute() / CHECKPOINTS),  # the trainer's state names its best checkpoint by this
            use_cpu=not torch.accelerator.is_available(),
            restore_callback_states_from_checkpoint=True,  # the evaluations of the patience
            learning_rate=settings.learning_rate,
            adam_beta2=settings.beta2,
            weight_decay=0.0,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=own_size,
            per_device_eval_batch_size=own_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            lr_scheduler_type=SCHEDULES[settings.schedule] if settings.snapshots is None else "cosine_with_restarts",
            lr_scheduler_kwargs={} if settings.snapshots is None else {"num_cycles": settings.snapshots},
            warmup_steps=_warmup(settings, steps),
            max_grad_norm=settings.max_grad_norm,
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
        get_reporting_integration_callbacks(arguments.report_to)  # type: ignore[no-untyped-call]
    except (ValueError, RuntimeError, ImportError) as error:
        raise ArgumentError(f"training settings: {reason(error)}") from error
    return arguments


def _changed(before: RunRecord, now: RunRecord) -> str | None:
    fields = {"base": "base", "data": "examples", "task": "labels", "examples": "examples"}
    return next((what for field, what in fields.items() if getattr(before, field) != getattr(now, field)), None)
