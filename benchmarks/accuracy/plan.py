"""What is compared: tasks with their budgets, methods with their learning rates, and where a result is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
BATCH = 32
LORA_RANK = 8

# Picked from these on a tenth of the training data that is held out for it (``--pick``).
RATES = {
    "masking": (1e-3, 3e-3, 6e-3),
    "finetuning": (3e-5, 5e-5, 1e-4),
    "lora": (5e-4, 1e-3, 2e-3),
}
PICK_SEED = 100
HELD_OUT = 10  # one in so many


@dataclass(frozen=True)
class Budget:
    """A task of the comparison: the file it is evaluated on, and what each method may spend on it."""

    evaluation: str
    epochs: float
    max_length: int
    metric: str
    rows: int | None = None  # of the training file, the first of a shuffle; None: all


TASKS = {
    "sst2": Budget("validation", 3, 64, "accuracy", rows=8000),
    "mrpc": Budget("test", 5, 128, "accuracy"),
    "cola": Budget("validation", 5, 64, "matthews_correlation"),
    "trec": Budget("test", 5, 64, "accuracy"),
    "conll2003": Budget("test", 3, 128, "f1"),
    "ewt_pos": Budget("test", 10, 128, "accuracy"),
    "codah": Budget("test", 5, 64, "accuracy"),
}


@dataclass(frozen=True)
class Job:
    """One training. With ``pick`` it is evaluated on held-out training data, to choose the learning rate."""

    task: str
    method: str
    seed: int
    learning_rate: float
    pick: bool = False

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        name = f"{self.task}-{self.method}-{self.learning_rate:g}-{'pick' if self.pick else self.seed}.json"
        return RESULTS / name
