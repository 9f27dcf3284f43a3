"""The results as a table: means over the seeds, at the learning rate that was picked."""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks.accuracy.plan import PICK_SEED, PICK_TASKS, RATES, RESULTS, TASKS, Job


def results() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def picked(method: str) -> float:
    """The learning rate with the best mean metric on held-out training examples."""
    means = {}
    for rate in RATES[method]:
        jobs = [Job(task, method, PICK_SEED, rate, pick=True) for task in PICK_TASKS]
        if all(job.path.exists() for job in jobs):
            means[rate] = statistics.mean(json.loads(job.path.read_text())["metric"] for job in jobs)
    if not means:
        raise FileNotFoundError(f"no learning rate of {method} was tried on {', '.join(PICK_TASKS)}")
    return max(means, key=lambda rate: means[rate])


def markdown() -> str:
    """One row a task and method; the last rows are means over the tasks that every method has."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results():
        job = result["job"]
        if not job["pick"] and job["learning_rate"] == picked(job["method"]):
            groups.setdefault((job["task"], job["method"]), []).append(result)
    lines = [
        "| task | method | learning rate | metric | bytes | bits a weight | seconds | MB | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = [(task, method) for task in TASKS for method in RATES if (task, method) in groups]
    whole = [task for task in TASKS if all((task, method) in groups for method in RATES)]
    for task, method in order:
        runs = groups[task, method]
        name = f"{task} ({TASKS[task].metric.replace('_', ' ')})"
        lines.append(_line([name, method, f"{runs[0]['job']['learning_rate']:g}"], runs, str(len(runs))))
    for method in RATES if whole else ():
        means = [_means(groups[task, method]) for task in whole]
        lines.append(_line([f"**mean of {len(whole)} tasks**", method, ""], means, ""))
    return "\n".join(lines)


COLUMNS = {"metric": ".4f", "bytes": ",.0f", "bits_per_weight": ".4f", "seconds": ",.0f", "peak_memory_mb": ",.0f"}


def _means(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.mean(run[key] for run in runs) for key in COLUMNS if key in runs[0]}


def _line(names: list[str], runs: list[dict[str, Any]], seeds: str) -> str:
    means = _means(runs)
    cells = [format(means[key], form) if key in means else "" for key, form in COLUMNS.items()]
    return "| " + " | ".join([*names, *cells, seeds]) + " |"
