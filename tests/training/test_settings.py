from __future__ import annotations

from typing import Any

import pytest

from maskhub.errors import ArgumentError
from maskhub.training.methods import starting_scores
from maskhub.training.settings import (
    RECIPES,
    Method,
    method_from,
    settings_from,
)


def test_the_defaults_are_those_of_the_default_recipe() -> None:
    settings = settings_from(base="b", train_file="t.csv")
    assert {name: getattr(settings, name) for name in RECIPES["default"]} == RECIPES["default"]
    assert (settings.initial_sparsity, settings.learning_rate, settings.l2_sp) == (0.005, 4e-3, None)


def test_the_recipe_of_the_paper() -> None:
    settings = settings_from(base="b", train_file="t.csv", recipe="paper")
    assert (settings.threshold, settings.initial_sparsity, settings.learning_rate) == (1e-2, 0.05, 1e-3)
    assert (settings.batch_size, settings.epochs, settings.max_length, settings.eval_steps) == (32, 10, 128, 60)
    assert (settings.layers, settings.classifier, settings.l2_sp) == ("upper", "masked", 0)
    scores = starting_scores(settings)
    assert (scores.low, scores.high) == (-0.02, pytest.approx(0.58))


def test_without_a_decay_of_its_own_a_long_training_has_a_weaker_one() -> None:
    method = Method()
    assert [method.l2_sp_over(steps) for steps in (None, 100, 500, 1000, 10**5)] == [0.007, 0.007, 0.006, 0.003, 0.0015]
    assert Method(l2_sp=0.02).l2_sp_over(1200) == 0.02
    assert not method_from(recipe="paper").needs_steps and method.needs_steps


def test_recipes_differ_in_the_same_settings() -> None:
    assert len({tuple(recipe) for recipe in RECIPES.values()}) == 1


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"initial_sparsity": 1.5}, "initial_sparsity: 1.5 is not above 0 and below 1", None),
        ({"initial_sparsity": 0.0}, "initial_sparsity: 0.0 is not above 0 and below 1", None),
        ({"learning_rate": -1.0}, "learning_rate: -1.0 is not above 0", None),
        ({"epochs": float("inf")}, "epochs: inf is no number to work with", None),
        ({"threshold": float("nan")}, "threshold: nan is no number to work with", None),
        ({"threshold": -0.02, "recipe": "paper"}, "threshold must be above -0.02", None),
        ({"beta2": 1.0}, "beta2: 1.0 is not at least 0 and below 1", None),
        ({"score_range": 0.0}, "score_range: 0.0 is not above 0", None),
        ({"warmup_ratio": 1.0}, "warmup_ratio: 1.0 is not at least 0 and below 1", None),
        ({"batch_size": 0}, "batch_size: 0 is not at least 1", None),
        ({"seed": 1 << 32}, "seed: 4294967296 is not at least 0 and below 4294967296", None),
        ({"seed": -1}, "seed: -1 is not at least 0 and below 4294967296", None),
        ({"classifier": "none"}, "classifier: Invalid enum value 'none'", "It is one of: masked, frozen, dense."),
        ({"precision": "int8"}, "precision: Invalid enum value 'int8'", "It is one of: fp32, bf16, fp16."),
        ({"dataset": "imdb"}, "give either a training file or a dataset", None),
        ({"final_sparsity": 0.5}, "final_sparsity needs topk, or a sparsity_penalty", None),
        (
            {"binarizer": "topk", "sparsity_penalty": 1.0},
            "topk has its sparsity exactly: leave sparsity_penalty out",
            None,
        ),
        (
            {"binarizer": "bernoulli", "score_init": "random"},
            "bernoulli starts all scores alike: leave score_init out",
            None,
        ),
        ({"binarizer": "nm", "nm": "4:4"}, "nm: '4:4' is not N:M, as 2:4, with M 2, 4, 8 or 16", None),
        ({"binarizer": "nm", "structure": "rows"}, "nm masks single weights, not heads, rows or layers", None),
        (
            {"score_margin": 0.1, "score_init": "magnitude"},
            "score_margin needs threshold or sign, and uniform scores of single weights",
            None,
        ),
        ({"topk_scope": "global"}, "topk_scope: the binarizer is not topk", None),
        ({"score_init": "random", "threshold": 0.0}, "random scores need a threshold above 0", None),
        ({"l2_sp": 1.0}, "l2_sp: 1.0 is not at least 0 and below 1", None),
        ({"train_file": None}, "give either a training file or a dataset", None),
    ],
)
def test_settings_that_are_not_allowed(given: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ArgumentError) as caught:
        settings_from(**({"base": "b", "train_file": "t.csv"} | given))
    assert caught.value.message == f"training settings: {message}"
    assert caught.value.hint == hint
