"""The results as tables, what is missing of them, tests over seeds and tasks, and the targets that are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from scipy.stats import ttest_rel, wilcoxon

from benchmarks.accuracy.picks import Rates, jobs, pick
from benchmarks.accuracy.plan import KEPT, METHODS, PICK_TASKS, SEEDS, TASKS
from benchmarks.report import Report

TRAINED = {name: method for name, method in METHODS.items() if name != "compeft"}  # that is a form of finetuning
FORMS = {"float32": "", "msk": "", "bf16": ", bf16", "bitdelta": ", one bit (BitDelta)"}
FORMS |= {f"compeft-{kept:g}": f", {100 * kept:g} % of its signs (ComPEFT's way)" for kept in KEPT}
LINES = {"bitdelta": "BitDelta"} | {f"compeft-{kept:g}": "finetuning, sparse signs (ComPEFT's way)" for kept in KEPT}
TWICE = 2.0  # the bytes that a LoRA may have beside masks


@dataclass
class Row:
    """A method in one form that it is shipped in, with the results by task and seed."""

    name: str
    method: str
    line: str  # of the picture
    rates: Rates
    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def of(self, task: str, key: str = "metric") -> list[float]:
        """A number of each seed."""
        return [result[key] for (mine, _), result in sorted(self.results.items()) if mine == task and key in result]

    @property
    def whole(self) -> bool:
        """Whether there is a result of each task that is not held out."""
        return all(self.of(task) for task in PICK_TASKS)

    def mean(self, key: str = "metric", tasks: Iterable[str] = PICK_TASKS) -> float:
        """Over the tasks, of each one's mean over seeds."""
        return statistics.mean(statistics.mean(self.of(task, key)) for task in tasks)


class Paired(NamedTuple):
    """A comparison over all pairs of one seed of one task: how many, the mean difference, and two tests' p."""

    pairs: int
    difference: float
    wilcoxon: float
    t: float


class Comparison:
    """The results that are kept of one set of budgets."""

    def __init__(self, *, long: bool = False) -> None:
        self.long = long
        self.missing: list[str] = []

    @cached_property
    def rows(self) -> list[Row]:
        """One a method and form, of those that have any result; the others are named in ``missing``."""
        found: dict[tuple[str, str, str], Row] = {}
        for method in TRAINED:
            if not (planned := jobs(method, long=self.long)):
                self.missing.append(f"{method}: no rates were picked")
            for job in planned:
                if (result := job.result()) is None:
                    self.missing.append(f"{method}/{job.path.stem}")
                    continue
                rates = Rates(job.learning_rate, job.head_learning_rate)
                suffix = "".join(f", {key} {value}" for key, value in job.settings.items())
                for form, shipped in result["shipped"].items():
                    more = FORMS.get(form, f", {form}")
                    line = LINES.get(form, METHODS[method].title.rpartition(", r = ")[0] or METHODS[method].title)
                    line += more if form == "bf16" else ""
                    row = Row(METHODS[method].title + suffix + more, method, line, rates)
                    row = found.setdefault((method, form, suffix), row)
                    row.results[job.task, job.seed] = result | shipped
        return list(found.values())

    @cached_property
    def whole(self) -> list[Row]:
        """Those with all tasks, whose means can be compared."""
        return [row for row in self.rows if row.whole]

    def row(self, method: str) -> Row | None:
        """A method as it was trained: its first form."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def masks(self) -> list[Row]:
        return [row for row in self.whole if row.method == "masking"]

    def lora(self, size: float) -> Row | None:
        """The best LoRA, of any rank, placement and precision, in at most so many bytes."""
        small = [row for row in self.whole if row.method.startswith("lora-") and row.mean("bytes") <= size]
        return max(small, key=Row.mean, default=None)


def paired(first: Row, second: Row, tasks: Iterable[str] = TASKS) -> Paired | None:
    """Whether the first is better, over the seeds of the tasks that both have; None for fewer than two pairs."""
    pairs = sorted(key for key in first.results.keys() & second.results.keys() if key[0] in tasks)
    a, b = ([row.results[key]["metric"] for key in pairs] for row in (first, second))
    differences = [x - y for x, y in zip(a, b, strict=True)]
    if len(pairs) < 2:
        return None
    if not any(differences):
        return Paired(len(pairs), 0.0, 1.0, 1.0)
    return Paired(len(pairs), statistics.mean(differences), float(wilcoxon(a, b).pvalue), float(ttest_rel(a, b).pvalue))


def markdown(found: Comparison) -> str:
    """One row a method and form: mean and deviation over seeds of each task, and means over those not held out."""
    names = [f"{task}{' (held out)' if TASKS[task].held_out else ''}" for task in TASKS]
    lines = [
        "| " + " | ".join(["method", "rate", "head's", *names, "**mean**", "bytes"]) + " |",
        "|---|" + "---:|" * (len(names) + 4),
    ]
    for row in found.rows:
        cells = [_deviating(row.of(task)) for task in TASKS]
        cells += [f"{row.mean():.4f}", f"{row.mean('bytes'):,.0f}"] if row.whole else ["", ""]
        lines.append("| " + " | ".join([row.name, f"{row.rates.rate:g}", f"{row.rates.head:g}", *cells]) + " |")
    return "\n".join(lines)


def brief(found: Comparison) -> str:
    """One row a task: finetuning, masks, and the best LoRA of at most twice their bytes."""
    tuned, mask = found.row("finetuning"), found.row("masking")
    lora = found.lora(TWICE * mask.mean("bytes")) if mask and mask.whole else None
    rows = [row for row in (tuned, lora, mask) if row]
    lines = ["| task (metric) | " + " | ".join(row.name for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    for task, budget in TASKS.items():
        name = f"{task} ({budget.metric.replace('_', ' ')}{', held out' if budget.held_out else ''})"
        lines.append("| " + " | ".join([name, *(_deviating(row.of(task)) for row in rows)]) + " |")
    for name, key, form in (("**mean of {} tasks**", "metric", ".4f"), ("bytes, mean", "bytes", ",.0f")):
        cells = [format(row.mean(key), form) if row.whole else "" for row in rows]
        lines.append("| " + " | ".join([name.format(len(PICK_TASKS)), *cells]) + " |")
    return "\n".join(lines)


def costs(found: Comparison) -> str:
    """Seconds and memory of the trainings, and the bits of masks, means over the tasks."""
    lines = ["| method | seconds | MB | bits a weight |", "|---|---:|---:|---:|"]
    for method, row in ((method, found.row(method)) for method in TRAINED):
        if row and row.whole:
            bits = f"{row.mean('bits_per_weight'):.4f}" if method == "masking" else ""
            title = METHODS[method].title
            lines.append(f"| {title} | {row.mean('seconds'):,.0f} | {row.mean('peak_memory_mb'):,.0f} | {bits} |")
    return "\n".join(lines)


def tests(found: Comparison) -> str:
    """Each mask against finetuning and against the best LoRA of at most twice its bytes; where it loses, it is said."""
    lines = [
        "| | against | pairs | difference | Wilcoxon's p | t-test's p | worse on |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for mask in found.masks:
        for other in (found.row("finetuning"), found.lora(TWICE * mask.mean("bytes"))):
            if other and (test := paired(mask, other)):
                worse = {
                    task: statistics.mean(mask.of(task)) - statistics.mean(other.of(task))
                    for task in TASKS
                    if mask.of(task) and other.of(task)
                }
                named = ", ".join(f"{task} {100 * less:+.1f}" for task, less in worse.items() if less < 0)
                cells = [mask.name, other.name, str(test.pairs), f"{test.difference:+.4f}"]
                cells += [f"{test.wilcoxon:.2g}", f"{test.t:.2g}", named or "none"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rates() -> str:
    """What was tried to pick rates: the mean over the tasks' held-out training examples of each."""
    lines = ["| method | picked: rate, head's | mean by rate, head's |", "|---|---:|---|"]
    for name, method in METHODS.items():
        if method.shares is None and (found := pick(name)).means:
            tried = "; ".join(f"{r.rate:g}, {r.head:g}: {mean:.4f}" for r, mean in sorted(found.means.items()))
            best = f"{found.rates.rate:g}, {found.rates.head:g}" if found.rates else ""
            lines.append(f"| {method.title} | {best} | {tried} |")
    return "\n".join(lines)


def check(found: Comparison, report: Report) -> None:
    """Hold the results against what masking is to reach."""
    tuned, mask = found.row("finetuning"), found.row("masking")
    complete = [row for row in (tuned, mask) if row and len(row.results) == len(TASKS) * len(SEEDS)]
    report.check("finetuning and masking, with all tasks and seeds", len(complete), at_least=2)
    if not (tuned and mask and tuned.whole and mask.whole):
        return
    report.check("mean metric, masking less finetuning", mask.mean() - tuned.mean(), at_least=0.003)
    for task in TASKS:
        if mask.of(task) and tuned.of(task):
            less = statistics.mean(mask.of(task)) - statistics.mean(tuned.of(task))
            report.check(f"{task}: masking less finetuning", less, at_least=-0.01)
    if lora := found.lora(TWICE * mask.mean("bytes")):
        report.check(f"mean metric, masking less {lora.name}", mask.mean() - lora.mean(), at_least=0.015)
    report.check("bits a masked weight, mean", mask.mean("bits_per_weight"), at_most=0.03)
    report.check("bytes of a .msk, mean", mask.mean("bytes"), at_most=55_000)


def _deviating(values: list[float]) -> str:
    """A mean and, of more than one, the standard deviation."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"
