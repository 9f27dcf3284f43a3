"""The files of a job, cut from the data sets: what it trains on and what it is evaluated on."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from benchmarks.accuracy.plan import HELD_OUT, PICK_SEED, TASKS, Job


def cut(job: Job, data: Path, folder: Path) -> tuple[Path, Path]:
    """Training and evaluation file for a job, written into ``folder``."""
    budget = TASKS[job.task]
    rows = _rows(data / job.task / "train.jsonl.gz")
    random.Random(PICK_SEED).shuffle(rows)
    rows = rows[: budget.rows]
    if job.pick:
        rows = rows[: budget.pick_rows]
        evaluation, rows = rows[::HELD_OUT], [row for i, row in enumerate(rows) if i % HELD_OUT]
    else:
        evaluation = _rows(data / job.task / f"{budget.evaluation}.jsonl.gz")
    paths = folder / "train.jsonl", folder / "evaluation.jsonl"
    for path, lines in zip(paths, (rows, evaluation), strict=True):
        path.write_text("".join(lines))
    return paths


def _rows(path: Path) -> list[str]:
    """Lines of a file, without the columns that no method reads."""
    with gzip.open(path, "rt") as file:
        return [json.dumps({k: v for k, v in json.loads(line).items() if k != "fine_label"}) + "\n" for line in file]
