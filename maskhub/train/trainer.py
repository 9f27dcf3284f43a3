"""transformers' Trainer for masked models: its checkpoints hold scores and head, never the base's weights."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from maskhub.runtime.tensors import from_torch, to_torch
from maskhub.tensorfile import TensorFile
from maskhub.train.masking import follow, masked_weights, scores_of
from maskhub.train.methods import RAMP
from maskhub.train.model import MaskCallback, head_of
from maskhub.train.run import HEAD, SCORES, write_weights

Report = Callable[[int, int, Mapping[str, float]], None]  # step, steps in all, latest numbers


class MaskTrainer(Trainer):
    """Saves and loads the scores, and the parameters named in ``head`` (those the base does not hold)."""

    def __init__(self, *, head: frozenset[str], dense_learning_rate: float | None = None, **options: Any) -> None:
        self._order = torch.Generator()
        super().__init__(**options)
        self.head = head
        self._dense_rate = dense_learning_rate or self.args.learning_rate
        self._masked: Any = options["model"]
        self.add_callback(_SeedOrder(self._order))
        self.add_callback(MaskCallback())

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Scores in the first group, what is trained besides in the second, at its own learning rate."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self._masked)
            scores = list(scores_of(self._masked).values())
            mine = {id(score) for score in scores}
            others = [p for p in self._masked.parameters() if p.requires_grad and id(p) not in mine]
            groups = [{"params": scores}, *([{"params": others, "lr": self._dense_rate}] if others else [])]
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """While the sparsity still goes to its final one, no evaluation is the best."""
        masked = next(iter(masked_weights(self._masked).values()))
        ramp = masked.method.final_sparsity is not None and masked.progress.share < RAMP
        return False if ramp else bool(super()._determine_best_metric(metrics, trial))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(train_dataset)
        sampler.generator = self._order
        return sampler

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self._masked, self.head, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(model or self._masked, self.head, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        masked = list(masked_weights(self._masked).values())
        masked[0].progress.step = self.state.best_global_step or 0
        load_weights(self._masked, self.head, Path(self.state.best_model_checkpoint))


class _SeedOrder(TrainerCallback):
    """Lets the order of an epoch's batches depend on seed and epoch alone: a resumed run goes on in the same one."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._generator.manual_seed(args.seed + int(state.epoch or 0))


def save_weights(model: nn.Module, head: frozenset[str], folder: Path) -> None:
    """Write a masked model's scores and head into ``folder``."""
    scores = {name: from_torch(tensor) for name, tensor in scores_of(model).items()}
    write_weights(folder, scores, {name: from_torch(tensor) for name, tensor in head_of(model, head).items()})


def load_weights(model: nn.Module, head: frozenset[str], folder: Path) -> None:
    """Put the scores and head of ``folder`` back into a masked model."""
    with torch.no_grad():
        for tensors, filename in ((scores_of(model), SCORES), (head_of(model, head), HEAD)):
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
    """Turns the first Ctrl-C into a checkpoint and a clean stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._previous)

    def __enter__(self) -> StopOnInterrupt:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True
