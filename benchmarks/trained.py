"""``drift`` on masks that training made, and how fast it is on 85 M weights.

``benchmarks/masks/`` holds trained masks of MiniLM-L6; its README says how each was made.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import samples
from benchmarks.report import Report, medians
from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.masks.mask import Mask
from maskhub.masks.scores import Initial
from maskhub.storage.work import workers

MASKS = Path(__file__).parent / "masks"
NAMES = ("bits", "zstd", "gaps", "drift")
RUNS = 5


def run(report: Report) -> None:
    _sizes(report)
    _speed(report)


def _sizes(report: Report) -> None:
    rows = []
    for path in sorted(MASKS.glob("*.msk")):
        file = MaskFile(path)
        masks = {name: Mask(m.shape, m.bits) for name, m in file.maskset().masks.items()}
        weights = sum(mask.size for mask in masks.values())
        bound = samples.shannon(masks)
        sizes = {
            codec: sum(
                len(codecs.encode(m, codec, samples.target(m, file.manifest.initial, n))[1]) for n, m in masks.items()
            )
            for codec in NAMES
        }
        bits = {codec: 8 * size / weights for codec, size in sizes.items()}
        assert file.manifest.initial is not None
        known = 8 * samples.drift_entropy(masks, file.manifest.initial) / weights
        rows.append(
            {
                "task": path.stem,
                "weights": weights,
                "accuracy": file.manifest.metrics["accuracy"],
                "file bytes": file.file_size,
                "entropy": bound,
                **{f"{codec}, bits": value for codec, value in bits.items()},
                "drift over entropy": bits["drift"] / bound,
                "entropy given the distance": known,
                "drift over that": bits["drift"] / known,
            }
        )
        report.check(f"{path.stem}: drift over the entropy given the distance", bits["drift"] / known, at_most=1.03)
        report.check(f"{path.stem}: drift over the zeroth-order entropy", bits["drift"] / bound, at_most=0.40)
        report.check(f"{path.stem}: drift, bits a weight", bits["drift"], at_most=0.12)
    report.table("sizes", "Trained masks of MiniLM-L6, bits a masked weight", rows)


def _speed(report: Report) -> None:
    initial = Initial(seed=0, cut=3641, low=-0.02, high=0.58)
    masks = samples.drifted(samples.encoder(12, 768), initial)
    targets = {name: samples.target(mask, initial, name) for name, mask in masks.items()}
    rows = []
    with ThreadPoolExecutor(workers()) as pool:
        for name in ("gaps", "drift"):

            def encode(tensor: str, name: str = name) -> tuple[codecs.Codec, bytes]:
                return codecs.encode(masks[tensor], name, targets[tensor])

            coded = {tensor: encode(tensor) for tensor in masks}

            def decode(tensor: str, coded: dict[str, tuple[codecs.Codec, bytes]] = coded) -> object:
                codec, payload = coded[tensor]
                return codec.decode(np.frombuffer(payload, np.uint8), targets[tensor])

            seconds = medians(
                {
                    "encode": lambda encode=encode: list(pool.map(encode, masks)),  # type: ignore[misc]
                    "decode": lambda decode=decode: list(pool.map(decode, masks)),  # type: ignore[misc]
                },
                RUNS,
            )
            size = sum(len(payload) for _, payload in coded.values())
            weights = sum(mask.size for mask in masks.values())
            rows.append({"codec": name, "bits a weight": 8 * size / weights, **seconds})
            limits = {"gaps": (0.12, 0.03), "drift": (1.2, 0.8)}[name]
            for what, limit in zip(("encode", "decode"), limits, strict=True):
                report.check(f"{name}: {what} 85 M weights, seconds", seconds[what], at_most=limit)
    report.table(
        "speed",
        "85 M weights in 72 tensors that drifted from 5% dropped, seconds",
        rows,
        note=f"In memory, two threads where there are two cores; median of {RUNS} runs.",
    )
