"""Masks learned on a model that FSDP shards over two processes are those of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from maskhub.container.reader import open_mask
from tests import tiny

pytestmark = pytest.mark.slow

SCRIPT = """
import pathlib
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSequenceClassification
import maskhub.training
from maskhub.errors import TrainingError

METHODS = {
    "default": {},
    "paper": {"recipe": "paper"},
    "sign": {"binarizer": "sign", "l2_sp": 0.02, "classifier": "dense"},
    "topk": {"binarizer": "topk", "topk_scope": "global", "final_sparsity": 0.3},
    "nm": {"binarizer": "nm", "score_init": "magnitude"},
    "penalty": {"final_sparsity": 0.2, "sparsity_penalty": 2.0, "l2_sp": 0.01},
}

def learn(shard, method):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
    maskhub.training.mask_model(model, **method)
    if shard:
        mesh = init_device_mesh("cpu", (2,))
        for layer in model.bert.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    maskhub.training.attach(model, optimizer, steps=5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        ids = torch.randint(5, 50, (8, 12), generator=generator)
        labels = torch.randint(0, 2, (8,), generator=generator)
        if shard:
            ids, labels = ids[dist.get_rank() :: 2], labels[dist.get_rank() :: 2]
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model

dist.init_process_group("gloo")
for name, method in METHODS.items():
    for shard in (False, True):
        how = "sharded" if shard else "whole"
        maskhub.training.pack(learn(shard, method), f"{sys.argv[2]}/{name}-{how}-{dist.get_rank()}.msk")
for name, method in {"margin": {"score_margin": 0.2}, "selection": {"keep_flips": 0.5}}.items():
    try:
        learn(True, method)
    except TrainingError as error:
        pathlib.Path(f"{sys.argv[2]}/refused-{name}-{dist.get_rank()}").write_text(str(error))
dist.destroy_process_group()
"""


def test_sharded_in_two(tmp_path: Path) -> None:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.1, **still)
    (tmp_path / "learn.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "learn.py"), str(base), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    message = "scores of some weights alone cannot be learned on a model that FSDP shards. Leave"
    for number in (0, 1):
        assert (tmp_path / f"refused-margin-{number}").read_text() == f"{message} score_margin out."
        refusal = (tmp_path / f"refused-selection-{number}").read_text()
        assert refusal == f"{message} a selection (keep_flips=1 is none) out."
    whole = sorted(tmp_path.glob("*-whole-0.msk"))
    assert len(whole) == 6
    for path in whole:
        mask = open_mask(path)
        for number in (0, 1):
            sharded = open_mask(tmp_path / path.name.replace("whole-0", f"sharded-{number}"))
            assert sharded.masks == mask.masks, path.name
