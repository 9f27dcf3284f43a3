"""``nm`` on random 2:4 masks, and ``gaps`` on one large tensor: size, speed, and the memory that decoding takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from math import log2

import msgspec
import numpy as np

from benchmarks import samples
from benchmarks.report import Report, medians, peak_memory
from maskhub.container import codecs
from maskhub.masks.mask import Mask
from maskhub.masks.scores import Initial

ROWS, COLUMNS = 27_648, 3_072  # 85 M weights in one tensor
RUNS = 5


def run(report: Report) -> None:
    _two_of_four(report)
    _one_tensor(report)
    _memory(report)


def _two_of_four(report: Report) -> None:
    rng = np.random.default_rng(0)
    patterns = np.array([3, 5, 6, 9, 10, 12], np.uint8)
    nibbles = patterns[rng.integers(0, 6, ROWS * COLUMNS // 4)].reshape(-1, 2)
    mask = Mask((ROWS, COLUMNS), nibbles[:, 0] | nibbles[:, 1] << 4)
    target = samples.target(mask)
    codec, payload = codecs.encode(mask, "nm", target)
    data = np.frombuffer(payload, np.uint8)
    seconds = medians(
        {"encode": lambda: codecs.encode(mask, "nm", target), "decode": lambda: codec.decode(data, target)}, RUNS
    )
    bits, bound = 8 * len(payload) / mask.size, log2(6) / 4
    row = {"codec": "nm", "bits a weight": bits, "bound": bound, "over the bound": bits / bound, **seconds}
    report.table("nm", "A random 2:4 mask of 85 M weights, one tensor, one thread", [row])
    report.check("nm on random 2:4, bits a weight", bits, at_most=0.650)
    report.check("nm: decode 85 M weights, seconds", seconds["decode"], at_most=0.3)


def _one_tensor(report: Report) -> None:
    rows = []
    for sparsity in (0.01, 0.03, 0.05, 0.10):
        mask = _random(sparsity)
        target = samples.target(mask)
        codec, payload = codecs.encode(mask, "gaps", target)
        data = np.frombuffer(payload, np.uint8)
        seconds = medians(
            {
                "encode": lambda mask=mask, target=target: codecs.encode(mask, "gaps", target),  # type: ignore[misc]
                "decode": lambda codec=codec, data=data, target=target: codec.decode(data, target),  # type: ignore[misc]
            },
            RUNS,
        )
        bits, bound = 8 * len(payload) / mask.size, samples.shannon({"": mask})
        rows.append({"dropped": f"{sparsity:.0%}", "bits a weight": bits, "over the bound": bits / bound, **seconds})
        report.check(f"gaps, one tensor, {sparsity:.0%} dropped: over the Shannon bound", bits / bound, at_most=1.005)
    report.table("gaps", "gaps on one tensor of 85 M weights, one thread", rows)


def _memory(report: Report) -> None:
    initial = Initial(seed=0, cut=3641, low=-0.02, high=0.58)
    rows = []
    for name, mask in (("gaps", _random(0.05)), ("drift", samples.drifted({"": (ROWS, COLUMNS)}, initial)[""])):
        codec, payload = codecs.encode(mask, name, samples.target(mask, initial))
        with tempfile.NamedTemporaryFile() as file:
            file.write(payload)
            file.flush()
            what = json.dumps(
                {"codec": codecs.to_dict(codec), "kept": mask.kept, "initial": msgspec.to_builtins(initial)}
            )
            command = [sys.executable, "-m", "benchmarks.patterns", file.name, what]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        allowed = (mask.size / 8 + 4 * (mask.size - mask.kept)) / 2**20 + 64
        rows.append({"codec": name, "peak MB": peak, "allowed MB": allowed})
        report.check(f"{name}: peak memory of decoding over what is allowed", peak / allowed, at_most=1.0)
    report.table(
        "memory",
        "Peak memory of decoding one tensor of 85 M weights, 5% dropped, MB",
        rows,
        note="Of a new process, above what it had before; allowed: the decoded bits, 4 bytes a dropped weight, 64 MB.",
    )


def _random(sparsity: float) -> Mask:
    return samples.masks({"": (ROWS, COLUMNS)}, sparsity)[""]


def measure(path: str, what: str) -> float:
    """Decode the payload in a file in this process: MB by which the peak of its memory rose."""
    told = json.loads(what)
    target = codecs.Target("", (ROWS, COLUMNS), told["kept"], msgspec.convert(told["initial"], Initial))
    payload = np.fromfile(path, np.uint8)
    before = peak_memory()
    codecs.from_dict(told["codec"]).decode(payload, target)
    return peak_memory() - before


if __name__ == "__main__":
    print(measure(*sys.argv[1:]))
