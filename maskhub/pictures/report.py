"""A comparison of masks as one HTML page that needs nothing else: sortable tables, and pictures.

Names in masks come from strangers. The page is built as a tree, which escapes all text, and its policy lets no script
run but its own, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from maskhub.errors import ArgumentError
from maskhub.masks.compare import MEASURES, Diff, Matrix, Overlap
from maskhub.masks.mask import MaskSet
from maskhub.pictures import plots
from maskhub.storage.atomic import claim_file, write_atomic
from maskhub.text import printable

Cell = str | int | float | None
LONG = 100  # letters of a cell, beyond which it is broken into lines

STYLE = """
:root { color-scheme: light dark; --line: #8885; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 85rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.table { overflow: auto; max-height: 40rem; border: 1px solid var(--line); width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody th { font-weight: normal; }
.number, .number button { text-align: right; }
.long { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; white-space: normal; }
th:first-child { position: sticky; left: 0; background: Canvas; }
thead th:first-child { z-index: 1; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\25B2"; }
th[aria-sort=descending]::after { content: " \\25BC"; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
img { max-width: 100%; background: white; border: 1px solid var(--line); }
footer { margin: 3rem 0 1rem; font-size: .875rem; }
@media print { .table { overflow: visible; max-height: none; } th { position: static !important; } }
"""

# Headers become buttons, so that without scripts nothing looks as if it could be pressed. Empty cells stay last.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => {
        const a = key(one), b = key(other);
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
        return down ? -order : order;
      });
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    });
  });
}
"""

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)

MEANINGS = {
    "weights": "in the tensors that both mask",
    "kept_a": "weights that A keeps",
    "kept_b": "weights that B keeps",
    "density_a": "share of the weights that A keeps",
    "density_b": "share of the weights that B keeps",
    "both": "weights that both keep",
    "only_a": "weights that A keeps and B drops",
    "only_b": "weights that B keeps and A drops",
    "neither": "weights that both drop",
    "hamming": "weights that one keeps and the other drops",
    "differing": "share of the weights that one keeps and the other drops",
    "jaccard": "weights that both keep, of those that either keeps",
    "jaccard_dropped": "weights that both drop, of those that either drops",
    "dissimilarity": "|A - B| / (|A| + |B|) of kept weights (Zhao et al. 2020): 0 for equal masks, 1 for disjoint ones",
    "expected": "weights that both would keep, if each kept as many in every tensor, but at random",
    "z": "standard deviations by which the weights that both keep exceed the expected ones",
}
SAME_START = (
    "Both were trained from the same initial mask, and share what training left of it: more overlap than chance gives "
    "does not yet mean that the tasks have something in common."
)


def claim_report(path: Path, *, force: bool = False) -> None:
    """An error unless a report can be drawn and written at ``path``: for before long work."""
    plots.need_matplotlib()
    if path.suffix != ".html":
        raise ArgumentError(f"{path}: a report is a page", hint="Name it .html.")
    claim_file(path, force=force)


def save_report(
    result: Diff | Matrix, masks: Sequence[MaskSet], path: str | Path, measure: str = "dissimilarity"
) -> None:
    """Write ``result``, the comparison of ``masks``, as a page; replaces ``path``.

    ``measure`` is what the picture of two masks shows; a matrix has its own. Raises LibraryError where matplotlib is
    missing.
    """
    plots.need_matplotlib()
    if isinstance(result, Diff):
        title, parts = f"{result.a} and {result.b}", _two(result, masks, measure)
        summary = [{"letter": "A", **_summary(result.a, masks[0])}, {"letter": "B", **_summary(result.b, masks[1])}]
    else:
        title, parts = f"{len(result.names)} masks: {MEASURES[result.measure].label}", _many(result)
        summary = [_summary(name, maskset) for name, maskset in zip(result.names, masks, strict=True)]
    base = _tag("p", f"Masks of {masks[0].base.name}. A mask is the set of the weights that it keeps.")
    write_atomic(path, _page(title, [base, *_table("Masks", summary), *parts]))


def _two(result: Diff, masks: Sequence[MaskSet], measure: str) -> list[Element]:
    pictures = [plots.diff_map(result, name) for name in dict.fromkeys((measure, "z"))]
    for name, maskset in zip((result.a, result.b), masks, strict=True):
        pictures.append(plots.sparsity_map(maskset.masks, f"Dropped weights of {name}"))
    only = [{"tensor": name, "masked in": "A"} for name in result.only_in_a]
    only += [{"tensor": name, "masked in": "B"} for name in result.only_in_b]
    return [
        *_table(
            "In total",
            [
                {"number": _words(name), "value": getattr(result.total, name), "what it is": text}
                for name, text in MEANINGS.items()
            ],
            SAME_START if result.same_start else "",
        ),
        *_pictures(pictures),
        *_table("By layer", [{"layer": _layer(layer), **_numbers(o)} for layer, o in result.layers.items()]),
        *_table("By matrix kind", [{"matrix": kind, **_numbers(o)} for kind, o in result.kinds.items()]),
        *_table(
            "By tensor",
            [
                {
                    "tensor": t.name,
                    "layer": _layer(t.layer),
                    "matrix": t.kind,
                    "shape": " × ".join(map(str, t.shape)),
                    **_numbers(t.overlap),
                }
                for t in result.tensors
            ],
        ),
        *_table("Masked in one only", only),
        *_table(
            "Dense tensors that differ",
            [
                {"tensor": d.name, "A": d.a or "none", "B": d.b or "none", "values that differ": d.values}
                for d in result.dense
            ],
        ),
        *_table("Other differences", [{"field": f.field, "A": _value(f.a), "B": _value(f.b)} for f in result.fields]),
    ]


def _many(result: Matrix) -> list[Element]:
    measure = MEASURES[result.measure]
    note = f"{measure.label}{f', {measure.unit}' if measure.unit else ''}; over the {result.weights:,} weights of "
    note += f"{result.tensors:,} tensors that all of them mask"
    rows: list[list[Cell]] = [[name, *values] for name, values in zip(result.names, result.rows(), strict=True)]
    table = _grid("Mask by mask", ["mask", *result.names], rows, note)
    return [*_pictures([plots.matrix_map(result)]), *table]


def _summary(name: str, maskset: MaskSet) -> dict[str, Cell]:
    kept = sum(mask.kept for mask in maskset.values())
    return {
        "mask": name,
        "task": maskset.task.type if maskset.task else None,
        "tensors": len(maskset.masks),
        "weights": maskset.weights,
        "kept": kept,
        "density": kept / max(1, maskset.weights),
        "dense tensors": len(maskset.dense),
        "accuracy": maskset.metrics.get("accuracy"),
        "id": maskset.id,
    }


def _numbers(overlap: Overlap) -> dict[str, Cell]:
    return {_words(name): getattr(overlap, name) for name in MEANINGS}


def _words(name: str) -> str:
    return " ".join({"a": "A", "b": "B"}.get(word, word) for word in name.split("_"))


def _layer(layer: int | None) -> Cell:
    return plots.OTHER if layer is None else layer


def _value(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pictures(heat_maps: Iterable[plots.HeatMap]) -> list[Element]:
    images = []
    for heat_map in heat_maps:
        data = base64.b64encode(plots.draw(heat_map, "svg")).decode()
        images.append(_tag("img", src=f"data:image/svg+xml;base64,{data}", alt=f"{heat_map.title}: {heat_map.unit}"))
    return [_tag("h2", "Pictures"), _tag("div", *images, **{"class": "pictures"})]


def _table(title: str, rows: Sequence[Mapping[str, Cell]], note: str = "") -> list[Element]:
    """A headed table with a column for each key; nothing at all without rows."""
    return _grid(title, list(rows[0]), [list(row.values()) for row in rows], note) if rows else []


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str) -> list[Element]:
    numeric = [any(isinstance(value, int | float) for value in column) for column in zip(*rows, strict=True)]
    head = [_tag("th", name, scope="col", **_number(n)) for name, n in zip(columns, numeric, strict=True)]
    body = [_tag("tr", *map(_cell, row, numeric)) for row in rows]
    for row in body:
        row[0].tag = "th"
        row[0].set("scope", "row")
    table = _tag("table", _tag("thead", _tag("tr", *head)), _tag("tbody", *body))
    scrolled = _tag("div", table, **{"class": "table", "role": "region", "aria-label": title, "tabindex": "0"})
    return [_tag("h2", title), *([_tag("p", note)] if note else []), scrolled]


def _cell(value: Cell, numeric: bool) -> Element:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _tag("td")
    if isinstance(value, str):
        return _tag("td", value, **({"class": "long"} if len(value) > LONG else _number(numeric)))
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.{1 if abs(value) >= 100 else 4}f}"
    return _tag("td", text, **_number(numeric), **{"data-value": repr(value)})


def _number(numeric: bool) -> dict[str, str]:
    return {"class": "number"} if numeric else {}


def _tag(name: str, /, *children: str | Element, **attributes: str) -> Element:
    element = Element(name, {key: printable(value) for key, value in attributes.items()})
    for child in children:
        if isinstance(child, str):
            element.text = child if name in ("style", "script") else printable(child)
        else:
            element.append(child)
    return element


def _page(title: str, parts: Iterable[Element]) -> bytes:
    from maskhub import __version__

    head = [
        _tag("meta", charset="utf-8"),
        _tag("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        _tag("meta", name="viewport", content="width=device-width"),
        _tag("title", title),
        _tag("style", STYLE),
    ]
    body = [
        _tag("h1", title),
        _tag("main", *parts),
        _tag("footer", f"Made by maskhub {__version__}."),
        _tag("script", SCRIPT),
    ]
    page = _tag("html", _tag("head", *head), _tag("body", *body), lang="en")
    text = "<!DOCTYPE html>\n" + ElementTree.tostring(page, encoding="unicode", method="html") + "\n"
    return text.encode(errors="xmlcharrefreplace")
