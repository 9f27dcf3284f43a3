"""What has to be shipped for one trained task, in bytes: the demo's mask as MaskHub and as others would store it.

Needs the output of ``make demo`` in ``demo-output/``.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
import zstandard
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import AutoModelForSequenceClassification

from benchmarks import samples
from benchmarks.report import Report
from maskhub.container.reader import MaskFile, open_mask
from maskhub.runtime.quiet import quiet_transformers
from tests.storage.rangeserver import RangeServer

DEMO = Path("demo-output")


def run(report: Report) -> None:
    if not (DEMO / "spam.msk").is_file():
        report.console.print("sizes: left out; run `make demo` first")
        return
    file = MaskFile(DEMO / "spam.msk")
    masks = {name: file.mask(name) for name in file.manifest.masks}
    flags = {name: mask.to_bool() for name, mask in masks.items()}
    packed = {name: mask.bits for name, mask in masks.items()}
    dense = sum(f.stat().st_size for f in (DEMO / "dense").glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(flags, folder / "bool.safetensors")
        np.savez_compressed(folder / "packed.npz", allow_pickle=False, **packed)
        torch.save({n: torch.from_numpy(f) for n, f in flags.items()}, folder / "bool.pt")
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(DEMO / "dense")
        config = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
        get_peft_model(model, config).save_pretrained(folder / "lora")
        joined = io.BytesIO()
        for bits in packed.values():
            joined.write(bits.data)
        sizes = {
            "full copy, dense checkpoint": dense,
            "boolean tensors, safetensors": (folder / "bool.safetensors").stat().st_size,
            "boolean tensors, torch.save": (folder / "bool.pt").stat().st_size,
            "packed bits, one bit a weight (the paper)": len(joined.getvalue()),
            "packed bits, numpy.savez_compressed (MaskLLM's way)": (folder / "packed.npz").stat().st_size,
            "packed bits, zstd -19": len(zstandard.ZstdCompressor(level=19).compress(joined.getvalue())),
            "LoRA adapter of PEFT, r = 8 on query and value": (folder / "lora/adapter_model.safetensors")
            .stat()
            .st_size,
            ".msk, with head, base digests and lineage": file.file_size,
        }
    whole = sizes[".msk, with head, base digests and lineage"]
    _parts(report, file)
    _remote(report, DEMO / "spam.msk")
    report.table(
        "sizes",
        "One task on MiniLM-L6, bytes",
        [{"what": what, "bytes": size, "of the .msk": size / whole} for what, size in sizes.items()],
        note=f"The demo's mask: {sum(m.size for m in masks.values()):,} weights. Others' mask files hold no head.",
    )


def _parts(report: Report, file: MaskFile) -> None:
    """Where the bytes of the file are, and what the masks would take for an ideal code."""
    sizes = dict.fromkeys(("header and manifest", "masks", "dense"), 0)
    sizes["masks"] = sum(entry.bytes for entry in file.manifest.masks.values())
    sizes["dense"] = sum(file.dense(name).nbytes for name in file.manifest.dense)
    sizes["header and manifest"] = file.file_size - sizes["masks"] - sizes["dense"]
    assert file.manifest.initial is not None
    entropy = samples.drift_entropy(file.maskset().masks, file.manifest.initial)
    report.table(
        "parts",
        f"Where its {file.file_size:,} bytes are",
        [{"part": part, "bytes": size, "share": size / file.file_size} for part, size in sizes.items()],
        note=f"The masks' entropy, given each weight's distance from the cut: {entropy:,.0f} bytes.",
    )
    report.check("the demo's mask, bytes", file.file_size, at_most=93_000)
    report.check("its header and manifest, bytes", sizes["header and manifest"], at_most=4_800)
    report.check("its masks over their entropy given the distance", sizes["masks"] / entropy, at_most=1.03)


def _remote(report: Report, path: Path) -> None:
    """What others must fetch, over HTTP from this machine; of the Hub it is one request more, for the revision."""
    with RangeServer() as server:
        server.files["spam.msk"] = path.read_bytes()
        rows = []
        for what, whole in (("info", False), ("all of it", True)):
            server.requests.clear()
            open_mask(server.url("spam.msk"), whole=whole).summary()
            rows.append({"what": what, "requests": len(server.requests), "bytes": server.given})
    report.table("remote", "What is fetched of a mask elsewhere", rows)
    report.check("requests of a remote info", rows[0]["requests"], at_most=1)
    report.check("bytes of a remote info", rows[0]["bytes"], at_most=16_384)
    report.check("requests of all of it", rows[1]["requests"], at_most=1)
