from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from safetensors.numpy import load_file
from torch import nn

from maskhub.training.masking import add_scores, scores_of
from maskhub.training.trainer import load_weights, save_weights
from tests.toy import paper

HEAD = frozenset({"1.weight", "1.bias"})


def model(names: dict[str, str]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    add_scores(model, names, paper())
    return model


@pytest.mark.parametrize("names", [{"0.weight": "w"}, {"0.weight": "w", "1.weight": "head"}])
def test_scores_and_head_come_back(tmp_path: Path, names: dict[str, str]) -> None:
    """Of a head that is masked as well: its own weight, not the masked one, and its scores."""
    first = model(names)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    save_weights(first, HEAD, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head.safetensors", "scores.safetensors"]
    assert set(load_file(tmp_path / "scores.safetensors")) == set(names)
    head = load_file(tmp_path / "head.safetensors")
    assert set(head) == HEAD
    plain = first[1].parametrizations.weight.original if len(names) == 2 else first[1].weight
    assert np.array_equal(head["1.weight"], plain.detach().numpy())

    second = model(names)
    with torch.no_grad():
        for tensor in (*scores_of(second).values(), second[1].bias):
            tensor.fill_(7)
    load_weights(second, HEAD, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state_dict().items())
