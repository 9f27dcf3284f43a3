"""Pictures of masks. Needs matplotlib (the extra ``maskhub[plot]``)."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from maskhub.container.manifest import MaskEntry
from maskhub.errors import MaskhubError
from maskhub.files import write_atomic
from maskhub.names import ORDER, locate

OUTSIDE = "-"  # the row of matrices outside all layers


def plot_sparsity(masks: Mapping[str, MaskEntry], path: str | Path, title: str) -> None:
    """A heat map of the share of dropped weights, layer by matrix, each cell with its number in per cent.

    ``path`` ends in .png, .svg or .pdf. Raises MaskhubError where matplotlib is missing or does not know the kind.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MaskhubError("pictures need matplotlib", hint="Install it: pip install 'maskhub[plot]'.") from error
    path = Path(path)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise MaskhubError(f"{path}: cannot tell what kind of picture this is", hint="Name it .png, .svg or .pdf.")
    cells: dict[tuple[int | None, str], list[MaskEntry]] = defaultdict(list)
    for name, entry in masks.items():
        cells[locate(name)].append(entry)
    layers = sorted({layer for layer, _ in cells}, key=lambda layer: (layer is None, layer or 0))
    kinds = sorted({kind for _, kind in cells}, key=lambda k: (ORDER.index(k) if k in ORDER else len(ORDER), k))
    shares = np.full((len(layers), len(kinds)), np.nan)
    for (layer, kind), entries in cells.items():
        weights = sum(int(np.prod(e.shape)) for e in entries)
        shares[layers.index(layer), kinds.index(kind)] = 100 * (1 - sum(e.kept for e in entries) / max(1, weights))

    figure = Figure(figsize=(2.2 + 0.75 * len(kinds), 1.8 + 0.4 * len(layers)), layout="constrained")
    axes = figure.subplots()
    # Greys read the same in print. They span the shares found, so that small differences show.
    low, high = (float(np.nanmin(shares)), float(np.nanmax(shares))) if masks else (0.0, 0.0)
    image = axes.imshow(shares, cmap="Greys", vmin=low - 0.1 * (high - low), vmax=max(high, low + 0.1), aspect="auto")
    axes.set_facecolor("none")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_yticks(range(len(layers)), [OUTSIDE if layer is None else str(layer) for layer in layers])
    axes.set_xlabel("matrix")
    axes.set_ylabel("layer")
    axes.set_title(title)
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            colour = "white" if share > (low + high) / 2 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, label="dropped weights, %")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=150)
    write_atomic(path, buffer.getvalue())
