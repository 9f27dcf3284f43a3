"""What it costs that outputs outlast a power cut: with syncing and without, beside copying and syncing the base's file.

The base has random weights in BERT-base's shape, F32, in the folder for temporary files (TMPDIR): there must be a disk
behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

import maskhub
from benchmarks import samples
from benchmarks.report import Report
from maskhub.checkpoints.apply import build
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import MaskSet
from maskhub.storage.safetensors import write_tensors
from maskhub.storage.tensor import RawTensor

RUNS = 9
SHAPES = {"embeddings.word_embeddings.weight": (30_522, 768)} | samples.encoder(12, 768)


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _base(folder / "base")
        found = digests(checkpoint)
        binding = BaseBinding.of("bert", found, {name: name for name in found}, None)
        maskset = MaskSet(binding, samples.masks(samples.encoder(12, 768), 0.05))
        mask = folder / "task.msk"
        maskhub.save(maskset, mask)
        opened, out = maskhub.open(mask), folder / "out"
        out.mkdir()
        ways: dict[str, Callable[[], object]] = {
            "copy the base's file": lambda: shutil.copyfile(checkpoint.shards[0].path, out / "copy"),
            "apply": lambda: build(checkpoint, [(opened, out / "dense")]),
            "pack": lambda: maskhub.save(opened, out / "packed.msk"),
            "push to a folder": lambda: maskhub.push(mask, str(out), name="task"),
        }
        seconds: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
        for _ in range(RUNS + 1):  # the first brings everything into the page cache
            for way, function in ways.items():
                for synced in (False, True):
                    seconds[way][synced].append(_timed(function, out, synced))
        rows = []
        for way, (without, with_) in seconds.items():
            plain, durable = statistics.median(without[1:]), statistics.median(with_[1:])
            rows.append({"what": way, "seconds": durable, "not synced": plain, "times": durable / plain})
        report.table(
            "durability",
            f"What syncing costs, base of {checkpoint.size:,} bytes, mask of {mask.stat().st_size:,}",
            rows,
            note=f"Median of {RUNS} runs that take turns; the copy is synced, and its folder, as apply's files are.",
        )
        report.check("durability: apply over copying and syncing", rows[1]["seconds"] / rows[0]["seconds"], at_most=1.6)


def _timed(function: Callable[[], object], out: Path, synced: bool) -> float:
    """Seconds, when patches else waits for the disk; what was written is gone again."""
    os.sync()
    patches = contextlib.ExitStack()
    if not synced:
        patches.enter_context(mock.patch("os.fsync", return_value=None))
        patches.enter_context(mock.patch("maskhub.storage.atomic._sync_file_range", return_value=None))
    with patches:
        start = time.perf_counter()
        function()
        for path in (out / "copy", out):
            if (out / "copy").exists():
                handle = os.open(path, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
        taken = time.perf_counter() - start
    shutil.rmtree(out)
    out.mkdir()
    return taken


def _base(folder: Path) -> Checkpoint:
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        tensors = {name: RawTensor.from_numpy(rng.random(shape, np.float32)) for name, shape in SHAPES.items()}
        write_tensors(file, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    return maskhub.open_checkpoint(folder)
