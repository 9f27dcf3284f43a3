"""transformers' Trainer for masked models: its checkpoints hold scores and head, never the base's weights."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from maskhub.runtime.tensors import from_torch, to_torch
from maskhub.tensorfile import TensorFile
from maskhub.train.masking import plain_name, scores_of
from maskhub.train.run import HEAD, SCORES, write_weights

Report = Callable[[int, int, Mapping[str, float]], None]  # step, steps in all, latest numbers


class MaskTrainer(Trainer):
    """Saves and loads the scores, and the parameters named in ``head`` (those the base does not hold)."""

    def __init__(self, *, head: frozenset[str], **options: Any) -> None:
        self._order = torch.Generator()
        super().__init__(**options)
        self.head = head
        self._masked: nn.Module = options["model"]
        self.add_callback(_SeedOrder(self._order))

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
    write_weights(folder, scores, {name: from_torch(tensor) for name, tensor in _head(model, head).items()})


def load_weights(model: nn.Module, head: frozenset[str], folder: Path) -> None:
    """Put the scores and head of ``folder`` back into a masked model."""
    with torch.no_grad():
        for tensors, filename in ((scores_of(model), SCORES), (_head(model, head), HEAD)):
            file = TensorFile(folder / filename)
            for name, tensor in tensors.items():
                tensor.copy_(to_torch(file.read(name)))


def _head(model: nn.Module, head: frozenset[str]) -> dict[str, Tensor]:
    state = {plain_name(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: state[name] for name in sorted(head)}


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
