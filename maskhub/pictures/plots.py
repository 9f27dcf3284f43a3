"""Pictures of masks, of their differences, and of runs. Need matplotlib (the extra ``maskhub[plot]``)."""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskhub.errors import ArgumentError, library
from maskhub.masks.binding import Task
from maskhub.masks.compare import MEASURES, Diff, Matrix, Measure
from maskhub.masks.mask import Mask
from maskhub.masks.names import LETTERS, locate, order
from maskhub.masks.summary import MaskSummary
from maskhub.storage.atomic import claim_file, write_atomic
from maskhub.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskhub.training.recording import Recording

Cell = tuple[int | None, str]  # layer and matrix kind

OTHER = "other"  # the row of matrices that are in no layer
KINDS = (".png", ".svg", ".pdf")
DIGITS = {"hamming": 0}  # after the decimal point, of measures that are not shares
LONGEST = 40  # letters of a name
LETTER = 0.09  # inches that one takes in a row of names
READABLE = 6.0  # points: smaller numbers are left out
LARGEST = 12.0  # inches that all rows, or all columns, take at most
GROUPS = 6  # of neighbouring layers that have a line each: more could not be told apart
DARKEST = 0.45  # of matplotlib's greys, so that black numbers can be read on all of them
# Okabe and Ito's colours, which people tell apart however they see them; and lines that differ without any.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
LINES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = "osv^Dx+*"
MOST = 1000  # tasks in a picture of what they take
LIVE = 256_000_000  # bytes of masks that ``load_tasks`` keeps decoded, if it is not told


@dataclass(frozen=True)
class HeatMap:
    """Numbers in rows and columns, to be drawn as greys.

    ``values`` is rows x columns, NaN where there is none. ``unit`` says what they are and in which unit; ``digits``
    is how many follow the decimal point in a cell; ``note``, under the picture, explains the names in it.
    """

    title: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    row_label: str = ""
    column_label: str = ""
    digits: int = 2
    note: str = ""


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


def diff_map(result: Diff, measure: str = "jaccard_dropped") -> HeatMap:
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
    note = "; ".join(f"{kind}: {LETTERS[kind]}" for kind in kinds if kind in LETTERS)
    return HeatMap(title, unit, rows, tuple(kinds), values, "layer", "matrix", digits, note)


def described(task: Task) -> str:
    """A task in a few words: its type, and its labels while they are few."""
    labels = task.config.get("id2label")
    names = [str(name) for name in labels.values()] if isinstance(labels, Mapping) else []
    return f"{task.type} ({', '.join(names)})" if 0 < len(names) <= 4 else task.type


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

    Loss, metrics, by layer the dropped weights and those that flipped since the start, and the learning rate: what was
    recorded of them.
    """
    path = Path(path)
    claim_picture(path, force=True)
    write_atomic(path, _drawn(_curves(recording, title), path.suffix[1:], title))


@dataclass(frozen=True)
class Line:
    """Values over steps; ``sparse`` ones are few, and have markers."""

    label: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    sparse: bool = True


def _panels(recording: Recording) -> dict[str, list[Line]]:
    """What was recorded, by what it is. Nothing that has no number."""
    layers = np.array([-1 if (layer := locate(name)[0]) is None else layer for name in recording.tensors])
    inside = np.unique(layers[layers >= 0])
    groups = {_numbered(part): part for part in np.array_split(inside, min(GROUPS, inside.size) or 1) if part.size}
    groups |= {OTHER: np.array([-1])} if (layers < 0).any() else {}
    dropped, flipped, since = [], [], []
    for label, part in groups.items():
        chosen = np.isin(layers, part)
        weights = recording.weights[chosen]
        total = max(1, int(weights.sum()))
        dropped.append(Line(label, recording.mask_steps, 100 * (1 - recording.density[:, chosen] @ weights / total)))
        flipped.append(Line(label, recording.mask_steps, 100 * recording.flips[:, chosen].sum(1) / total))
        since.append(Line(label, recording.mask_steps, 100 * recording.flips_since[:, chosen].sum(1) / total))
    evaluated = {name: Line(name, recording.eval_steps, values) for name, values in recording.eval.items()}
    loss = [Line("training", recording.train_steps, recording.train["loss"], sparse=False)]
    if "loss" in evaluated:
        loss.append(dataclasses.replace(evaluated.pop("loss"), label="evaluation"))
    metrics = [dataclasses.replace(line, label=name.replace("_", " ")) for name, line in evaluated.items()]
    rate = [Line("", recording.train_steps, recording.train["learning_rate"], sparse=False)]
    panels = {
        "loss": loss,
        "metrics": metrics,
        "dropped weights, %": dropped,
        "weights flipped\nsince the start, %": flipped,
        "since the last\nevaluation, %": since,
        "learning rate": rate,
    }
    shown = {name: [line for line in lines if np.isfinite(line.values).any()] for name, lines in panels.items()}
    return {name: lines for name, lines in shown.items() if lines}


def _numbered(layers: NDArray[np.int64]) -> str:
    return f"layer {layers[0]}" if layers.size == 1 else f"layers {layers[0]} to {layers[-1]}"


def _curves(recording: Recording, title: str) -> Figure:
    from matplotlib.figure import Figure

    panels = _panels(recording)
    if recording.eval_steps.size == 1 and (once := panels.pop("metrics", None)):  # points alone are no panel
        told = ", ".join(f"{line.label} {line.values[0]:.3f}" for line in once)
        title = f"{title}, after {recording.eval_steps[0]:,} steps: {told}"
    heights = [0.6 if name == "learning rate" else 1.0 for name in panels] or [1.0]
    figure = Figure(figsize=(9.6, 1.2 + 2.1 * sum(heights)), layout="constrained")
    shown = [part for line in title.splitlines() for part in textwrap.wrap(printable(line), 105)]
    figure.suptitle("\n".join(shown), fontsize=11, parse_math=False)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    rows[-1].set_xlabel("step")
    if not panels:
        rows[0].set_axis_off()
        rows[0].text(0.5, 0.5, "nothing is recorded yet", ha="center", transform=rows[0].transAxes)
    for axes, (name, lines) in zip(rows, panels.items(), strict=False):
        axes.set_ylabel(name)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        for i, line in enumerate(lines):
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
            if line.sparse:
                style |= {"marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axes.plot(line.steps, line.values, linewidth=1.2, label=line.label, **style)
        if name.endswith("%"):
            axes.set_ylim(bottom=0)
        if any(line.label for line in lines):
            # Beside the data; where there are many, in columns that are as high as the panel.
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), fontsize=8, frameon=False,
                        ncols=math.ceil(len(lines) / 9), handlelength=3.2)  # fmt: skip
    figure.align_ylabels(rows)
    return figure


def save_sizes(points: Mapping[float, float], metric: str, path: str | Path, title: str) -> None:
    """Draw a metric over the bytes of files into a file, replacing it."""
    from matplotlib.figure import Figure

    path = Path(path)
    claim_picture(path, force=True)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    places, values = zip(*sorted(points.items()), strict=True)
    axes.plot(places, values, "o-", color=COLOURS[0])
    for place, value in zip(places, values, strict=True):
        axes.annotate(f"{value:.3f}", (place, value), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set(xlabel="bytes of the file", ylabel=metric.replace("_", " "))
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.xaxis.set_major_formatter(lambda value, _: _bytes(value))
    axes.margins(x=0.08, y=0.15)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    write_atomic(path, _drawn(figure, path.suffix[1:], title))


def save_growth(masks: Sequence[MaskSummary], path: str | Path) -> None:
    """Draw what tasks like these take on disk and in memory, over their number, into a file, replacing it."""
    path = Path(path)
    claim_picture(path, force=True)
    title = f"Bytes of tasks like these {len(masks)}, over their number"
    write_atomic(path, _drawn(_growth_figure(growth(masks), title, len(masks)), path.suffix[1:], title))


def growth(masks: Sequence[MaskSummary]) -> dict[str, list[Line]]:
    """Bytes over the number of tasks, on disk and in memory, as the mean of these masks is.

    The base is its masked weights at 4 bytes. Live tasks are as ``load_tasks`` has them: a file's bytes and a head
    each, and 8 bytes for each dropped weight of those that are decoded: of one at least. Raises ArgumentError for a
    mask in no file.
    """
    sizes = [mask.file_bytes for mask in masks]
    if (none := next((i for i, size in enumerate(sizes, 1) if size is None), None)) is not None:
        raise ArgumentError(f"mask {none} is in no file, so what it takes is not known", hint="Save it first.")
    tasks = np.unique([*np.geomspace(1, MOST, 61).round(), len(masks)]).astype(np.int64)
    base = 4 * sum({row.name: row.weights for mask in masks for row in mask.masks}.values())
    coded, head = np.mean(np.array(sizes, float)), np.mean([mask.dense_bytes for mask in masks])
    bits = np.mean([mask.weights / 8 for mask in masks])
    decoded = 8 * float(np.mean([mask.dropped for mask in masks]))
    live = base + (coded + head) * tasks
    lines = {
        "dense copies": (base + head) * tasks,
        "packed bits, one a weight (the paper)": base + (bits + head) * tasks,
        ".msk files": base + coded * tasks,
        f"live tasks, up to {_bytes(LIVE)} decoded": live + np.minimum(decoded * tasks, max(decoded, LIVE)),
        "live tasks, one decoded": live + decoded,
    }
    dense, packed, files, *alive = [Line(label, tasks, values, sparse=False) for label, values in lines.items()]
    return {"on disk": [dense, packed, files], "in memory": [dense, packed, *alive]}


def _growth_figure(panels: Mapping[str, Sequence[Line]], title: str, count: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    labels = list(dict.fromkeys(line.label for lines in panels.values() for line in lines))
    for axes, (name, lines) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="tasks", title=name)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: _bytes(value))
        axes.grid(color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(count, color="0.6", linewidth=0.8)
        for line in lines:
            i, last = labels.index(line.label), (line.steps[-1], line.values[-1])
            axes.plot(line.steps, line.values, label=line.label, color=COLOURS[i], linestyle=LINES[i], linewidth=1.6)
            axes.annotate(_bytes(last[1]), last, (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.legend(loc="upper left", fontsize=9, frameon=False, handlelength=3.2)
    note = "The base's masked weights, at 4 bytes; what is not masked comes on top once, or in each dense copy."
    figure.supxlabel(note, fontsize=8, color="0.3", x=0.02, ha="left", parse_math=False)
    return figure


def _bytes(count: float) -> str:
    """A size in three digits: ``1.32 MB``, ``43.1 GB``."""
    power = min(4, max(0, math.floor(math.log10(max(count, 1)) + 1e-9) // 3))
    return f"{count / 1000**power:.3g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def _figure(heat_map: HeatMap) -> Figure:
    """The picture. Nothing in it is read as TeX: names come from files."""
    from matplotlib.colors import LinearSegmentedColormap
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
    greys = LinearSegmentedColormap.from_list("greys", [str(1 - DARKEST * i / 8) for i in range(9)])
    image = axes.imshow(values, cmap=greys, vmin=white, vmax=black, aspect="auto")
    axes.patch.set(facecolor="none", edgecolor="0.88", hatch="////", linewidth=0)  # where there is no number
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
            axes.text(column, row, text, ha="center", va="center", fontsize=points)
    figure.colorbar(image, label="\n".join(textwrap.wrap(heat_map.unit, int(height * 10))), extend=beyond)
    if heat_map.note:
        note = "\n".join(textwrap.wrap(heat_map.note, max(20, int(width * 15)), break_on_hyphens=False))
        figure.supxlabel(note, fontsize=8, color="0.3", x=0.02, ha="left", parse_math=False)
    return figure


def _scale(heat_map: HeatMap) -> tuple[float, float, str]:
    """The values that are white and darkest, and on which side there are others beyond (matplotlib's ``extend``).

    White is 0, or the lowest value where that is below, so that a cell twice as dark is twice as much. Far outliers (by
    Tukey's outer fences) do not count.
    """
    found = heat_map.values[np.isfinite(heat_map.values)]
    if not found.size:
        return 0.0, 1.0, "neither"
    lower, upper = np.percentile(found, [25, 75])
    fence = 3 * (upper - lower) or math.inf
    inside = found[(found >= lower - fence) & (found <= upper + fence)]
    low, top = min(0.0, float(inside.min())), max(0.0, float(inside.max()))
    beyond = ("neither", "min", "max", "both")[int(found.min() < low) + 2 * int(found.max() > top)]
    return low, max(top, low + 10.0**-heat_map.digits), beyond


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"
