"""Dense builds and verification, beside copying and syncing the base's files and the way through transformers.

Also the memory that they take.

The bases are made of random weights in a temporary folder: BERT-base's shape in F32, one file; and a Llama-like one of
3 B parameters in BF16, in shards (``python -m benchmarks dense`` needs 25 GB of disk for it; without, it is left out).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import maskhub
from benchmarks.report import Report, peak_memory
from maskhub.checkpoints.apply import build, verify_base
from maskhub.checkpoints.scan import digests
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.safetensors import write_header
from maskhub.storage.tensor import Spec

RUNS = 5
Specs = dict[str, tuple[str, tuple[int, ...]]]

BERT = """
import sys, torch
from transformers import AutoModel
base, mask, out = sys.argv[1:]
import maskhub
maskset = maskhub.open(mask)
model = AutoModel.from_pretrained(base)
with torch.no_grad():
    for name, tensor in model.state_dict().items():
        if name in maskset.masks:
            tensor *= torch.from_numpy(maskset.masks[name].to_bool())
model.save_pretrained(out)
"""

PEFT = """
import sys
from peft import LoraConfig, get_peft_model
from transformers import AutoModel
base, out = sys.argv[1:]
model = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(r=8, target_modules=["query", "value"]))
model.merge_and_unload().save_pretrained(out)
"""


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _bert(report, folder)
        if shutil.disk_usage(folder).free > 25e9:
            _llama(report, folder)
        else:
            report.console.print("dense: the 3 B parameters are left out; they need 25 GB of disk")


def _bert(report: Report, folder: Path) -> None:
    from transformers import BertConfig, BertModel

    base = folder / "bert"
    BertModel(BertConfig()).save_pretrained(base)
    seconds = _measure(report, "bert", "BERT-base's shape, F32", base, folder)
    for way, code, arguments in (
        ("from_pretrained, multiply, save_pretrained", BERT, [str(base), str(folder / "bert.msk")]),
        ("PEFT: merge_and_unload, save_pretrained", PEFT, [str(base)]),
    ):
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, *arguments, str(folder / "other")], check=True)
            taken.append(time.perf_counter() - start)
            shutil.rmtree(folder / "other")
        whole = _program(base, [folder / "bert.msk"], folder)
        report.check(f"bert: {way}, times slower", statistics.median(taken) / whole, at_least=8 if code == BERT else 1)
    report.check("bert: apply over copying and syncing", seconds["apply"] / seconds["copy"], at_most=1.6)


def _llama(report: Report, folder: Path) -> None:
    base = folder / "llama"
    base.mkdir()
    specs: Specs = {"model.embed_tokens.weight": Spec("BF16", (128_256, 3072))}
    for i in range(26):
        for part, shape in (
            ("self_attn.q_proj", (3072, 3072)), ("self_attn.k_proj", (1024, 3072)), ("self_attn.v_proj", (1024, 3072)),
            ("self_attn.o_proj", (3072, 3072)), ("mlp.gate_proj", (8192, 3072)), ("mlp.up_proj", (8192, 3072)),
            ("mlp.down_proj", (3072, 8192)),
        ):  # fmt: skip
            specs[f"model.layers.{i}.{part}.weight"] = Spec("BF16", shape)
    names = list(specs)
    parts = [names[:60], names[60:120], names[120:]]
    noise = np.random.default_rng(0).integers(0, 256, 1 << 26, np.uint8)
    weight_map = {}
    for i, part in enumerate(parts, 1):
        filename = f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        with (base / filename).open("wb") as file:
            own = {name: specs[name] for name in part}
            for name in write_header(file, own, {"format": "pt"}):
                left = specs[name].nbytes
                while left:
                    left -= file.write(noise[: min(left, noise.size)].data)
                weight_map[name] = filename
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaModel"]}))
    seconds = _measure(report, "llama", "a Llama-like shape of 3 B parameters, BF16, 3 shards", base, folder, runs=3)
    report.check("llama: apply over copying and syncing", seconds["apply"] / seconds["copy"], at_most=1.6)


def _measure(report: Report, key: str, what: str, base: Path, folder: Path, runs: int = RUNS) -> dict[str, float]:
    checkpoint = maskhub.open_checkpoint(base)
    found = digests(checkpoint)
    binding = BaseBinding.of(key, found, {name: name for name in found}, None)
    sets = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        masks = {
            name: Mask.from_bool(rng.random(checkpoint.info(name).shape, np.float32) >= 0.05)
            for name in checkpoint
            if len(checkpoint.info(name).shape) == 2 and "layer" in name
        }
        sets.append(folder / f"{key}{'' if seed == 0 else seed}.msk")
        maskhub.save(MaskSet(binding, masks), sets[-1], codec="gaps")
        if key == "llama":
            break
    opened = [maskhub.open(path) for path in sets]

    def copy() -> None:
        for shard in base.glob("*.safetensors"):
            shutil.copyfile(shard, folder / f"copy-{shard.name}")
        for path in folder.glob("copy-*"):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def clean() -> None:
        for path in folder.glob("copy-*"):
            path.unlink()
        for path in folder.glob("out*"):
            shutil.rmtree(path)

    def built(count: int) -> Any:
        return lambda: build(checkpoint, [(opened[i], folder / f"out{i}") for i in range(count)])

    ways: dict[str, Any] = {"copy": copy, "apply": built(1)}
    if len(sets) == 3:
        ways["apply, three masks"] = built(3)
    ways["verify_base"] = lambda: verify_base(checkpoint, opened[0])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs + 1):  # the first brings everything into the page cache
        for way, function in ways.items():
            start = time.perf_counter()
            function()
            seconds[way].append(time.perf_counter() - start)
            clean()
    middle = {way: statistics.median(values[1:]) for way, values in seconds.items()}
    size = checkpoint.size
    report.table(
        key,
        f"Dense builds, {what}, {size:,} bytes",
        [{"what": w, "seconds": s, "GB/s": size / s / 1e9, "x copy": s / middle["copy"]} for w, s in middle.items()],
        note=f"Median of {runs} runs that take turns, the base in the page cache; apply verifies it; all is synced.",
    )
    report.check(f"{key}: verify, GB/s", size / middle["verify_base"] / 1e9, at_least=3)
    if "apply, three masks" in middle:
        report.check(
            f"{key}: three masks over three times one", middle["apply, three masks"] / middle["apply"] / 3, at_most=1
        )
    command = [sys.executable, "-m", "benchmarks.dense", str(base), str(sets[0]), str(folder / "out")]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    clean()
    largest = max(checkpoint.info(name).nbytes for name in checkpoint) / 2**20
    report.check(f"{key}: peak memory of apply over 250 MB and the largest tensor", peak / (250 + largest), at_most=1.0)
    return middle


def _program(base: Path, masks: list[Path], folder: Path) -> float:
    """Seconds of ``maskhub apply`` as a new process."""
    command = [sys.executable, "-m", "maskhub_cli", "apply", str(base), *map(str, masks), "-o", str(folder / "out")]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    taken = time.perf_counter() - start
    shutil.rmtree(folder / "out")
    return taken


if __name__ == "__main__":
    build(maskhub.open_checkpoint(sys.argv[1]), [(maskhub.open(sys.argv[2]), sys.argv[3])])
    print(peak_memory())
