"""Masks compared and combined: on packed bits in memory, beside boolean arrays, and from files, with their memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import maskhub
from benchmarks import samples
from benchmarks.report import Report, medians, peak_memory
from maskhub.masks.binding import BaseBinding
from maskhub.masks.compare import diff, matrix
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.work import workers

LAYERS, HIDDEN = 12, 768  # BERT-base's encoder: 85 M weights in 72 tensors
RUNS = 11
MANY, EACH = 100, (10, 1_000_000)  # masks of a matrix; tensors and weights a tensor of each
FEW_TENSORS, MANY_TENSORS, TENSOR = 32, 256, (1024, 2304)

# A program that starts as ``maskhub`` does, and only decodes.
DECODE = """
import sys
from maskhub_cli.main import main
from benchmarks.algebra import decode
decode(sys.argv[1:])
"""


def run(report: Report) -> None:
    _in_memory(report)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _files(report, folder)
        _matrix(report, folder)
        _peak(report, folder)


def _sets(count: int, sparsity: float = 0.05) -> dict[str, MaskSet]:
    """Mask sets with random masks, each its own."""
    made = {}
    first = samples.maskset(LAYERS, HIDDEN, sparsity)
    for i in range(count):
        rng = np.random.default_rng(i)
        shift = {name: Mask(m.shape, rng.permutation(m.bits)) for name, m in first.masks.items()}
        made[f"m{i}"] = dataclasses.replace(first, masks=shift)
    return made


def _in_memory(report: Report) -> None:
    sets = _sets(8)
    a, b = sets["m0"], sets["m1"]
    for maskset in sets.values():
        _ = maskset.id  # the lineage of what is composed names it; files have it in their manifests
    flags = {name: [s[name].to_bool() for s in (a, b)] for name in a.masks}

    def booleans() -> None:
        for x, y in flags.values():
            _ = [np.count_nonzero(part) for part in (x, y, x & y)]

    def counts() -> None:
        masks = ({name: Mask(m.shape, m.bits) for name, m in s.masks.items()} for s in (a, b))  # nothing known of them
        one, two = (dataclasses.replace(a, masks=m) for m in masks)
        diff(one, two)

    def composed(expression: str, **options: int) -> Callable[[], object]:
        parts = sets if expression == "vote" else {"m0": a, "m1": b}

        def evaluate() -> None:
            for mask in maskhub.compose(expression, parts, **options).masks.values():  # type: ignore[arg-type]
                _ = mask.bits

        return evaluate

    ways: dict[str, Callable[[], object]] = {
        "diff: all counts": counts,
        "the same counts of boolean arrays": booleans,
        "and": composed("and"),
        "or": composed("or"),
        "xor": composed("xor"),
        "minus": composed("minus"),
        "and, of boolean arrays": lambda: [x & y for x, y in flags.values()],
        "vote, 2 of 8": composed("vote", min=2),
        "vote, 5 of 8": composed("vote", min=5),
        "vote, 8 of 8": composed("vote", min=8),
    }
    seconds = medians(ways, RUNS)
    weights = sum(mask.size for mask in a.masks.values())
    report.table(
        "memory",
        f"Two masks (votes: eight) of {weights:,} weights in {len(a.masks)} tensors, packed bits in memory",
        [{"what": way, "ms": 1000 * taken} for way, taken in seconds.items()],
        note=f"Median of {RUNS} runs that take turns. Nothing is counted or hashed beforehand for the diff; the ids of "
        "the masks that are composed, which the lineage names, are.",
    )
    report.check("diff of 85 M weights, ms", 1000 * seconds["diff: all counts"], at_most=30)
    for way in ("and", "or", "xor"):
        report.check(f"{way} of 85 M weights, ms", 1000 * seconds[way], at_most=10)
    slowest = max(taken for way, taken in seconds.items() if way.startswith("vote"))
    report.check("vote of 8 masks of 85 M weights, ms", 1000 * slowest, at_most=150)


def _files(report: Report, folder: Path) -> None:
    paths = [folder / "a.msk", folder / "b.msk"]
    for path, maskset in zip(paths, _sets(2).values(), strict=True):
        maskhub.save(maskset, path, codec="gaps")

    def process(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments, *map(str, paths)], check=True, capture_output=True)

    ways: dict[str, Callable[[], object]] = {
        "decoding both, a new process": process("-c", DECODE),
        "maskhub diff, a new process": process("-m", "maskhub_cli", "diff", "-q"),
        "decoding both": lambda: decode(paths),
        "maskhub.diff": lambda: diff(maskhub.open(paths[0]), maskhub.open(paths[1])),
    }
    seconds = medians(ways, RUNS)
    report.table(
        "files",
        "Two packed files (gaps) of 85 M weights",
        [{"what": way, "seconds": taken} for way, taken in seconds.items()],
        note=f"Median of {RUNS} runs that take turns; decoding in as many threads as there are cores, digests checked.",
    )
    process_ratio = seconds["maskhub diff, a new process"] / seconds["decoding both, a new process"]
    report.check("maskhub diff of two files over decoding them", process_ratio, at_most=2)
    ratio = seconds["maskhub.diff"] / seconds["decoding both"]
    report.check("maskhub.diff of two files over decoding them", ratio, at_most=2)


def decode(paths: Sequence[str | Path]) -> None:
    """Decode all masks of files, in as many threads as there are cores."""
    masks = [mask for path in paths for mask in maskhub.open(path).masks.values()]
    with ThreadPoolExecutor(workers()) as pool:
        for _ in pool.map(lambda mask: mask.bits, masks):
            pass


def _matrix(report: Report, folder: Path) -> None:
    tensors, size = EACH
    names = [f"layer.{i}.weight" for i in range(tensors)]
    base = BaseBinding.of("x", dict.fromkeys(names, "0" * 64), {name: name for name in names}, None)
    rng = np.random.default_rng(0)
    (folder / "many").mkdir()
    for i in range(MANY):
        masks = {name: Mask.from_bool(rng.random(size, np.float32) >= 0.05) for name in names}
        maskhub.save(MaskSet(base, masks), folder / "many" / f"{i:03d}.msk", codec="gaps")
    seconds, peak = _measured("matrix", str(folder / "many"))
    report.table(
        "matrix",
        f"Every pair of {MANY} packed files of {tensors * size:,} weights",
        [{"pairs": MANY * (MANY - 1) // 2, "seconds": seconds, "peak MB": peak}],
        note="One run in a new process, from opening the files on; peak memory of the process.",
    )
    report.check("matrix of 100 masks of 10 M weights, seconds", seconds, at_most=20)
    report.check("matrix of 100 masks of 10 M weights, peak MB", peak, at_most=1000)


def _peak(report: Report, folder: Path) -> None:
    rows = []
    for count in (FEW_TENSORS, MANY_TENSORS):
        names = [f"layer.{i}.weight" for i in range(count)]
        base = BaseBinding.of("x", dict.fromkeys(names, "0" * 64), {name: name for name in names}, None)
        place = folder / str(count)
        place.mkdir()
        for i, called in enumerate("abc"):
            mask = Mask.from_bool(np.random.default_rng(i).random(TENSOR, np.float32) >= 0.05)
            maskhub.save(MaskSet(base, dict.fromkeys(names, mask)), place / f"{called}.msk", codec="gaps")
        seconds, peak = _measured("compose", str(place))
        packed = 4 * count * TENSOR[0] * TENSOR[1] / 8 / 2**20  # three masks and what they give
        rows.append({"tensors": count, "packed bits, MB": packed, "seconds": seconds, "peak MB": peak})
    report.table(
        "compose",
        f"compose (a & b) | ~c of files, tensors of {TENSOR[0] * TENSOR[1]:,} weights",
        rows,
        note="One run each in a new process; packed bits are those of the three masks and the result.",
    )
    grown = (rows[1]["peak MB"] - rows[0]["peak MB"]) / (rows[1]["packed bits, MB"] - rows[0]["packed bits, MB"])
    report.check("compose: growth of peak memory, of what more tensors hold in packed bits", grown, at_most=0.05)


def _measured(what: str, argument: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.algebra", what, argument]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


if __name__ == "__main__":
    start = time.perf_counter()
    opened = {f"m{path.stem}": maskhub.open(path) for path in sorted(Path(sys.argv[2]).glob("*.msk"))}
    if sys.argv[1] == "matrix":
        matrix(opened)
    else:
        maskhub.save(
            maskhub.compose("(ma & mb) | ~mc", opened), Path(sys.argv[2]) / "out.msk", codec="gaps", force=True
        )
    print(time.perf_counter() - start, peak_memory())
