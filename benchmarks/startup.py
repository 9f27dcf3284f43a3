"""How long a cold ``maskhub info`` takes, beside a cold ``hf --help``: new processes, files in the page cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import maskhub
from benchmarks import samples
from benchmarks.report import Report, medians

RUNS = 7


def run(report: Report) -> None:
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.msk"
        maskhub.save(samples.maskset(layers=6, hidden=384, sparsity=0.05), path)
        commands = {
            "maskhub info FILE": [str(scripts / "maskhub"), "info", str(path)],
            "hf --help": [str(scripts / "hf"), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        for command in commands.values():  # also compiles what was never imported
            subprocess.run(command, check=True, capture_output=True)
        seconds = medians(
            {
                name: lambda command=command: subprocess.run(command, check=True, capture_output=True)  # type: ignore[misc]
                for name, command in commands.items()
            },
            RUNS,
        )
    reference = seconds["hf --help"]
    report.table(
        "commands",
        "Cold start",
        [{"command": n, "seconds": s, "over hf --help": s / reference} for n, s in seconds.items()],
        note=f"New process each time, files in the page cache; median of {RUNS} runs that take turns.",
    )
    report.check("cold maskhub info over cold hf --help", seconds["maskhub info FILE"] / reference, at_most=0.65)
