"""What is compared: tasks with their budgets, methods with their learning rates, and where a result is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
BATCH = 32
LORA_RANK = 8

# Of these a method gets the one with the best mean over some tasks, on training examples that are held out for it.
RATES = {
    "masking": (2e-3, 3e-3, 6e-3),
    "finetuning": (3e-5, 5e-5, 1e-4),
    "lora": (5e-4, 1e-3, 2e-3),
}
PICK_SEED = 100
PICK_TASKS = ("cola", "trec", "ewt_pos")
PICK_ROWS = 2000  # of a task's training examples, at most
HELD_OUT = 5  # one in so many of them


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
    "mrpc": Budget("test", 3, 128, "accuracy"),
    "cola": Budget("validation", 4, 64, "matthews_correlation"),
    "trec": Budget("test", 4, 64, "accuracy"),
    "conll2003": Budget("test", 2, 64, "f1"),
    "ewt_pos": Budget("test", 6, 64, "accuracy"),
    "codah": Budget("test", 3, 64, "accuracy"),
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
