from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from maskhub.training.masking import MaskedWeight, Steps, add_scores, plain_name, scores_of
from maskhub.training.methods import starting_scores
from maskhub.training.settings import Method
from tests.toy import paper

THRESHOLD = 1e-2
PAPER = paper(initial_sparsity=0.3, threshold=THRESHOLD, seed=5)
INIT = starting_scores(PAPER)


def masking(scores: torch.Tensor, weight: torch.Tensor, method: Method = PAPER) -> MaskedWeight:
    """The parametrization of a weight, with these scores."""
    masked = MaskedWeight(weight, "w", method, Steps(hooked=True))
    masked.scores.data = scores
    return masked


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))


NAMES = {"1.weight": "first", "3.weight": "second"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dropped_weights_are_plus_zero_whatever_they_were(dtype: torch.dtype) -> None:
    special = [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.5, -2.0, 6e-8]
    weight = torch.tensor([special, special], dtype=dtype)
    scores = torch.tensor([[0.0] * 8, [1.0] * 8])
    masked = masking(scores, weight)(weight)
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    assert masked.dtype == dtype
    assert masked[0].view(integers).tolist() == [0] * 8
    assert masked[1].view(integers).tolist() == weight[1].view(integers).tolist()


def test_a_score_at_the_threshold_drops() -> None:
    at = torch.tensor(THRESHOLD)
    above = torch.nextafter(at, torch.tensor(1.0))
    masked = masking(torch.stack([at, above]), torch.ones(2))(torch.ones(2))
    assert masked.tolist() == [0.0, 1.0]


def test_the_masks_gradient_reaches_the_scores_unchanged() -> None:
    weight = torch.tensor([2.0, -3.0, 5.0], requires_grad=True)
    masked = masking(torch.tensor([1.0, -1.0, THRESHOLD]), weight)
    # The mask multiplies the weight, so its gradient is the output's times the weight, kept or dropped alike.
    (masked(weight) * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert masked.scores.grad.tolist() == [2.0, -30.0, 500.0]
    assert weight.grad is None


def test_masking_replaces_no_module_and_trains_only_scores() -> None:
    model = small_model()
    modules = [(name, id(module)) for name, module in model.named_modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_scores(model, NAMES, PAPER)
    kept = [(name, id(m)) for name, m in model.named_modules() if "parametrizations" not in name]
    assert kept == modules
    assert isinstance(model[1], nn.Linear)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["1.parametrizations.weight.0.scores", "3.parametrizations.weight.0.scores"]
    state = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(state[name], weight) for name, weight in weights.items())


def test_scores_start_as_drawn_for_their_keys() -> None:
    model = small_model()
    add_scores(model, NAMES, PAPER)
    scores = scores_of(model)
    assert list(scores) == ["1.weight", "3.weight"]
    for parameter, key in NAMES.items():
        expected = INIT.scores(key, tuple(scores[parameter].shape))
        assert np.array_equal(scores[parameter].detach().numpy(), expected)


def test_a_masked_model_computes_as_one_with_zeros_in_place() -> None:
    model, plain = small_model(), small_model()
    add_scores(model, NAMES, PAPER)
    with torch.no_grad():
        for name, scores in scores_of(model).items():
            plain.get_parameter(name)[scores <= THRESHOLD] = 0
    tokens = torch.arange(10)
    assert torch.equal(model(tokens), plain(tokens))


def test_an_optimiser_step_moves_scores_and_nothing_else() -> None:
    model = small_model()
    add_scores(model, NAMES, PAPER)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.arange(10)).square().sum().backward()
    optimiser.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.parametrizations.weight.0.scores", "3.parametrizations.weight.0.scores"}


def test_a_model_that_is_one_layer() -> None:
    layer = nn.Linear(3, 3)
    add_scores(layer, {"weight": "w"}, PAPER)
    assert list(scores_of(layer)) == ["weight"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("encoder.0.dense.parametrizations.weight.original", "encoder.0.dense.weight"),
        ("classifier.bias", "classifier.bias"),
        ("classifier.parametrizations.weight.0.scores", "classifier.weight.0.scores"),
    ],
)
def test_plain_names(key: str, name: str) -> None:
    assert plain_name(key) == name
