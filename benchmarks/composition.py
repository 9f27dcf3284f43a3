"""What composition does to a task: masks of two sentiment sets and one unrelated task, compared, combined, evaluated.

``docs/compose.md`` tells of it. The examples do not come with the project; any file that ``maskhub train`` reads will
do. ``python -m benchmarks.composition --help`` says what is needed. What is trained once is kept in the folder.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import maskhub
from benchmarks.report import Report
from maskhub.container.reader import open_mask
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import draw
from maskhub.tasks.data import read_file

ROWS, HELD_OUT = 6000, 1000
SETTINGS = (
    "--recipe",
    "paper",
    "--epochs",
    3,
    "--batch-size",
    16,
    "--learning-rate",
    3e-3,
    "--classifier",
    "dense",
    "--eval-steps",
    10**6,
)
# The mask's name, the set it learns, and the seed that its initial scores and its classifier are drawn from.
MASKS = {"short": ("short", 0), "long": ("long", 0), "other": ("other", 0), "again": ("long", 1)}
PAIRS = (("short", "long"), ("short", "other"), ("long", "other"), ("long", "again"))
EXPRESSIONS = (
    "short", "long", "other", "again", "short | ~short",
    "short & long", "short | long", "short & other", "short | other",
    "short & long & other", "short | long | other", "vote(2, short, long, other)",
    "long & again", "long | again", "short - long", "short ^ long",
)  # fmt: skip
TESTS = (("short", "short"), ("short", "long"), ("long", "short"), ("long", "long"), ("other", "other"))  # head, set


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition", description=__doc__)
    parser.add_argument("--base", required=True, help="MiniLM-L6 or another base")
    parser.add_argument("--sentiment", required=True, type=Path, help="GLUE's SST-2, its training file")
    parser.add_argument("--other", required=True, type=Path, help="examples of an unrelated task: TREC's training file")
    parser.add_argument("--other-test", required=True, type=Path, help="and its test file")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for examples, runs and masks")
    asked = parser.parse_args()
    folder: Path = asked.output
    folder.mkdir(parents=True, exist_ok=True)
    train = {name: folder / f"{name}-train.csv" for name in ("short", "long")} | {"other": asked.other}
    test = {name: folder / f"{name}-test.csv" for name in ("short", "long")} | {"other": asked.other_test}
    if not (folder / "short-train.csv").exists():
        split(asked.sentiment, folder)
    for name, (task, seed) in MASKS.items():
        if not (folder / f"{name}.msk").exists():
            files = ["--train-file", train[task], "--eval-file", test[task]]
            command("train", asked.base, *files, *SETTINGS, "--seed", seed, "-o", folder / name)
            (folder / name / "mask.msk").rename(folder / f"{name}.msk")
    masksets = {name: open_mask(folder / f"{name}.msk") for name in MASKS}
    report = Report()
    report.start("composition")
    compare(report, masksets)
    evaluate(report, masksets, asked.base, test)
    report.write(folder / "numbers.json")


def command(*arguments: object) -> None:
    """Run ``maskhub``, and show how."""
    words = [str(argument) for argument in arguments]
    print("$ maskhub", *words, flush=True)
    subprocess.run([sys.executable, "-m", "maskhub_cli", *words], check=True)


def split(source: Path, folder: Path) -> None:
    """Cut a sentiment set in two: ``short`` (3 to 6 words) and ``long`` (15 words or more), each with held-out rows.

    Rows of SST-2 are parts of others: what holds a held-out text, or is part of one, is not trained on.
    """
    examples = read_file(source)
    rows = list(dict(zip(examples.inputs["text"], examples.labels, strict=True)).items())
    sets = {
        "short": [row for row in rows if 3 <= len(row[0].split()) <= 6],
        "long": [row for row in rows if len(row[0].split()) >= 15],
    }
    apart = [text for found in sets.values() for text, _ in found[:HELD_OUT]]
    every_test = "\n".join(f" {text} " for text in apart)
    for name, found in sets.items():
        outside = [row for row in found[HELD_OUT:] if f" {row[0]} " not in every_test]
        every_row = "\n".join(f" {text} " for text, _ in outside)
        inside = [f" {text} " for text in apart if f" {text} " in every_row]
        kept = [row for row in outside if not any(text in f" {row[0]} " for text in inside)]
        write(folder / f"{name}-train.csv", kept[:ROWS])
        write(folder / f"{name}-test.csv", found[:HELD_OUT])


def write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def compare(report: Report, masksets: dict[str, MaskSet]) -> None:
    rows, layers, changes = [], [], []
    for a, b in PAIRS:
        found = maskhub.diff(masksets[a], masksets[b], (a, b))
        total, pair = found.total, {"masks": f"{a}, {b}"}
        rows.append(
            pair
            | {name: getattr(total, name) for name in ("differing", "dissimilarity", "jaccard", "jaccard_dropped", "z")}
        )
        layers.append(pair | {str(layer or "pooler"): counts.dissimilarity for layer, counts in found.layers.items()})
        if found.same_start:
            changes.append(pair | changed(masksets[a], masksets[b]))
    report.table("diffs", "Pairs of masks", rows)
    report.table("layers", "Dissimilarity by layer", layers)
    report.table("changes", "Share of the weights whose bit training changed, of masks with one start", changes)


def changed(a: MaskSet, b: MaskSet) -> dict[str, float]:
    """What training changed in each of two masks with the same start, and in both.

    Bits whose initial score lay near the threshold change easily, in whatever task: ``by chance`` is how many would
    change in both if, among weights with about the same initial score, they did so independently.
    """
    shares = dict.fromkeys(("by A", "by B", "by both", "by chance"), 0.0)
    weights = sum(mask.size for mask in a.masks.values())
    assert a.initial is not None
    for name, start in initial(a).items():
        flips = [(maskset[name] ^ start).to_bool().reshape(-1) for maskset in (a, b)]
        bins = draw(a.initial.seed, name, start.size) >> 6
        counts = np.bincount(bins, minlength=1 << 10)
        found = [np.bincount(bins[f], minlength=1 << 10) for f in (*flips, flips[0] & flips[1])]
        chance = found[0] * found[1] / np.maximum(counts, 1)
        for key, count in zip(shares, (*found, chance), strict=True):
            shares[key] += float(count.sum()) / weights
    return shares


def initial(maskset: MaskSet) -> dict[str, Mask]:
    """The masks that training began with, rebuilt from the seed."""
    start = maskset.initial
    assert start is not None
    return {
        name: Mask(mask.shape, np.packbits(draw(start.seed, name, mask.size) >= start.cut, bitorder="little"))
        for name, mask in maskset.masks.items()
    }


def evaluate(report: Report, masksets: dict[str, MaskSet], base: str, tests: dict[str, Path]) -> None:
    """Accuracy of each combination, with each task's head, on held-out examples."""
    from maskhub.runtime.evaluate import evaluate as measure

    examples = {name: read_file(path) for name, path in tests.items()}
    checkpoint = maskhub.open_checkpoint(base)
    rows = []
    for expression in ("start", *EXPRESSIONS):
        row: dict[str, str | float] = {"masks": expression}
        for head, test in TESTS:
            used = set(re.findall("[a-z]+", expression)) & masksets.keys()
            chosen = {name: masksets[name] for name in MASKS if name in used | {head}}
            if expression == "start":
                composed = dataclasses.replace(masksets[head], masks=initial(masksets[head]))
            else:
                composed = maskhub.compose(expression, chosen, head_from=head)
            weights = sum(mask.size for mask in composed.masks.values())
            row.setdefault("kept", sum(mask.kept for mask in composed.masks.values()) / weights)
            row[f"{head} head, {test}"] = measure(checkpoint, composed, examples[test])[0]["accuracy"]
        print(json.dumps(row), flush=True)
        rows.append(row)
    report.table("accuracy", "Accuracy on held-out examples: a head, and the set it reads", rows)


if __name__ == "__main__":
    main()
