"""Masking at other rates, decays (L2-SP) and margins, as the recipe of 0.1 was found: the results that are kept.

A table, and a picture of the metric against bytes and memory. Upper layers, an initial sparsity of 0.05, a beta2 of
0.999, passes in float32.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from benchmarks.accuracy.plan import RESULTS

TASKS = ("trec", "ewt_pos")
Point = tuple[float, float, float | None]  # learning rate, L2-SP, margin
POINTS: list[Point] = [
    *((rate, decay, None) for decay in (0.0, 0.01) for rate in (1e-3, 3e-3, 6e-3)),
    *((3e-3, decay, None) for decay in (0.003, 0.03)),
    *((3e-3, 0.01, margin) for margin in (0.05, 0.1, 0.2)),
]
NUMBERS = ("metric", "bytes", "bits_per_weight", "peak_memory_mb", "seconds")


def points() -> dict[Point, dict[str, float]]:
    """Means over the tasks."""
    found: dict[Point, dict[str, float]] = {}
    for rate, decay, margin in POINTS:
        near = f"-margin{margin:g}" if margin is not None else ""
        names = [f"{t}-masking-{rate:g}-l2sp{decay:g}{near}-sparsity0.05-beta2-0.999-upper-pick.json" for t in TASKS]
        results = [json.loads((RESULTS / name).read_text()) for name in names]
        found[rate, decay, margin] = {name: statistics.mean(result[name] for result in results) for name in NUMBERS}
    return found


def sweep_markdown() -> str:
    lines = [
        "| learning rate | L2-SP | margin | metric | bytes | bits a weight | MB | seconds |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (rate, decay, margin), mean in points().items():
        cells = [f"{rate:g}", f"{decay:g}", "" if margin is None else f"{margin:g}", f"{mean['metric']:.4f}"]
        cells += [f"{mean['bytes']:,.0f}", f"{mean['bits_per_weight']:.4f}"]
        cells += [f"{mean['peak_memory_mb']:,.0f}", f"{mean['seconds']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_sweep(path: Path) -> None:
    """A marker a setting: its shape is the decay, its shade the learning rate; margins are named."""
    from matplotlib.figure import Figure

    found = points()
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    shapes = dict(zip(sorted({decay for _, decay, _ in found}), "osD^v", strict=False))
    shades = dict(zip(sorted({rate for rate, _, _ in found}), ("0.85", "0.5", "black"), strict=False))
    panels = zip(
        figure.subplots(1, 2, sharey=True),
        ("bytes", "peak_memory_mb"),
        (1000, 1),
        ("size of the .msk file, kB", "peak memory above the libraries, MB"),
        strict=True,
    )
    for axes, name, unit, label in panels:
        for (rate, decay, margin), mean in found.items():
            style = {"marker": shapes[decay], "color": shades[rate], "markeredgecolor": "black", "linestyle": "none"}
            axes.plot(mean[name] / unit, mean["metric"], markersize=8, **style)
            if margin is not None:
                axes.annotate(
                    f"margin {margin:g}", (mean[name] / unit, mean["metric"]), (6, 4), textcoords="offset points"
                )
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy, held-out examples")
    for decay, shape in shapes.items():
        axes.plot([], [], shape, color="white", markeredgecolor="black", label=f"L2-SP {decay:g}")
    for rate, shade in shades.items():
        axes.plot([], [], "o", color=shade, markeredgecolor="black", label=f"learning rate {rate:g}")
    axes.legend(fontsize=8)
    figure.suptitle(f"Masking MiniLM-L6: learning rate, L2-SP and margin; mean of {' and '.join(TASKS)}")
    figure.savefig(path, dpi=150)
