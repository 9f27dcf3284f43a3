"""transformers' Trainer for masked models: its checkpoints hold scores and head, never the base's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from maskhub.errors import OutputError, TrainingError, reason
from maskhub.interrupts import caught
from maskhub.masks.mask import Mask
from maskhub.storage.atomic import atomic_file
from maskhub.storage.safetensors import TensorFile, write_tensors
from maskhub.storage.torch import from_torch, to_torch
from maskhub.tasks.metrics import IGNORED
from maskhub.training import checkpoints, processes
from maskhub.training.attach import MaskCallback, clip_grad_norm_
from maskhub.training.masking import follow, masked_weights, masks_of, pin_to, places_of, scores_of
from maskhub.training.methods import RAMP
from maskhub.training.model import head_of
from maskhub.training.processes import Report
from maskhub.training.recording import Recorder
from maskhub.training.run import HEAD, SCORES
from maskhub.training.selection import rounds

PLACES = ".places"  # the end of a name under which the places of scores are saved


class MaskTrainer(Trainer):
    """Saves and loads the scores, and the parameters named in ``head`` (those the base does not hold)."""

    def __init__(self, *, head: frozenset[str], dense_learning_rate: float | None = None, **options: Any) -> None:
        self._order = torch.Generator()
        super().__init__(**options)
        self.model_accepts_loss_kwargs = False  # many models only seem to: their loss is a batch's mean
        self.head = head
        self._dense_rate = dense_learning_rate or self.args.learning_rate
        self.masked: Any = options["model"]
        self.add_callback(_Steps(self._order))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's loss, in which each label counts the same, whichever process it came to."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and self.args.world_size > 1:
            own = inputs["labels"].ne(IGNORED).sum()
            loss = loss * own / self.accelerator.gather(own).float().mean()
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Scores in the first group; what is trained besides in the second, at its own rate."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.masked)
            scores = list(scores_of(self.masked).values())
            mine = {id(score) for score in scores}
            others = [p for p in self.masked.parameters() if p.requires_grad and id(p) not in mine]
            groups = [{"params": scores}, *([{"params": others, "lr": self._dense_rate}] if others else [])]
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self.accelerator.unscale_gradients()
        return clip_grad_norm_(model, self.args.max_grad_norm)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """None is while the sparsity still goes to its final one, or flips are still to be selected."""
        masked = next(iter(masked_weights(self.masked).values()))
        method, progress = masked.method, masked.progress
        changing = method.final_sparsity is not None and progress.share < RAMP
        changing |= progress.done < max(rounds(method, self.state.max_steps), default=0)
        return False if changing else bool(super()._determine_best_metric(metrics, trial))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(train_dataset)
        sampler.generator = self._order
        if isinstance(sampler, LengthGroupedSampler):  # the same order for any number of processes
            sampler.batch_size *= self.args.world_size
        return sampler

    def _save_checkpoint(self, *given: Any, **options: Any) -> None:
        """Then sealed, and only then are older ones deleted: transformers would do that first."""
        folder = Path(str(self.args.output_dir))
        try:
            super()._save_checkpoint(*given, **options)
            self.accelerator.wait_for_everyone()  # each process writes the state of its own chance
            if processes.is_first():
                checkpoints.seal(folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
                checkpoints.rotate(folder)
        except (OSError, RuntimeError, OutputError) as error:  # RuntimeError: torch's way to say that a disk is full
            raise OutputError(
                f"{folder}: the checkpoint of step {self.state.global_step} cannot be written: {reason(error)}",
                hint="Make room; the same command with --resume goes on from the one before.",
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.masked, self.head, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(model or self.masked, self.head, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = self.state.best_global_step or 0  # not best_model_checkpoint: the run may have moved since
        checkpoint = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{best}"
        checkpoints.check(checkpoint)
        for one in masked_weights(self.masked).values():  # all have the same
            one.progress.done = best
        load_weights(self.masked, self.head, checkpoint)
        self._load_optimizer_and_scheduler(str(checkpoint))  # by which it is told what its flips matter


class _Steps(MaskCallback):
    """Lets the order of an epoch's batches depend on seed and epoch alone: a resumed run goes on in the same one.

    Ends training before a step with gradients that are no numbers. Those of fp16 may be: torch skips such steps.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._generator.manual_seed(args.seed + int(state.epoch or 0))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if args.fp16:
            return
        sums = [p.grad.sum() for p in model.parameters() if p.grad is not None]
        if bool(torch.stack(sums).isfinite().all()):
            return
        folder = Path(str(args.output_dir)).parent
        raise TrainingError(
            f"{folder}: the loss or its gradient is not a number any more at step {state.global_step + 1} "
            f"of {state.max_steps}",
            hint="Start a new run with a lower --learning-rate. The last good state is the newest of its checkpoints.",
        )


class Record(TrainerCallback):
    """Writes losses, metrics and masks of a run to its recording; masks at the start, each evaluation and the end."""

    def __init__(self, recorder: Recorder, model: nn.Module) -> None:
        self._recorder = recorder
        self._model = model
        self._first = self._last = masks_of(model)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self._masks(0)
        else:
            self._last = masks_of(self._model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % args.save_steps == 0 or state.global_step == state.max_steps:
            self._masks(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._recorder.sync()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            self._recorder.train(state.global_step, logs)
        if measured := {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}:
            self._recorder.eval(state.global_step, measured)

    def _masks(self, step: int) -> None:
        now = masks_of(self._model)
        density = [mask.kept / mask.size for mask in now.values()]
        flips, since = (
            [(mask ^ before[name]).kept for name, mask in now.items()] for before in (self._first, self._last)
        )
        overlaps = [
            overlap(mask, self._first[name], flipped) for (name, mask), flipped in zip(now.items(), flips, strict=True)
        ]
        self._recorder.mask(step, density, flips, since, overlaps)
        self._last = now


def overlap(a: Mask, b: Mask, flips: int) -> float:
    """The intersection over the union of what two masks drop, which differ in so many weights; 1 where none drops."""
    dropped = a.size - a.kept + b.size - b.kept
    return (dropped - flips) / (dropped + flips) if dropped else 1.0


def save_weights(model: nn.Module, head: frozenset[str], folder: Path) -> None:
    """Write a masked model's scores and head into ``folder``, and where the scores are that a selection left."""
    places = {f"{name}{PLACES}": tensor for name, tensor in places_of(model).items()}
    for filename, tensors in ((SCORES, scores_of(model) | places), (HEAD, head_of(model, head))):
        with atomic_file(folder / filename) as file:
            write_tensors(file, {name: from_torch(tensor) for name, tensor in tensors.items()}, {"format": "pt"})


def load_weights(model: nn.Module, head: frozenset[str], folder: Path) -> None:
    """Put the scores and head of ``folder`` back into a masked model."""
    scores = TensorFile(folder / SCORES)
    names = scores_of(model)
    pin_to(model, {name: to_torch(scores.read(f"{name}{PLACES}")) for name in names if f"{name}{PLACES}" in scores})
    with torch.no_grad():
        for filename, tensors in ((SCORES, scores_of(model)), (HEAD, head_of(model, head))):
            file = TensorFile(folder / filename)
            for name, tensor in tensors.items():
                tensor.copy_(to_torch(file.read(name)))
    follow(list(masked_weights(model).values()))


class Reporter(TrainerCallback):
    """Tells a ``Report`` function of every step and of each new loss and metric."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._latest: dict[str, float] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._report(state.global_step, state.max_steps, self._latest)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        names = {"loss": "loss", "eval_loss": "eval loss", "eval_accuracy": "accuracy"}
        self._latest |= {names[key]: value for key, value in (logs or {}).items() if key in names}
        self._report(state.global_step, state.max_steps, self._latest)


class StopOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a checkpoint and a clean stop after the step.

    A second one stops at once. Several processes stop after the same step, whichever of them was told to.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._caught = caught(self._note)

    def _note(self, number: int) -> None:
        self.signal = number

    def __enter__(self) -> StopOnInterrupt:
        self._caught.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._caught.__exit__(*error)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if processes.number() > 1:
            heard = torch.tensor(self.signal or 0, device=args.device)
            torch.distributed.all_reduce(heard, torch.distributed.ReduceOp.MAX)
            self.signal = int(heard) or None
        if self.signal is not None:
            control.should_save = True
            control.should_training_stop = True
