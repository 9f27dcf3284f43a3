"""A training step of masking beside one of full finetuning: seconds and peak memory, same model and batches.

Each way runs in new processes that take turns. Masking is MaskHub's own, by Adam on the scores: by itself, with
L2-SP, with L2-SP and a margin, and after a selection of flips; finetuning is AdamW on every parameter, in the same
plain loop. Memory is what training takes above the base model: the process's peak, less its peak when the model was
made and had run once, without gradients.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import Report, forget_peak, peak_memory

ROUNDS = 3
STEPS = 12
WARMUP = 3  # steps not counted
BATCH, LENGTH = 32, 32
SELECTED = "masking, after a selection"  # of the flips that a few steps made
METHODS: dict[str, dict[str, Any]] = {
    "masking": {},
    "masking, L2-SP": {"l2_sp": 0.01},
    "masking, margin": {"l2_sp": 0.01, "score_margin": 0.1},
    "masking, after a selection": {"l2_sp": 0.01, "keep_flips": 0.3, "selection_rounds": 1},
}
WAYS = (*METHODS, "finetuning")


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
            "then over processes; memory above the base model's own, at its peak.",
        )
        whole = medians["finetuning"]
        for way in METHODS:
            numbers = medians[way]
            report.check(f"{model}: seconds, {way} over finetuning", numbers["seconds"] / whole["seconds"], at_most=1.0)
            limit = 0.45 if way == SELECTED else 0.6 if "score_margin" in METHODS[way] else 1.0
            report.check(f"{model}: memory, {way} over finetuning", numbers["MB"] / whole["MB"], at_most=limit)
    seconds = initialise()
    report.check("seconds to initialise the scores of 85 M weights", seconds, at_most=1.0)


def initialise() -> float:
    """Make the initial scores of BERT-base's layers, in this process; the best of three."""
    from maskhub.masks.scores import UniformScores

    scores = UniformScores.for_sparsity(0.05, 1e-2, 0)
    shapes = [(768, 768)] * 48 + [(3072, 768)] * 24
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        for i, shape in enumerate(shapes):
            scores.scores(str(i), shape)
        taken.append(time.perf_counter() - start)
    return min(taken)


def measure(way: str, model_name: str) -> dict[str, float]:
    """Train a few steps one way in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from maskhub.training.attach import attach
    from maskhub.training.layers import maskable, select
    from maskhub.training.masking import add_scores
    from maskhub.training.settings import method_from

    sizes = {
        "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        "bert-base": {},
    }
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes[model_name])).train()
    ids = torch.randint(1000, 20000, (BATCH, LENGTH))
    labels = torch.randint(0, 2, (BATCH,))
    with torch.no_grad():
        model(input_ids=ids[:1], labels=labels[:1])
    before = peak_memory()
    if way in METHODS:
        method = method_from(**{"l2_sp": 0.0, **METHODS[way]})
        weights = maskable(model, {name for name, _ in model.named_parameters()})
        add_scores(model, {name: name for name in select(weights, method)}, method)
        optimizer: torch.optim.Optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
        attach(model, optimizer, STEPS if way == SELECTED else None)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), 5e-5)
    seconds = []
    if way == SELECTED:  # half of its steps are before, as settings have it
        for _ in range(STEPS // 2):
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        forget_peak()
    for _ in range(STEPS):
        start = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[WARMUP:]), "MB": peak_memory() - before}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
