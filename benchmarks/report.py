"""Tables on the terminal, the same numbers as JSON, and targets that are met or missed."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maskhub.storage.work import workers

PACKAGES = (
    "maskhub",
    "numpy",
    "safetensors",
    "pcodec",
    "zstandard",
    "blake3",
    "huggingface-hub",
    "torch",
    "transformers",
    "peft",
)


class Report:
    """Collects what the benchmarks measure, and prints it as it comes."""

    def __init__(self, data: Path | None = None) -> None:
        """``data`` is the folder of data sets, for benchmarks that can use them."""
        self.data = data
        self.console = Console()
        self.results: dict[str, dict[str, Any]] = {}
        self.checks: list[dict[str, Any]] = []
        machine = self.machine = _machine()
        self.console.print(f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}", style="dim")

    def start(self, benchmark: str) -> None:
        self._current = self.results[benchmark] = {}
        self.console.rule(benchmark)

    def table(self, key: str, title: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> None:
        """Print rows that have the same columns, and keep them under ``key``. ``note`` says what was measured."""
        table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
        for column, value in rows[0].items():
            table.add_column(column, justify="left" if isinstance(value, str) else "right")
        for row in rows:
            table.add_row(*map(_text, row.values()))
        self.console.print(table)
        self._current[key] = {"title": title, "note": note, "rows": [dict(row) for row in rows]}

    def check(self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Note whether a measured value meets its target."""
        met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        target = f"at most {at_most}" if at_most is not None else f"at least {at_least}"
        self.checks.append({"what": what, "value": value, "target": target, "met": met})

    @property
    def passed(self) -> bool:
        return all(check["met"] for check in self.checks)

    def summary(self) -> None:
        """Print the check list."""
        self.console.rule("targets")
        for check in self.checks:
            mark = "[green]met   [/green]" if check["met"] else "[red]missed[/red]"
            self.console.print(f"{mark} {check['what']}: {check['value']:.3f} ({check['target']})", highlight=False)

    def write(self, path: Path) -> None:
        content = {
            "machine": self.machine,
            "versions": _versions(),
            "benchmarks": self.results,
            "targets": self.checks,
        }
        path.write_text(json.dumps(content, indent=2) + "\n")


def medians(functions: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each function. They take turns, so that noise on the machine hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            seconds[name].append(time.perf_counter() - start)
            del result
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory() -> float:
    """The most memory that this process has held, in MB; ``getrusage`` may count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def forget_peak() -> None:
    """Let ``peak_memory`` count from now on. What the allocator holds without need is given back first."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _text(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": workers(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
