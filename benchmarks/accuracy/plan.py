"""What is compared: tasks with their budgets, methods with the rates that are tried, and where a result is kept."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
BATCH = 32
PRECISION = "bf16"  # of the passes; what is trained stays float32
LONGER = 3  # times the epochs, in the second set of budgets

PICK_SEED = 100
HELD_OUT = 5  # one in so many of the training examples that rates are picked on


@dataclass(frozen=True)
class Budget:
    """A task of the comparison: the file it is evaluated on, and what each method may spend on it."""

    evaluation: str
    epochs: float
    max_length: int
    metric: str
    rows: int | None = None  # of the training file, the first of a shuffle; None: all
    pick_rows: int = 1200  # of these, at most, where rates are picked: more where they are cheap, or else learn nothing
    held_out: bool = False  # no decision, of rates or of anything else, looks at this task


TASKS = {
    "trec": Budget("test", 4, 64, "accuracy"),
    "cola": Budget("validation", 4, 64, "matthews_correlation", pick_rows=2000),
    "mrpc": Budget("test", 3, 128, "accuracy", pick_rows=800),
    "sst2": Budget("validation", 3, 64, "accuracy", rows=8000),
    "conll2003": Budget("test", 4, 64, "f1", pick_rows=1000),
    "ewt_pos": Budget("test", 3, 64, "accuracy", pick_rows=1000),
    "codah": Budget("test", 3, 64, "accuracy", pick_rows=400),
    "sms_spam": Budget("test", 2, 64, "accuracy", held_out=True),
}
PICK_TASKS = tuple(task for task, budget in TASKS.items() if not budget.held_out)


@dataclass(frozen=True)
class Method:
    """A way to train, the learning rates that are tried first, and whose pick it shares.

    The grid goes on by itself where the best rate is at its edge. The new layer's rate is picked after that.
    """

    title: str
    rates: tuple[float, ...] = ()
    shares: str | None = None  # the method whose rates it takes
    line: str | None = None  # its line in the picture; None: its title


HEAD_RATE = 1e-3  # of the new layer, while the other rate is picked
HEAD_RATES: tuple[float | None, ...] = (None, 1e-3, 4e-3)  # None: as the other
RANKS = (1, 2, 4, 8, 16)


def _lora(placement: str, title: str, small: tuple[float, ...], large: tuple[float, ...]) -> dict[str, Method]:
    """LoRA at all ranks: 1 and 8 pick their rates, 2 takes those of 1, and 4 and 16 those of 8."""
    found = {}
    for rank in RANKS:
        mine = {1: small, 8: large}.get(rank, ())
        shares = None if mine else f"lora-{placement}-{1 if rank < 4 else 8}"
        found[f"lora-{placement}-{rank}"] = Method(f"LoRA, {title}, r = {rank}", mine, shares, f"LoRA, {title}")
    return found


# In the order of their weight: what is run first matters most where there is no time for all.
_LORA = _lora("all", "all linear layers", (1e-3, 2e-3, 4e-3, 8e-3), (5e-4, 1e-3, 2e-3, 4e-3))
_LORA |= _lora("qv", "query and value", (2e-3, 4e-3, 8e-3, 1.6e-2), (1e-3, 2e-3, 4e-3, 8e-3))
FIRST = ("lora-all-8", "lora-all-1", "lora-qv-8")
METHODS = {
    "finetuning": Method("finetuning", (5e-5, 1e-4, 2e-4, 4e-4)),
    **{name: _LORA[name] for name in FIRST},
    "masking": Method("masking", (2e-3, 4e-3, 8e-3, 1.6e-2)),
    "compeft": Method("compressed finetuning (ComPEFT's way)", shares="finetuning"),
    "bitfit": Method("BitFit", (1e-3, 2e-3, 4e-3, 8e-3)),
    "fourierft": Method("FourierFT", (1e-2, 2e-2, 4e-2, 8e-2)),
    "unilora": Method("Uni-LoRA", (2e-3, 4e-3, 8e-3, 1.6e-2)),
    "vera": Method("VeRA", (4e-3, 8e-3, 1.6e-2, 3.2e-2)),
    "ia3": Method("IA3", (2e-3, 4e-3, 8e-3, 1.6e-2)),
    "lora-all-rs16": Method("LoRA, all linear layers, r = 16, rsLoRA", (1.25e-4, 2.5e-4, 5e-4, 1e-3)),
    **{name: method for name, method in _LORA.items() if name not in FIRST},
}
BASELINES = tuple(name for name in METHODS if name != "masking")

# Masking is run with each of these settings, at one pick; the first is the recipe's, the others draw its line.
MASKS: tuple[dict[str, Any], ...] = ({},)

# What a compressed task vector keeps of the values, the largest; its scale is so many times the mean size of those.
KEPT = (0.003, 0.01, 0.03, 0.1, 0.3)
SCALES = (1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Job:
    """One training. With ``pick`` it is evaluated on held-out training examples.

    ``settings`` are masking's, as ``maskhub.training.settings`` has them.
    """

    task: str
    method: str
    seed: int
    learning_rate: float
    head_learning_rate: float
    pick: bool = False
    long: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        """The task's, with the epochs of the job."""
        budget = TASKS[self.task]
        return replace(budget, epochs=budget.epochs * (LONGER if self.long else 1))

    @property
    def path(self) -> Path:
        """Where its result is kept: a folder a method, and a name that tells what differs."""
        parts = [self.task, f"{self.learning_rate:g}", f"head{self.head_learning_rate:g}"]
        if changes := "-".join(f"{name}={value}".replace("/", "_") for name, value in sorted(self.settings.items())):
            parts.append(changes if len(changes) < 100 else f"{changes[:90]}~{zlib.crc32(changes.encode()):08x}")
        parts += ["long"] if self.long else []
        parts += ["pick" if self.pick else str(self.seed)]
        return RESULTS / self.method / f"{'-'.join(parts)}.json"

    def result(self) -> dict[str, Any] | None:
        """What is kept of it; None without, and where it was run with another budget."""
        if not self.path.exists():
            return None
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found if found["budget"] == asdict(self.budget) else None
