"""Toy tasks that a tiny model can learn: each class has words of its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from maskhub.train.settings import TrainSettings

WORDS = {
    "film": ("good", "bad", "film"),
    "spam": ("free", "win", "prize", "call"),
    "trivia": ("who", "what", "when", "where"),
    "towns": ("man", "city", "year"),
}


def rows(count: int, classes: int = 2, *, pairs: bool = False, seed: int = 0) -> list[dict[str, str]]:
    """Rows of all classes by turns; texts of different lengths."""
    rng = random.Random(seed)
    table = []
    for i in range(count):
        label, words = list(WORDS.items())[i % classes]
        text, partner = (" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(2))
        table.append({"sentence1": text, "sentence2": partner} if pairs else {"text": text})
        table[-1]["label"] = label
    return table


def write_rows(path: Path, table: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def write_task(folder: Path, classes: int = 2, *, pairs: bool = False, count: int = 40) -> tuple[Path, Path]:
    """Examples to train and to evaluate on, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    train = write_rows(folder / "train.jsonl", rows(count, classes, pairs=pairs))
    return train, write_rows(folder / "eval.jsonl", rows(24, classes, pairs=pairs, seed=1))


def settings(base: Path, folder: Path, **given: Any) -> TrainSettings:
    """Settings for a run of seconds on a task in ``folder``: ten batches, three evaluations."""
    values = {
        "base": str(base), "train_file": str(folder / "train.jsonl"), "eval_file": str(folder / "eval.jsonl"),
        "max_length": 32, "batch_size": 8, "epochs": 2.0, "eval_steps": 4, "learning_rate": 1e-2,
    }  # fmt: skip
    return TrainSettings(**(values | given))


def options(settings: TrainSettings) -> list[str]:
    """The command line of these settings, after ``maskhub train``."""
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__ if name not in ("base", "columns")}
    given = [(name.replace("_", "-"), value) for name, value in fields.items() if value is not None]
    return [settings.base, *(text for name, value in given for text in (f"--{name}", str(value)))]
