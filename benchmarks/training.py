"""A training step of masking beside one of full finetuning: seconds and peak memory, same model and batches.

Both run in new processes that take turns. Masking is MaskHub's own (``mask_model``, Adam on the scores), finetuning is
AdamW on every parameter, in the same plain loop.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks.report import Report, peak_memory

ROUNDS = 3
STEPS = 12
WARMUP = 3  # steps not counted
BATCH, LENGTH = 32, 32
WAYS = ("masking", "finetuning")


def run(report: Report) -> None:
    for model in ("minilm", "bert-base"):
        measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS if model == "minilm" else 1):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.training", way, model]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                measured[way].append(json.loads(output.splitlines()[-1]))
        medians = {
            way: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for way, runs in measured.items()
        }
        report.table(
            model,
            f"A training step, {model}",
            [{"way": way, **numbers} for way, numbers in medians.items()],
            note=f"Batch {BATCH} of {LENGTH} tokens, fp32, CPU; median of {STEPS - WARMUP} steps in each process, "
            "then over processes; memory is the process's peak.",
        )
        ratio = {key: medians["masking"][key] / medians["finetuning"][key] for key in medians["masking"]}
        report.check(f"{model}: seconds of a masking step over finetuning", ratio["seconds"], at_most=1.0)
        report.check(f"{model}: peak memory of masking over finetuning", ratio["peak MB"], at_most=1.0)


def measure(way: str, model_name: str) -> dict[str, float]:
    """Train a few steps one way in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from maskhub.scores import UniformScores
    from maskhub.train.layers import maskable, select
    from maskhub.train.masking import mask_model

    sizes = {
        "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        "bert-base": {},
    }
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes[model_name])).train()
    if way == "masking":
        weights = maskable(model, {name for name, _ in model.named_parameters()})
        names = {name: name for name in select(weights, "default")}
        mask_model(model, names, UniformScores.for_sparsity(0.05, 1e-2, 0), 1e-2)
        optimizer: torch.optim.Optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), 5e-5)
    ids = torch.randint(1000, 20000, (BATCH, LENGTH))
    labels = torch.randint(0, 2, (BATCH,))
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[WARMUP:]), "peak MB": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
