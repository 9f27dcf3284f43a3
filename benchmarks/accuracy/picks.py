"""Which rates a method trains with: those with the best mean over all tasks on held-out training examples.

First the rate of what the method trains, with the head at ``HEAD_RATE``; where the best is at the edge of the grid, the
grid goes on. Then the head's, at that rate. Methods that share a pick take another's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.accuracy.plan import (
    HEAD_RATE,
    HEAD_RATES,
    MASKS,
    METHODS,
    PICK_SEED,
    PICK_TASKS,
    SCALES,
    SEEDS,
    TASKS,
    Job,
)


class Rates(NamedTuple):
    """Of what the method trains, and of the head."""

    rate: float
    head: float


class Pick(NamedTuple):
    """What is decided: the best rates of those tried, each with its mean; or what has to be run first."""

    rates: Rates | None
    jobs: list[Job]
    means: dict[Rates, float]


def pick(method: str) -> Pick:
    """The pick of a method, as far as the results that are kept decide it."""
    if (other := METHODS[method].shares) and method != "compeft":
        return pick(other)
    if method == "compeft":
        return _compressed()
    grid, means = sorted(METHODS[method].rates), {}
    while True:
        if missing := _missing(method, [Rates(rate, HEAD_RATE) for rate in grid], means):
            return Pick(None, missing, means)
        best = max(grid, key=lambda rate: means[Rates(rate, HEAD_RATE)])
        if best == grid[0]:
            grid.insert(0, best / 2)
        elif best == grid[-1]:
            grid.append(best * 2)
        else:
            break
    tried = [Rates(best, best if head is None else head) for head in HEAD_RATES]
    if missing := _missing(method, tried, means):
        return Pick(None, missing, means)
    return Pick(max(tried, key=lambda rates: means[rates]), [], means)


def settings_of(method: str) -> tuple[dict[str, Any], ...]:
    """What a method is run with: masking with several settings, which share a pick."""
    return MASKS if method == "masking" else ({},)


def jobs(method: str, seeds: Iterable[int] = SEEDS, tasks: Iterable[str] = TASKS, *, long: bool = False) -> list[Job]:
    """The trainings of a method that are compared, at the rates that were picked; none before they are."""
    rates = None if method == "compeft" else pick(method).rates  # compeft is a form of finetuning
    return [
        Job(task, method, seed, *rates, long=long, settings=settings)
        for settings in settings_of(method)
        for seed in seeds
        for task in tasks
        if rates
    ]


def scale_of(kept: float) -> float | None:
    """The scale of a compressed task vector that keeps so many values; None where none was picked."""
    found = pick("compeft")
    if found.rates is None:
        return None
    results = [result for job in _jobs("compeft", found.rates) if (result := job.result())]
    return max(
        SCALES,
        key=lambda scale: statistics.mean(r["shipped"][f"compeft-{kept:g}-{scale:g}"]["metric"] for r in results),
    )


def _compressed() -> Pick:
    """Finetuning once more, at its rates, with all scales tried."""
    rates, means = pick("finetuning").rates, {}
    if rates is None:
        return Pick(None, [], means)
    missing = _missing("compeft", [rates], means)
    return Pick(None if missing else rates, missing, means)


def _missing(method: str, tried: Iterable[Rates], means: dict[Rates, float]) -> list[Job]:
    """Jobs whose results are not there yet; means of the rates that were tried on all tasks are noted."""
    missing = []
    for rates in tried:
        jobs = _jobs(method, rates)
        found = [job.result() for job in jobs]
        missing += [job for job, result in zip(jobs, found, strict=True) if result is None]
        if all(found):
            means[rates] = statistics.mean(result["metric"] for result in found if result)
    return missing


def _jobs(method: str, rates: Rates) -> list[Job]:
    return [Job(task, method, PICK_SEED, *rates, pick=True) for task in PICK_TASKS]
