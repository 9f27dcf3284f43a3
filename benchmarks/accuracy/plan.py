"""What is compared: tasks with their budgets, methods with their learning rates, and where a result is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
BATCH = 32
LORA_RANK = 8

# Of these a method gets the one with the best mean over some tasks, on training examples that are held out for it.
# A higher one, 6e-3, takes masks over the 0.09 bits a weight that they are to take.
RATES = {
    "masking": (3e-3, 4e-3, 5e-3),
    "finetuning": (5e-5, 1e-4, 2e-4),
    "lora": (5e-4, 1e-3, 2e-3, 5e-3),
}
PICK_SEED = 100
PICK_TASKS = ("cola", "trec")
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
    "conll2003": Budget("test", 4, 64, "f1"),
    "ewt_pos": Budget("test", 3, 64, "accuracy"),
    "codah": Budget("test", 3, 64, "accuracy"),
}


@dataclass(frozen=True)
class Job:
    """One training. With ``pick`` it is evaluated on held-out training examples.

    L2-SP, margin, (initial) sparsity, layers and beta2 are masking's; the recipe's where None.
    """

    task: str
    method: str
    seed: int
    learning_rate: float
    pick: bool = False
    l2_sp: float | None = None
    score_margin: float | None = None
    sparsity: float | None = None
    layers: str | None = None
    beta2: float | None = None
    epochs: float | None = None  # the task's where None

    @property
    def budget(self) -> Budget:
        """The task's, with the epochs of the job."""
        budget = TASKS[self.task]
        return replace(budget, epochs=self.epochs or budget.epochs)

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        parts = [self.task, self.method, f"{self.learning_rate:g}"]
        changes = {"l2sp": self.l2_sp, "margin": self.score_margin, "sparsity": self.sparsity, "beta2-": self.beta2}
        parts += [f"{name}{value:g}" for name, value in changes.items() if value is not None]
        parts += [self.layers] if self.layers else []
        return RESULTS / f"{'-'.join(parts)}-{'pick' if self.pick else self.seed}.json"


# Learning rate, L2-SP and margin of the sweep, with the paper's initial sparsity, layers and beta2.
SWEEP_TASKS = {"trec": 4, "ewt_pos": 6}  # epochs, for few examples
SWEEP_START: dict[str, Any] = {"sparsity": 0.05, "layers": "upper", "beta2": 0.999}
SWEEP = [
    *((rate, decay, None) for decay in (0.0, 0.01) for rate in (1e-3, 3e-3, 6e-3)),
    *((3e-3, decay, None) for decay in (0.003, 0.03)),
    *((3e-3, 0.01, margin) for margin in (0.05, 0.1, 0.2)),
]


def sweep_jobs() -> list[Job]:
    """The trainings of the sweep, those of one setting side by side."""
    return [
        Job(task, "masking", PICK_SEED, rate, pick=True, l2_sp=decay, score_margin=margin, epochs=epochs, **SWEEP_START)
        for rate, decay, margin in SWEEP
        for task, epochs in SWEEP_TASKS.items()
    ]
