"""The results as tables, means over the seeds at the learning rates that were picked, and the targets they meet."""

from __future__ import annotations

import itertools
import json
import statistics

from benchmarks.accuracy.plan import PICK_SEED, PICK_TASKS, RATES, SEEDS, TASKS, Job
from benchmarks.report import Report

COLUMNS = {"metric": ".4f", "bytes": ",.0f", "bits_per_weight": ".4f", "seconds": ",.0f", "peak_memory_mb": ",.0f"}
Means = dict[tuple[str, str], dict[str, float]]  # by task and method: of each column, and the number of seeds


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


def means() -> Means:
    """Over the seeds of each task and method that was run."""
    found: Means = {}
    for task, method in itertools.product(TASKS, RATES):
        paths = [Job(task, method, seed, picked(method)).path for seed in SEEDS]
        if runs := [json.loads(path.read_text()) for path in paths if path.exists()]:
            numbers = {key: statistics.mean(run[key] for run in runs) for key in COLUMNS if key in runs[0]}
            found[task, method] = numbers | {"seeds": len(runs)}
    return found


def shared(found: Means) -> list[str]:
    """The tasks that every method was run on."""
    return [task for task in TASKS if all((task, method) in found for method in RATES)]


def overall(found: Means) -> dict[str, dict[str, float]]:
    """By method: means over the tasks that every method was run on."""
    whole = shared(found)
    rows = {method: [found[task, method] for task in whole] for method in RATES if whole}
    return {
        method: {key: statistics.mean(row[key] for row in given) for key in given[0]} for method, given in rows.items()
    }


def markdown() -> str:
    """One row a task and method, with what it took; the last rows are means over the tasks."""
    found = means()
    lines = [
        "| task | method | learning rate | metric | bytes | bits a weight | seconds | MB | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows = [(_name(task), method, row) for (task, method), row in found.items()]
    rows += [(f"**mean of {len(shared(found))} tasks**", method, row) for method, row in overall(found).items()]
    for name, method, row in rows:
        cells = [format(row[key], form) if key in row else "" for key, form in COLUMNS.items()]
        lines.append("| " + " | ".join([name, method, f"{picked(method):g}", *cells, f"{row['seeds']:g}"]) + " |")
    return "\n".join(lines)


def brief() -> str:
    """One row a task: the metric of each method, and what has to be shipped."""
    found = means()
    lines = [
        "| task (metric) | finetuning | LoRA | **masking** | LoRA, bytes | **`.msk`, bytes** | bits a weight |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = [
        (_name(task), {method: found[task, method] for method in RATES if (task, method) in found}) for task in TASKS
    ]
    wanted = [(method, "metric", ".3f") for method in ("finetuning", "lora", "masking")]
    wanted += [("lora", "bytes", ",.0f"), ("masking", "bytes", ",.0f"), ("masking", "bits_per_weight", ".3f")]
    for name, row in [*rows, (f"**mean of {len(shared(found))} tasks**", overall(found))]:
        cells = [format(row[method][key], form) if method in row else "" for method, key, form in wanted]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def check(report: Report) -> None:
    """Hold the results against what masking is to reach."""
    found = means()
    whole = [task for task in shared(found) if all(found[task, method]["seeds"] == len(SEEDS) for method in RATES)]
    report.check("tasks with all methods and seeds", len(whole), at_least=len(TASKS))
    together = overall(found)
    if not together:
        return
    tuned, lora, mask = (together[method] for method in ("finetuning", "lora", "masking"))
    report.check("mean metric, masking less finetuning", mask["metric"] - tuned["metric"], at_least=0.0)
    report.check("mean metric, masking less LoRA", mask["metric"] - lora["metric"], at_least=0.0)
    for task in TASKS:
        both = [found.get((task, method)) for method in ("masking", "finetuning")]
        if both[0] and both[1]:
            report.check(f"{task}: masking less finetuning", both[0]["metric"] - both[1]["metric"], at_least=-0.015)
    report.check("bytes, .msk over LoRA's adapter", mask["bytes"] / lora["bytes"], at_most=0.5)
    report.check("bits a masked weight, mean", mask["bits_per_weight"], at_most=0.09)


def _name(task: str) -> str:
    return f"{task} ({TASKS[task].metric.replace('_', ' ')})"
