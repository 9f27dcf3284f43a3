"""Pictures of masks, of their differences, and of runs. Need matplotlib (the extra ``maskhub[plot]``)."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskhub.errors import ArgumentError, library
from maskhub.masks.compare import MEASURES, Diff, Matrix, Measure
from maskhub.masks.mask import Mask
from maskhub.masks.names import locate, order
from maskhub.storage.atomic import claim_file, write_atomic
from maskhub.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskhub.training.recording import Recording

Cell = tuple[int | None, str]  # layer and matrix kind

OTHER = "other"  # the row of matrices that are in no layer
KINDS = (".png", ".svg", ".pdf")
DIGITS = {"hamming": 0, "z": 1}  # after the decimal point, of measures that are not shares
MARKERS = "osv^Dx+*"
LONGEST = 40  # letters of a name
LETTER = 0.09  # inches that one takes in a row of names
READABLE = 6.0  # points: smaller numbers are left out
LARGEST = 12.0  # inches that all rows, or all columns, take at most


@dataclass(frozen=True)
class HeatMap:
    """Numbers in rows and columns, to be drawn as greys.

    ``values`` is rows x columns, NaN where there is none. ``unit`` says what they are and in which unit; ``digits``
    is how many follow the decimal point in a cell.
    """

    title: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    row_label: str = ""
    column_label: str = ""
    digits: int = 2


def sparsity_map(masks: Mapping[str, Mask], title: str) -> HeatMap:
    """The share of dropped weights, in per cent, by layer and matrix."""
    cells: dict[Cell, list[Mask]] = defaultdict(list)
    for name, mask in masks.items():
        cells[locate(name)].append(mask)
    dropped = {
        cell: 100 * (1 - sum(mask.kept for mask in found) / max(1, sum(mask.size for mask in found)))
        for cell, found in cells.items()
    }
    return _by_layer(dropped, title, "dropped weights, %", 2)


def diff_map(result: Diff, measure: str = "dissimilarity") -> HeatMap:
    """A measure of two masks (a name of ``compare.MEASURES``), by layer and matrix."""
    known = MEASURES[measure]
    cells = {cell: known(overlap) for cell, overlap in result.cells.items()}
    return _by_layer(cells, f"A: {result.a}, B: {result.b}", _label(known), DIGITS.get(measure, 4))


def matrix_map(result: Matrix) -> HeatMap:
    """A measure of each pair of many masks. A mask and itself are left out: they would set the scale."""
    known = MEASURES[result.measure]
    values = result.values.copy()
    np.fill_diagonal(values, np.nan)
    title = f"{len(result.names)} masks, pair by pair"
    return HeatMap(title, _label(known), result.names, result.names, values, digits=DIGITS.get(result.measure, 4))


def _label(measure: Measure) -> str:
    return f"{measure.label}, {measure.unit}" if measure.unit else measure.label


def _by_layer(cells: Mapping[Cell, float], title: str, unit: str, digits: int) -> HeatMap:
    """A value for each layer and matrix kind, in the paper's order; last, what is outside all layers."""
    layers = sorted({layer for layer, _ in cells}, key=lambda layer: order(layer, ""))
    kinds = sorted({kind for _, kind in cells}, key=lambda kind: order(None, kind))
    values = np.full((len(layers), len(kinds)), np.nan)
    for (layer, kind), value in cells.items():
        values[layers.index(layer), kinds.index(kind)] = value
    rows = tuple(OTHER if layer is None else str(layer) for layer in layers)
    return HeatMap(title, unit, rows, tuple(kinds), values, "layer", "matrix", digits)


def claim_picture(path: Path, *, force: bool = False) -> None:
    """An error unless a picture can be drawn and written at ``path``: for before long work."""
    need_matplotlib()
    if path.suffix not in KINDS:
        raise ArgumentError(f"{path}: cannot tell what kind of picture this is", hint="Name it .png, .svg or .pdf.")
    claim_file(path, force=force)


def need_matplotlib() -> None:
    """LibraryError where matplotlib is missing."""
    library("matplotlib", "pictures", "'maskhub[plot]'")


def save_picture(heat_map: HeatMap, path: str | Path) -> None:
    """Draw into a file, replacing it: .png, .svg or .pdf. Raises as ``claim_picture`` does."""
    path = Path(path)
    claim_picture(path, force=True)
    write_atomic(path, draw(heat_map, path.suffix[1:]))


def draw(heat_map: HeatMap, kind: str) -> bytes:
    """The picture as ``png``, ``svg`` or ``pdf``. Equal maps give equal bytes."""
    return _drawn(_figure(heat_map), kind, heat_map.title)


def _drawn(figure: Figure, kind: str, title: str) -> bytes:
    import matplotlib

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(buffer, format=kind, dpi=150, metadata=dates.get(kind))
    return buffer.getvalue()


def save_curves(recording: Recording, path: str | Path, title: str) -> None:
    """Draw how a run went into a file, replacing it: .png, .svg or .pdf.

    Loss and learning rate, metrics, and by layer the dropped weights and those that flipped since the start.
    """
    path = Path(path)
    claim_picture(path, force=True)
    write_atomic(path, _drawn(_curves(recording, title), path.suffix[1:], title))


def _curves(recording: Recording, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    loss, metrics, sparsity, flips = figure.subplots(2, 2, sharex=True).flat
    loss.plot(recording.train_steps, recording.train["loss"], color="0.6", linewidth=1, label="training")
    for i, (name, values) in enumerate(recording.eval.items()):
        axes, label = (loss, "evaluation") if name == "loss" else (metrics, name.replace("_", " "))
        marker = MARKERS[i % len(MARKERS)]
        axes.plot(recording.eval_steps, values, color="black", marker=marker, markersize=4, linewidth=1, label=label)
    rate = loss.twinx()
    rate.plot(recording.train_steps, recording.train["learning_rate"], "k:", linewidth=1)
    rate.set_ylabel("learning rate (dotted)")
    loss.set_ylabel("loss")
    metrics.set_ylabel("metric")
    layers = [locate(name)[0] for name in recording.tensors]
    found = sorted(set(layers), key=lambda layer: order(layer, ""))
    for i, layer in enumerate(found):
        chosen = np.array([one == layer for one in layers])
        weights = recording.weights[chosen]
        total = max(1, int(weights.sum()))
        style = {"color": str(0.8 * (1 - (i + 1) / len(found))), "linewidth": 1}  # the higher, the darker
        style |= {"marker": MARKERS[i % len(MARKERS)], "markersize": 3}
        dropped = 100 * (1 - recording.density[:, chosen] @ weights / total)
        sparsity.plot(recording.mask_steps, dropped, **style)
        label = OTHER if layer is None else str(layer)
        flips.plot(recording.mask_steps, 100 * recording.flips[:, chosen].sum(1) / total, label=label, **style)
    sparsity.set_ylabel("dropped weights, %")
    flips.set_ylabel("weights flipped since the start, %")
    for axes in (sparsity, flips):
        axes.set_xlabel("step")
    for axes in (loss, metrics, flips):
        if axes.lines:
            axes.legend(title="layer" if axes is flips else None, fontsize=8, ncols=1 + len(axes.lines) // 8)
    figure.suptitle("\n".join(textwrap.wrap(printable(title), 80)), parse_math=False)
    return figure


def _figure(heat_map: HeatMap) -> Figure:
    """The picture. Nothing in it is read as TeX: names come from files."""
    from matplotlib.figure import Figure

    values = heat_map.values if heat_map.values.size else np.full((1, 1), np.nan)
    row_labels, column_labels = ([_shortened(n) for n in names] for names in (heat_map.rows, heat_map.columns))
    high, wide = (min(most, LARGEST / n) for most, n in zip((0.4, 0.75), values.shape, strict=True))  # inches a cell
    upright = max(map(len, column_labels), default=0) * LETTER > wide
    left, below = (LETTER * max(map(len, labels), default=0) for labels in (row_labels, column_labels))
    width = 2.0 + left + wide * values.shape[1]
    height = max(3.0, 1.6 + (below if upright else 0.2) + high * values.shape[0])
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    white, black, beyond = _scale(heat_map)
    image = axes.imshow(values, cmap="Greys", vmin=white, vmax=black, aspect="auto")
    axes.set_facecolor("none")
    for axis, labels, size in ((axes.xaxis, column_labels, wide), (axes.yaxis, row_labels, high)):
        step = math.ceil(LETTER / size)  # of very many names, every so many
        points = min(10, 60 * size * step)
        axis.set_ticks(range(0, len(labels), step), labels[::step], parse_math=False, fontsize=points)
    if upright:
        axes.tick_params("x", labelrotation=90)
    axes.set_xlabel(heat_map.column_label)
    axes.set_ylabel(heat_map.row_label)
    figure.suptitle("\n".join(textwrap.wrap(printable(heat_map.title), max(20, int(width * 8)))), parse_math=False)
    numbers = [(place, value, f"{value:,.{heat_map.digits}f}") for place, value in np.ndenumerate(values)]
    longest = max((len(text) for _, value, text in numbers if np.isfinite(value)), default=1)
    points = min(8.0, 45 * high, 110 * wide / longest)  # at which every number fits its cell
    for (row, column), value, text in numbers:
        if np.isfinite(value) and points >= READABLE:
            colour = "white" if (value - white) / (black - white) > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=points)
    figure.colorbar(image, label="\n".join(textwrap.wrap(heat_map.unit, int(height * 10))), extend=beyond)
    return figure


def _scale(heat_map: HeatMap) -> tuple[float, float, str]:
    """The values that are white and black, and on which side there are others beyond them (matplotlib's ``extend``).

    Greys span the values found, so that small differences show; far outliers (by Tukey's outer fences) do not count.
    """
    found = heat_map.values[np.isfinite(heat_map.values)]
    if not found.size:
        return 0.0, 1.0, "neither"
    lower, upper = np.percentile(found, [25, 75])
    fence = 3 * (upper - lower) or math.inf
    inside = found[(found >= lower - fence) & (found <= upper + fence)]
    low, top = float(inside.min()), float(inside.max())
    span = max(top - low, 10.0**-heat_map.digits)
    beyond = ("neither", "min", "max", "both")[int(found.min() < low) + 2 * int(found.max() > top)]
    return low - span / 10, low + span, beyond


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"
