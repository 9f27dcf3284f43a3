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

from benchmarks.report import Report
from maskhub.container.reader import MaskFile
from maskhub.runtime.quiet import quiet_transformers

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
    report.table(
        "sizes",
        "One task on MiniLM-L6, bytes",
        [{"what": what, "bytes": size, "of the .msk": size / whole} for what, size in sizes.items()],
        note=f"The demo's mask: {sum(m.size for m in masks.values()):,} weights. Others' mask files hold no head.",
    )
