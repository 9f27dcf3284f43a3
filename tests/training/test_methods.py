from __future__ import annotations

import copy
import math
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from maskhub.errors import TrainingError
from maskhub.training.attach import after_step, attach, clip_grad_norm_
from maskhub.training.masking import (
    MaskedWeight,
    add_scores,
    masked_weights,
    masks_of,
    scores_of,
)
from maskhub.training.methods import TEMPERATURE, keep_highest, keep_n_of_m, sparsity_at, starting_scores
from maskhub.training.settings import RECIPES, Method
from tests.toy import paper

NAMES = {"0.weight": "first", "2.weight": "second"}
INPUT = torch.linspace(-1, 1, 32).reshape(4, 8)


def two_layers(method: Method) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    add_scores(model, NAMES, method)
    return model


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [model[0].weight.detach().clone(), model[2].weight.detach().clone()]


def plain() -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    return [model[0].weight.detach(), model[2].weight.detach()]


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=40), st.data())
def test_the_highest_scores_are_kept(values: list[int], data: st.DataObject) -> None:
    """Exactly as many are dropped as asked, never one above a kept one, of equal ones the first."""
    scores = torch.tensor(values, dtype=torch.float32)
    dropped = data.draw(st.integers(0, len(values)))
    keep = keep_highest(scores, dropped)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert (~keep).nonzero().view(-1).tolist() == sorted(order[:dropped])


@given(st.lists(st.integers(-3, 3), min_size=16, max_size=16), st.sampled_from([(1, 2), (2, 4), (3, 4), (5, 8)]))
def test_n_of_m_scores_are_kept(values: list[int], pattern: tuple[int, int]) -> None:
    n, m = pattern
    keep = keep_n_of_m(torch.tensor(values, dtype=torch.float32), n, m)
    for start in range(0, 16, m):
        best = sorted(range(start, start + m), key=lambda i: (values[i], i))[m - n :]
        assert keep[start : start + m].nonzero().view(-1).add(start).tolist() == sorted(best)


def test_n_of_m_along_another_dimension() -> None:
    scores = torch.rand(8, 3)
    assert torch.equal(keep_n_of_m(scores, 2, 4, 0), keep_n_of_m(scores.T, 2, 4).T)


def test_the_cubic_schedule_is_zhu_and_guptas() -> None:
    method = paper(binarizer="topk", initial_sparsity=0.1, final_sparsity=0.5)
    assert sparsity_at(method, 0) == pytest.approx(0.1)
    assert sparsity_at(method, 0.375) == pytest.approx(0.5 - 0.4 * 0.5**3)
    assert sparsity_at(method, 0.75) == sparsity_at(method, 1) == pytest.approx(0.5)


def test_the_stepwise_schedule_rises_in_eight_equal_jumps() -> None:
    method = paper(binarizer="topk", initial_sparsity=0.1, final_sparsity=0.5, sparsity_schedule="steps")
    seen = sorted({round(sparsity_at(method, i / 1000), 9) for i in range(1001)})
    assert seen == pytest.approx([0.1 + 0.05 * i for i in range(9)])


@pytest.mark.parametrize("score_init", ["uniform", "magnitude"])
@pytest.mark.parametrize("binarizer", ["threshold", "sign", "topk"])
def test_the_initial_sparsity_is_as_asked(binarizer: str, score_init: str) -> None:
    method = paper(binarizer=binarizer, score_init=score_init, initial_sparsity=0.3, seed=3)
    model = nn.Linear(100, 200)
    weight = model.weight.detach().clone()
    add_scores(model, {"weight": "w"}, method)
    keep = masks_of(model)["weight"].to_bool()
    sparsity = 1 - keep.mean()
    assert sparsity == pytest.approx(0.3, abs=1e-9 if binarizer == "topk" else 4 * math.sqrt(0.3 * 0.7 / keep.size))
    scores = scores_of(model)["weight"].detach().numpy().reshape(-1)
    drawn = starting_scores(method).scores("w", (keep.size,)).clip(None, 1 if binarizer == "sign" else None)
    if score_init == "uniform":
        assert np.array_equal(scores, drawn)
        return
    assert np.array_equal(np.sort(scores), np.sort(drawn))  # spread the same; only their places differ
    size, dropped = weight.abs().numpy().reshape(-1), ~keep.reshape(-1)
    assert size[dropped].max() < size[~dropped].min()
    low = np.isin(drawn, scores[dropped])
    assert np.array_equal(scores[dropped], drawn[low])  # in their order
    assert np.array_equal(scores[~dropped], drawn[~low])


@pytest.mark.parametrize("sparsity", [0.005, 0.05, 0.5])
def test_scores_are_as_close_to_the_threshold_at_any_sparsity(sparsity: float) -> None:
    """With a range of its own, as many weights are within reach of it."""
    scores = starting_scores(paper(initial_sparsity=sparsity, score_range=0.6, threshold=0.1, seed=1))
    assert (scores.low, scores.high) == (pytest.approx(0.1 - 0.6 * sparsity), pytest.approx(0.7 - 0.6 * sparsity))
    drawn = scores.scores("w", (100_000,))
    assert np.mean(drawn <= 0.1) == pytest.approx(sparsity, abs=0.005)
    assert np.mean((drawn > 0.1) & (drawn <= 0.16)) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(("layer", "inputs"), [(nn.Linear(400, 500), 1), (Conv1D(500, 400), 0)])
@pytest.mark.parametrize("nm", ["2:4", "1:2", "5:8"])
def test_nm_by_magnitude_starts_with_the_largest(layer: nn.Module, inputs: int, nm: str) -> None:
    """In all of so many groups that some have equal draws; scores are spread as ever."""
    model, (n, m) = copy.deepcopy(layer), map(int, nm.split(":"))
    weight = model.weight.detach().clone()
    method = paper(binarizer="nm", nm=nm, score_init="magnitude", recipe="default")
    add_scores(model, {"weight": "w"}, method)
    keep = masks_of(model)["weight"].to_bool()
    assert np.array_equal(keep, keep_n_of_m(weight.abs(), n, m, inputs).numpy())
    drawn = starting_scores(method).scores("w", (keep.size,))
    assert np.allclose(np.sort(scores_of(model)["weight"].detach().numpy().reshape(-1)), np.sort(drawn), atol=2e-5)


def test_nm_on_a_width_that_it_does_not_divide() -> None:
    with pytest.raises(TrainingError, match=r"^nm 2:4: weight has 6 inputs, which 4 does not divide\. "):
        add_scores(nn.Linear(6, 4), {"weight": "w"}, paper(binarizer="nm"))


def test_gradients_of_scores_and_of_all_else_are_clipped_apart() -> None:
    model = two_layers(paper())
    model[2].bias.requires_grad_(True)
    (model(INPUT).pow(2).sum() + 1e6 * model[2].bias.sum()).backward()
    scores = list(scores_of(model).values())
    before = [score.grad.clone() for score in scores]
    norm = torch.cat([g.flatten() for g in before]).norm()
    both = torch.stack([norm, model[2].bias.grad.norm()]).norm()
    assert clip_grad_norm_(model, 2 * float(norm)) == pytest.approx(float(both))
    assert all(torch.equal(score.grad, g) for score, g in zip(scores, before, strict=True))
    assert float(model[2].bias.grad.norm()) == pytest.approx(2 * float(norm))
    clip_grad_norm_(model, 0.5)
    assert float(torch.cat([score.grad.flatten() for score in scores]).norm()) == pytest.approx(0.5, rel=1e-4)
    for wrong in (0, -1, math.nan):
        with pytest.raises(TrainingError, match=f"^clip_grad_norm_: max_norm is {wrong}. Give one above 0"):
            clip_grad_norm_(model, wrong)


def test_bernoulli_samples_in_training_and_is_certain_in_evaluation() -> None:
    model = nn.Linear(200, 300)
    weight = model.weight.detach().clone()
    add_scores(model, {"weight": "w"}, paper(binarizer="bernoulli", initial_sparsity=0.1))
    assert torch.allclose(scores_of(model)["weight"], torch.tensor(TEMPERATURE * math.log(9)))
    torch.manual_seed(5)
    dropped = model.weight == 0
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.006)
    torch.manual_seed(5)
    assert torch.equal(model.weight == 0, dropped)
    assert not torch.equal(model.weight == 0, dropped)
    model.eval()
    assert torch.equal(model.weight, weight)
    scores_of(model)["weight"].data[0] = 0
    assert int((model.weight == 0).sum()) == 200 == int((~masks_of(model)["weight"].to_bool()).sum())


def test_sign_clips_scores_and_gives_none_beyond_a_gradient() -> None:
    model = nn.Linear(2, 2, bias=False)
    add_scores(model, {"weight": "w"}, paper(binarizer="sign", initial_sparsity=0.01))
    scores = scores_of(model)["weight"]
    assert float(scores.max()) <= 1
    optimizer = torch.optim.SGD([scores], 100.0)
    attach(model, optimizer)
    scores.data = torch.tensor([[1.5, 1.0], [-1.5, 0.5]])
    model(torch.ones(1, 2)).sum().backward()
    assert (scores.grad == 0).tolist() == [[True, False], [True, False]]
    optimizer.step()
    assert float(scores.abs().max()) <= 1


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, passes: int = 1) -> None:
    for _ in range(steps):
        for _ in range(passes):
            model(INPUT).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_second_optimizer_is_followed_instead_of_the_first() -> None:
    model = two_layers(msgspec.structs.replace(paper(), l2_sp=0.1))
    start = {name: scores.detach().clone() for name, scores in scores_of(model).items()}
    for scores in scores_of(model).values():
        scores.data += 1
    first, second, third = (torch.optim.SGD(scores_of(model).values(), 0.0) for _ in range(3))
    for optimizer in (first, second, second):  # the last one attached counts, once
        attach(model, optimizer, steps=10)
    train(model, first, 2)
    train(model, third, 2)
    for name, scores in scores_of(model).items():
        assert torch.allclose(scores, start[name] + 1)
    attach(model, third, steps=10)
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()
    model = two_layers(msgspec.structs.replace(paper(), l2_sp=0.1))
    progress = next(iter(masked_weights(model).values())).progress
    for _ in range(2):
        optimizer = torch.optim.SGD(scores_of(model).values(), 0.01)
        attach(model, optimizer, steps=10)
        train(model, optimizer, 3)
        assert progress.done == 3


@pytest.mark.parametrize(
    ("l2_sp", "steps", "expected"), [(0.1, None, 0.1), (0.1, 2000, 0.1), (None, None, 0.007), (None, 1000, 0.003)]
)
def test_l2_sp_is_a_decoupled_decay_to_the_initial_scores(
    l2_sp: float | None, steps: int | None, expected: float
) -> None:
    """Beside the same steps without it, in NumPy: S <- S + share * (S0 - S), the share scaled with the rate."""
    method = msgspec.structs.replace(paper(), l2_sp=l2_sp)
    model, free = two_layers(method), two_layers(paper())
    first = {name: scores.detach().clone() for name, scores in scores_of(model).items()}
    optimizers = [torch.optim.SGD(scores_of(m).values(), 0.01) for m in (model, free)]
    attach(model, optimizers[0], steps)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)) for o in optimizers]
    for step in range(3):
        for m, optimizer in zip((model, free), optimizers, strict=True):
            train(m, optimizer, 1)
        for name, scores in scores_of(free).items():
            scores.data += expected / (1 + step) * (first[name] - scores.data)
        for schedule in schedules:
            schedule.step()
    for name, scores in scores_of(model).items():
        assert torch.allclose(scores, scores_of(free)[name], atol=1e-6)
        assert not torch.allclose(scores, first[name], atol=1e-4)


def test_without_gradients_the_decay_moves_nothing() -> None:
    model = two_layers(paper(l2_sp=0.5))
    before = {name: scores.detach().clone() for name, scores in scores_of(model).items()}
    after_step(list(masked_weights(model).values()), 0.1, 1.0)
    for name, scores in scores_of(model).items():
        assert torch.allclose(scores, before[name], atol=1e-7)


@pytest.mark.parametrize("binarizer", ["threshold", "sign"])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_margin_trains_as_all_scores_do(binarizer: str, passes: int) -> None:
    """As wide as the scores it gives the same bits; a narrow one the same gradients, at its own places."""
    settings = {"binarizer": binarizer, "initial_sparsity": 0.2, "l2_sp": 0.01}
    model, wide = two_layers(paper(**settings)), two_layers(paper(**settings, score_margin=10.0))
    for one in (model, wide):
        optimizer = torch.optim.Adam(scores_of(one).values(), 0.05)
        attach(one, optimizer)
        train(one, optimizer, 20, passes)
    for a, b in zip(weights_of(model), weights_of(wide), strict=True):
        assert torch.equal(a, b)
    assert masks_of(model) == masks_of(wide)


def test_only_what_starts_near_the_threshold_is_within_a_margin() -> None:
    method = paper(score_margin=0.03, initial_sparsity=0.3)
    narrow, model = two_layers(method), two_layers(paper(initial_sparsity=0.3))
    for name, masked in masked_weights(narrow).items():
        scores = scores_of(model)[name].detach().view(-1)
        near = (scores - method.threshold).abs() <= 0.03
        assert 0 < int(near.sum()) < scores.numel()
        assert masked.places.tolist() == near.nonzero().view(-1).tolist()
        assert torch.equal(masked.scores, scores[near])
    assert masks_of(narrow) == masks_of(model)
    for one in (model, narrow):
        assert torch.equal(one(INPUT), model(INPUT))
        one(INPUT).square().sum().backward()
    for name, masked in masked_weights(narrow).items():
        whole = scores_of(model)[name].grad.view(-1)
        assert torch.equal(masked.scores.grad, whole[masked.places])


def test_a_margins_weight_is_written_in_place_and_follows_the_scores() -> None:
    model = two_layers(paper(score_margin=0.1, initial_sparsity=0.3))
    masked = masked_weights(model)["0.weight"]
    original = model[0].parametrizations.weight.original
    assert model[0].weight.data_ptr() == original.data_ptr()
    masked.scores.data.fill_(-1)
    assert (model[0].weight.view(-1)[masked.places] == 0).all()
    masked.scores.data.fill_(1)
    assert torch.equal(model[0].weight.view(-1)[masked.places], plain()[0].view(-1)[masked.places])
    assert not original.requires_grad


def test_a_margin_under_gradient_checkpointing_and_double_use() -> None:
    from torch.utils.checkpoint import checkpoint

    results = []
    for again in (False, True):
        model = two_layers(paper(score_margin=0.1, initial_sparsity=0.3))
        run = (lambda x, m=model: checkpoint(m, x, use_reentrant=False)) if again else model
        (run(INPUT).square().sum() + run(INPUT * 2).square().sum()).backward()
        results.append([scores.grad for scores in scores_of(model).values()])
    assert all(map(torch.equal, *results))


def test_a_margin_without_a_score() -> None:
    with pytest.raises(TrainingError, match=r"^score_margin 1e-09: no score starts so near to the threshold\. "):
        two_layers(paper(score_margin=1e-9))


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("schedule", ["cubic", "steps"])
def test_topk_has_the_schedules_sparsity_exactly(scope: str, schedule: str) -> None:
    method = paper(
        binarizer="topk", topk_scope=scope, final_sparsity=0.5, initial_sparsity=0.1, sparsity_schedule=schedule
    )
    model = two_layers(method)
    optimizer = torch.optim.Adam(scores_of(model).values(), 0.05)
    attach(model, optimizer, steps=20)
    shares = set()
    for step in range(21):
        wanted = sparsity_at(method, step / 20)
        sizes = {name: mask.size - mask.kept for name, mask in masks_of(model).items()}
        if scope == "tensor":
            assert sizes == {"0.weight": round(128 * wanted), "2.weight": round(64 * wanted)}
        else:
            assert sum(sizes.values()) == round(192 * wanted)
            shares.add(sizes["0.weight"] / 128 == sizes["2.weight"] / 64)
        if step < 20:
            train(model, optimizer, 1)
    assert shares != {True}


def test_the_penalty_brings_the_sparsity_to_its_target() -> None:
    method = paper(sparsity_penalty=20.0, final_sparsity=0.4)
    model = two_layers(method)
    optimizer = torch.optim.SGD(scores_of(model).values(), 0.01)
    attach(model, optimizer, steps=400)
    for _ in range(400):
        optimizer.step()
    kept = sum(mask.kept for mask in masks_of(model).values())
    assert 1 - kept / 192 == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(("structure", "shapes"), [("rows", [(16, 1), (4, 1)]), ("layers", [(1, 1), (1, 1)])])
def test_groups_share_a_score_and_sum_its_gradient(structure: str, shapes: list[tuple[int, int]]) -> None:
    model = two_layers(paper(structure=structure, initial_sparsity=0.01))
    assert [tuple(scores.shape) for scores in scores_of(model).values()] == shapes
    whole = two_layers(paper())
    for scores in scores_of(model).values():
        scores.data.fill_(1)
    for scores in scores_of(whole).values():
        scores.data.fill_(1)
    for one in (model, whole):
        one(INPUT).square().sum().backward()
    for name, scores in scores_of(model).items():
        summed = scores_of(whole)[name].grad.sum(1 if structure == "rows" else (0, 1), keepdim=True)
        assert torch.allclose(scores.grad, summed.view(scores.shape), rtol=1e-4, atol=1e-5)
    next(iter(scores_of(model).values())).data[0] = -1
    mask = masks_of(model)["0.weight"].to_bool()
    assert not mask[0].any()
    assert mask.sum() == (15 * 8 if structure == "rows" else 0)


def test_a_method_that_acts_after_steps_must_be_told_of_them() -> None:
    model = two_layers(paper(l2_sp=0.1))
    with pytest.raises(TrainingError) as caught:
        model(INPUT)
    assert caught.value.message == "the method acts after each step of the optimiser, which nothing tells it of"
    assert "attach" in str(caught.value.hint)
    model.eval()
    model(INPUT)
    with pytest.raises(TrainingError, match="the optimizer has no scores of the model"):
        attach(model, torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1))
    with pytest.raises(TrainingError, match=r"^attach: steps is -1\. "):  # a Trainer's max_steps where none is set
        attach(model, torch.optim.SGD(scores_of(model).values(), 0.1), steps=-1)
    other = two_layers(paper(binarizer="topk", final_sparsity=0.5))
    with pytest.raises(TrainingError, match=r"attach\(\.\.\., steps=N\)"):
        attach(other, torch.optim.SGD(scores_of(other).values(), 0.1))


@pytest.mark.parametrize("binarizer", ["threshold", "sign", "bernoulli"])
def test_the_default_recipe_drops_what_does_harm(binarizer: Any) -> None:
    """A layer that is to compute what half of its weights do."""
    torch.manual_seed(0)
    layer, wanted = nn.Linear(16, 8, bias=False), torch.rand(8, 16) < 0.5
    layer.weight.data.sign_()
    target = layer.weight.detach() * wanted
    add_scores(layer, {"weight": "w"}, Method(binarizer=binarizer))
    optimizer = torch.optim.Adam(scores_of(layer).values(), RECIPES["default"]["learning_rate"])
    attach(layer, optimizer, steps=400)
    for _ in range(400):
        inputs = torch.randn(64, 16)
        (layer(inputs) - inputs @ target.T).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    dropped = layer.eval().weight == 0
    assert 4 <= int(dropped.sum()) == int((dropped & ~wanted).sum())


def test_starting_scores_of_bernoulli_are_all_alike() -> None:
    scores = starting_scores(paper(binarizer="bernoulli", initial_sparsity=0.05)).scores("w", (50,))
    assert np.unique(scores).tolist() == [np.float32(TEMPERATURE * math.log(19))]


def test_buffers_are_in_no_state_dict() -> None:
    model = two_layers(paper(score_margin=0.1, l2_sp=0.1))
    assert {name.rpartition(".")[2] for name in model.state_dict()} == {"bias", "original", "scores"}
    assert isinstance(next(iter(masked_weights(model).values())), MaskedWeight)
