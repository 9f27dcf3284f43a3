"""Masks packed while a cyclic schedule goes on, one where each cycle has come to rest: an ensemble of one training.

After Huang et al. 2017 (arXiv 1704.00109).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from maskhub.errors import ArgumentError


def cycle_ends(steps: int, warmup: int, count: int) -> list[int]:
    """The last step of each of ``count`` equal cycles after the warm-up. Raises ArgumentError for too few steps."""
    if steps - warmup < count:
        raise ArgumentError(
            f"training settings: snapshots: {count} cycles need as many steps, and there are {steps - warmup} after "
            "the warm-up",
            hint="Ask for fewer, or train for more epochs.",
        )
    return [warmup + -(-(steps - warmup) * number // count) for number in range(1, count + 1)]


class Snapshots(TrainerCallback):
    """Calls ``keep`` with the number of each cycle, from 1, when it ends."""

    def __init__(self, ends: Sequence[int], keep: Callable[[int], None]) -> None:
        self._ends, self._keep = ends, keep

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self._ends:
            self._keep(self._ends.index(state.global_step) + 1)
