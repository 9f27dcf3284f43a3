"""A comparison of masks as one HTML page that needs nothing else: sortable tables, and pictures.

Names in masks come from strangers. The page is built as a tree, which escapes all text, and its policy lets no script
run but its own, and nothing be fetched.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import itertools
import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from maskhub.errors import ArgumentError, listed
from maskhub.masks.compare import MEASURES, Diff, Matrix, Overlap
from maskhub.masks.mask import MaskSet
from maskhub.pictures import plots
from maskhub.storage.atomic import claim_file, write_atomic
from maskhub.text import printable

Cell = str | int | float | None
NARROW = 24  # letters of a cell that stay in one line

STYLE = """
:root { color-scheme: light dark; --line: #8885; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
body { overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .25rem 0 .75rem; max-width: 50rem; text-wrap: balance; }
.what, .made { color: GrayText; margin: 0; }
main > p { max-width: 50rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.table { overflow: auto; max-height: 40rem; border: 1px solid var(--line); width: fit-content; max-width: 100%; }
.table { border-radius: .25rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody th { font-weight: normal; }
.number, .number button { text-align: right; }
th[scope=row]:has(wbr) { min-width: 13rem; }
td.number, thead th { overflow-wrap: normal; }
td.number { white-space: nowrap; }
thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; z-index: 1; }
th:first-child { position: sticky; left: 0; background: Canvas; }
thead th:first-child { z-index: 2; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\25B2"; }
th[aria-sort=descending]::after { content: " \\25BC"; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
img { max-width: 100%; background: white; border: 1px solid var(--line); }
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
    "correlation": "what the two share beyond chance, of what equal ones would: 0 by chance, 1 for equal masks",
    "dissimilarity": "|A - B| / (|A| + |B|) of kept weights (Zhao et al. 2020): 0 for equal masks, 1 for disjoint ones",
    "expected": "weights that both would keep, if each kept as many in every tensor, but at random",
    "z": "standard deviations by which the weights that both keep exceed the expected ones",
}
# What a table with a row for each layer, kind or tensor shows: as much as fits a window. ``--json`` has all.
COLUMNS = (
    "jaccard_dropped", "correlation", "z", "dissimilarity", "neither", "only_a", "only_b", "density_a",
     "density_b", "weights",
)  # fmt: skip
SAME = ", but both began with the same mask"
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
    result: Diff | Matrix, masks: Sequence[MaskSet], path: str | Path, measure: str = "jaccard_dropped"
) -> None:
    """Write ``result``, the comparison of ``masks``, as a page; replaces ``path``.

    ``measure`` is what the picture of two masks shows; a matrix has its own. The page has today's date, or that of
    SOURCE_DATE_EPOCH: equal comparisons then give equal pages. Raises LibraryError where matplotlib is missing.
    """
    plots.need_matplotlib()
    names = [result.a, result.b] if isinstance(result, Diff) else list(result.names)
    called = [_called(name, maskset) for name, maskset in zip(names, masks, strict=True)]
    letters = "AB" if isinstance(result, Diff) else [""] * len(names)
    summary: list[dict[str, Cell]] = []
    for letter, name, maskset in zip(letters, names, masks, strict=True):
        summary.append({**({"letter": letter} if letter else {}), **_summary(name, maskset)})
    if isinstance(result, Diff):
        title, found, parts = " and ".join(called), _verdict(result), _two(result, masks, measure)
        called = [f"{letter} is {name}" for letter, name in zip(letters, called, strict=True)]
    else:
        title, found, parts = f"{len(names)} masks: {listed(called)}", _extremes(result), _many(result)
    about = _tag("p", f"Masks of {masks[0].base.name}. A mask is the set of the weights that it keeps.")
    write_atomic(path, _page(title, "; ".join(called), found, [about, *_table("Masks", summary), *parts]))


def _called(name: str, maskset: MaskSet) -> str:
    return f"{name}: {plots.described(maskset.task)}" if maskset.task else name


def _verdict(result: Diff) -> str:
    """What came out for two masks, in a sentence."""
    total = result.total
    if result.same:
        return "The two masks are the same."
    if not total.hamming:
        return "The two keep the same weights, and differ in what else they hold."
    if total.both == total.weights - total.hamming:  # neither drops a weight that the other drops
        return f"The two drop nothing in common, and differ in {total.differing:.2%} of the weights."
    by_chance = dataclasses.replace(total, both=total.expected).jaccard_dropped  # type: ignore[arg-type]
    return (
        f"Of the weights that either mask drops, both drop {total.jaccard_dropped:.1%}. "
        f"Chance alone would give {by_chance:.1%}{SAME if result.same_start else ''}."
    )


def _extremes(result: Matrix) -> str:
    """What came out for many masks: which two have the most of the measure, and which the least."""
    measure = MEASURES[result.measure]
    label = measure.label[0].upper() + measure.label[1:]
    pairs = [pair for pair in _pairs(result) if pair[2] is not None]
    if not pairs:
        return f"{label}: not defined for any two."
    (a, b, most), (c, d, least) = (pick(pairs, key=lambda pair: pair[2]) for pick in (max, min))
    if most == least:
        return f"{label}: {_number_text(most)} for each two."
    return f"{label}: most for {a} and {b}, {_number_text(most)}; least for {c} and {d}, {_number_text(least)}."


def _two(result: Diff, masks: Sequence[MaskSet], measure: str) -> list[Element]:
    pictures = [plots.diff_map(result, name) for name in dict.fromkeys((measure, "jaccard_dropped", "correlation"))]
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
                    **_numbers(t.overlap, COLUMNS[:-1]),  # whose weights the shape tells
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
    rows = [{"mask": a, "other mask": b, measure.name.replace("_", " "): value} for a, b, value in _pairs(result)]
    return [*_pictures([plots.matrix_map(result)]), *_table("Pair by pair", rows, note)]


def _pairs(result: Matrix) -> list[tuple[str, str, Any]]:
    """Each two masks and their measure, None where it is not defined."""
    rows = result.rows()
    places = itertools.combinations(range(len(rows)), 2)
    return [(result.names[i], result.names[j], rows[i][j]) for i, j in places]


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


def _numbers(overlap: Overlap, columns: Sequence[str] = COLUMNS) -> dict[str, Cell]:
    return {_words(name): getattr(overlap, name) for name in columns}


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
        first, *more = re.split(r"(?<=[._/-])(?=\w)", value) if len(value) > NARROW else [value]
        cell = _tag("td", first, **_number(numeric))
        for part in more:  # where a long name had better be broken
            ElementTree.SubElement(cell, "wbr").tail = printable(part)
        return cell
    return _tag("td", _number_text(value), **_number(numeric), **{"data-value": repr(value)})


def _number_text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{1 if abs(value) >= 100 else 4}f}"


def _number(numeric: bool) -> dict[str, str]:
    return {"class": "number"} if numeric else {}


def _today() -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH")  # reproducible-builds.org
    return str(datetime.datetime.fromtimestamp(int(seconds) if seconds else time.time(), datetime.UTC).date())


def _tag(name: str, /, *children: str | Element, **attributes: str) -> Element:
    element = Element(name, {key: printable(value) for key, value in attributes.items()})
    for child in children:
        if isinstance(child, str):
            element.text = child if name in ("style", "script") else printable(child)
        else:
            element.append(child)
    return element


def _page(title: str, what: str, found: str, parts: Iterable[Element]) -> bytes:
    """``title`` is the window's; ``found``, what came out, the headline."""
    from maskhub import __version__

    head = [
        _tag("meta", charset="utf-8"),
        _tag("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        _tag("meta", name="viewport", content="width=device-width"),
        _tag("title", title),
        _tag("style", STYLE),
    ]
    body = [
        _tag("p", what, **{"class": "what"}),
        _tag("h1", found),
        _tag("p", f"{_today()}, maskhub {__version__}", **{"class": "made"}),
        _tag("main", *parts),
        _tag("script", SCRIPT),
    ]
    page = _tag("html", _tag("head", *head), _tag("body", *body), lang="en")
    text = "<!DOCTYPE html>\n" + ElementTree.tostring(page, encoding="unicode", method="html") + "\n"
    return text.encode(errors="xmlcharrefreplace")
