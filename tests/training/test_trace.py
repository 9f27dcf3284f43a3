from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import AutoModelForSequenceClassification

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import TrainingError
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import to_torch
from maskhub.training.trace import trace
from tests import tiny


def traced_to(tensors: Iterable[tuple[str, torch.Tensor]], base: Checkpoint) -> dict[str, str]:
    return trace(tensors, {name: base.digest(name) for name in base}, base.name)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_task_model_of_transformers(family: str, request: pytest.FixtureRequest) -> None:
    """Biases are all zero and LayerNorms all one in a new model, so most values occur many times."""
    base = open_checkpoint(request.getfixturevalue(f"tiny_{family}"))
    model = AutoModelForSequenceClassification.from_pretrained(base.folder)
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{family}.")}
    traced = traced_to(state.items(), base)
    assert traced == {name.removeprefix(f"{family}."): name for name in state}
    assert set(base) - set(traced) == (set() if family != "roberta" else {"pooler.dense.weight", "pooler.dense.bias"})


def test_other_names_than_the_bases(base: Checkpoint) -> None:
    renamed = {f"tower.{name.replace('encoder', 'blocks')}": to_torch(base.read(name)) for name in base}
    assert traced_to(renamed.items(), base) == {name: f"tower.{name.replace('encoder', 'blocks')}" for name in base}


def write(folder: Path, tensors: dict[str, np.ndarray]) -> Checkpoint:
    raw = {name: RawTensor.from_numpy(array) for name, array in tensors.items()}
    return open_checkpoint(tiny.write_checkpoint(folder, raw))


def test_tensors_of_equal_value_are_told_apart_by_name(tmp_path: Path) -> None:
    base = write(tmp_path, {f"layer.{i}.{n}": np.zeros(3, np.float32) for i in (0, 1) for n in ("query", "key")})
    parameters = {f"bert.layer.{i}.{n}": torch.zeros(3) for i in (1, 0) for n in ("key", "query")}
    assert traced_to(parameters.items(), base) == {name.removeprefix("bert."): name for name in parameters}


def test_bits_count_not_values(tmp_path: Path) -> None:
    base = write(tmp_path, {"plus": np.zeros(2, np.float32), "minus": -np.zeros(2, np.float32)})
    assert traced_to([("a", -torch.zeros(2)), ("b", torch.zeros(2))], base) == {"minus": "a", "plus": "b"}
    nan = write(tmp_path / "nan", {"nan": np.full(2, np.nan, np.float32)})
    assert traced_to([("a", torch.full((2,), torch.nan))], nan) == {"nan": "a"}


def test_tied_parameters_are_traced_once(tmp_path: Path) -> None:
    base = write(tmp_path, {"embeddings.weight": np.arange(6, dtype=np.float32).reshape(2, 3)})
    tensor = torch.arange(6.0).reshape(2, 3)
    assert traced_to([("embeddings.weight", tensor), ("decoder.weight", tensor)], base) == {
        "embeddings.weight": "embeddings.weight"
    }


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2), torch.zeros(2, dtype=torch.float16), torch.zeros(1, 2), torch.tensor([0.0, -0.0])],
    ids=["values", "dtype", "shape", "sign of zero"],
)
def test_a_parameter_that_the_base_does_not_hold(tmp_path: Path, tensor: torch.Tensor) -> None:
    base = write(tmp_path, {"w": np.zeros(2, np.float32)})
    with pytest.raises(TrainingError) as caught:
        traced_to([("bert.w", tensor)], base)
    assert caught.value.message == f"{tmp_path}: parameter bert.w equals no tensor of the checkpoint"
    assert caught.value.hint == "A mask is tied to weights as they are stored: without cast or conversion."


def test_more_parameters_of_a_value_than_the_base_holds(tmp_path: Path) -> None:
    base = write(tmp_path, {"w": np.zeros(2, np.float32)})
    with pytest.raises(TrainingError, match="parameter b equals no tensor"):
        traced_to([("a", torch.zeros(2)), ("b", torch.zeros(2))], base)
