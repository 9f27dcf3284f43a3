"""The picture: mean metric over bytes shipped, one line a method."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from benchmarks.accuracy.plan import PICK_TASKS
from benchmarks.accuracy.table import Comparison, Row
from maskhub.pictures.plots import COLOURS, LINES, MARKERS


def draw(found: Comparison, path: Path) -> None:
    """Each method's forms, sizes or ranks that were run on all tasks; its line goes from small to large files."""
    from matplotlib.figure import Figure

    lines: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(found.whole, key=lambda row: row.method != "masking"):
        lines[row.line].append(row)
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots()
    for number, (line, rows) in enumerate(lines.items()):
        points = sorted((row.mean("bytes"), row.mean()) for row in rows)
        mask = rows[0].method == "masking"
        axes.plot(
            *zip(*points, strict=True),
            label=line,
            color="black" if mask else COLOURS[(number - 1) % (len(COLOURS) - 1)],
            linestyle="-" if mask else LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            linewidth=2.5 if mask else 1,
        )
    axes.set_xscale("log")
    axes.set_xlabel("bytes shipped for a task, mean")
    axes.set_ylabel(f"metric, mean of {len(PICK_TASKS)} tasks")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
