from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from maskhub.errors import ArgumentError, MissingError
from maskhub.tasks import REGISTRY
from maskhub.training.methods import starting_scores
from maskhub.training.settings import (
    RECIPES,
    Method,
    TrainSettings,
    method_from,
    parameters,
    read_config,
    recorded,
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
    assert (settings.schedule, settings.warmup, settings.max_grad_norm) == ("constant", 0, 0)
    scores = starting_scores(settings)
    assert (scores.low, scores.high) == (-0.02, pytest.approx(0.58))


def test_without_a_decay_of_its_own_a_long_training_has_a_weaker_one() -> None:
    method = Method()
    assert [method.l2_sp_over(steps) for steps in (None, 100, 500, 1000, 10**5)] == [0.007, 0.007, 0.006, 0.003, 0.0015]
    assert Method(l2_sp=0.02).l2_sp_over(1200) == 0.02
    assert not method_from(recipe="paper").needs_steps
    assert method.needs_steps


def test_recipes_differ_in_the_same_settings() -> None:
    assert len({tuple(recipe) for recipe in RECIPES.values()}) == 1


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"initial_sparsity": 1.5}, "initial_sparsity: 1.5 is not above 0 and below 1", None),
        ({"initial_sparsity": 0.0}, "initial_sparsity: 0.0 is not above 0 and below 1", None),
        ({"learning_rate": "many"}, "learning_rate: 'many' is not a number above 0", None),
        ({"learning_rate": -1.0}, "learning_rate: -1.0 is not above 0", None),
        ({"epochs": float("inf")}, "epochs: inf is no number to work with", None),
        ({"threshold": float("nan")}, "threshold: nan is no number to work with", None),
        ({"threshold": -0.02, "recipe": "paper"}, "threshold must be above -0.02", None),
        ({"beta2": 1.0}, "beta2: 1.0 is not at least 0 and below 1", None),
        ({"score_range": 0.0}, "score_range: 0.0 is not above 0", None),
        ({"warmup": 1.0}, "warmup: 1.0 is not at least 0 and below 1", None),
        ({"max_grad_norm": -1.0}, "max_grad_norm: -1.0 is not at least 0", None),
        ({"max_grad_norm": "none"}, "max_grad_norm: 'none' is not a number at least 0", None),
        ({"schedule": "steps"}, "schedule: there is no 'steps'", "It is one of: constant, linear, cosine."),
        ({"batch_size": 0}, "batch_size: 0 is not at least 1", None),
        ({"seed": 1 << 32}, "seed: 4294967296 is not at least 0 and below 4294967296", None),
        ({"seed": -1}, "seed: -1 is not at least 0 and below 4294967296", None),
        ({"classifier": "none"}, "classifier: there is no 'none'", "It is one of: masked, frozen, dense."),
        ({"precision": "int8"}, "precision: there is no 'int8'", "It is one of: fp32, bf16, fp16."),
        ({"dataset": "imdb"}, "give either a training file or a dataset", "As train_file or dataset: exactly one."),
        ({"final_sparsity": 0.5}, "final_sparsity needs topk, or a sparsity_penalty", None),
        (
            {"binarizer": "topk", "sparsity_penalty": 1.0},
            "topk has its sparsity exactly: leave sparsity_penalty out",
            None,
        ),
        (
            {"binarizer": "bernoulli", "score_init": "magnitude"},
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
        ({"keep_flips": 0.3, "bits": 0.03}, "keep_flips and bits say the same: give one of them", None),
        ({"binarizer": "nm", "size": "60KB"}, "nm has a sparsity of its own: leave size out", None),
        ({"binarizer": "topk", "bits": 0.03}, "topk has a sparsity of its own: leave bits out", None),
        (
            {"final_sparsity": 0.3, "sparsity_penalty": 1.0, "keep_flips": 0.5},
            "final_sparsity has a sparsity of its own: leave keep_flips out",
            None,
        ),
        (
            {"structure": "heads", "keep_flips": 0.5},
            "keep_flips: single weights are selected, not heads, rows or layers",
            None,
        ),
        ({"bits": 1.0}, "bits: 1.0 is not above 0 and below 1", None),
        ({"keep_flips": 0.0}, "keep_flips: 0.0 is not above 0 and at most 1", None),
        ({"selection_start": 0.9}, "selection_start comes after selection_end", None),
        ({"score_init": "random"}, "score_init: there is no 'random'", "It is one of: uniform, magnitude."),
        ({"l2_sp": 1.0}, "l2_sp: 1.0 is not at least 0 and below 1", None),
        ({"train_file": None}, "give either a training file or a dataset", "As train_file or dataset: exactly one."),
    ],
)
def test_settings_that_are_not_allowed(given: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ArgumentError) as caught:
        settings_from(**({"base": "b", "train_file": "t.csv"} | given))
    assert caught.value.message == f"training settings: {message}"
    assert caught.value.hint == hint


def test_values_may_come_as_texts_paths_and_lists() -> None:
    given = {"epochs": "3", "learning_rate": "3e-3", "train_norms": "true", "layers": 3, "train_file": Path("t.csv")}
    settings = settings_from(base="b", **given, target_modules="Q, V")
    assert (settings.epochs, settings.learning_rate, settings.train_norms) == (3.0, 3e-3, True)
    assert (settings.layers, settings.train_file, settings.target_modules) == ("3", "t.csv", ("Q", "V"))
    assert settings_from(base="b", **given, target_modules=["Q", "V"]) == settings


def test_what_is_not_given_is_the_recipes() -> None:
    settings = settings_from(base="b", train_file="t.csv", recipe="paper", learning_rate=None, layers="all")
    assert (settings.learning_rate, settings.layers, settings.beta2) == (1e-3, "all", 0.999)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "learning_rate"), ("learning_rat", "learning_rate"), ("score_spread", "score_range"), ("zzz", None)],
)
def test_settings_that_there_are_not(name: str, meant: str | None) -> None:
    with pytest.raises(ArgumentError, match=rf"^training settings: there is no setting '{name}'") as caught:
        settings_from(base="b", train_file="t.csv", **{name: 1})
    assert caught.value.hint == (f"Did you mean {meant}?" if meant else None)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"train_norms": "yes"}, "train_norms: Expected `bool`, got `str`", "It is true or false."),
        ({"epochs": "many"}, "epochs: 'many' is not a number above 0", None),
        ({"eval_split": 1.0}, "eval_split: 1.0 is not above 0 and below 1", None),
        ({"eval_split": 0.1, "eval_file": "e.csv"}, "eval_split: there is an eval_file", "Leave one of them out."),
        ({"push_to_hub": "./here"}, "push_to_hub: './here' is no repo on the Hub", "Name it as user/repo."),
        ({"push_to_hub": "nobody"}, "push_to_hub: 'nobody' is no repo on the Hub", "Name it as user/repo."),
        ({"base": None}, "base: there is none", None),
        ({"recipe": ["paper"]}, "recipe: there is no ['paper']", "It is one of: default, paper."),
        ({"recipe": "pull"}, "recipe: there is no 'pull'", "It is one of: default, paper."),
    ],
)
def test_more_that_is_not_allowed(given: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ArgumentError) as caught:
        settings_from(**{"base": "b", "train_file": "t.csv"} | given)
    assert (caught.value.message, caught.value.hint) == (f"training settings: {message}", hint)


def test_parameters_are_the_fields_with_plain_types_and_their_help() -> None:
    found = {parameter.name: parameter for parameter in parameters()}
    assert set(found) == set(TrainSettings.__struct_fields__)
    assert next(iter(found)) == "base"
    assert found["base"].default is inspect.Parameter.empty
    assert get_args(found["learning_rate"].annotation)[0] == (float | None)
    assert {name for name, one in found.items() if one.default is None} >= set(RECIPES["default"])
    assert (found["epochs"].default, get_args(found["epochs"].annotation)[0]) == (10.0, float)
    options = {name: one.annotation.__metadata__[0] for name, one in found.items()}
    assert all(option.help for option in options.values())
    groups = list(dict.fromkeys(option.group for option in options.values()))
    assert groups == [None, "Examples", "Which weights", "Method", "Training", "Output"]
    assert list(options["task"].choices()) == list(REGISTRY)


def test_settings_load_without_numpy() -> None:
    code = (
        "import sys; from maskhub.training.settings import parameters, settings_from\n"
        "settings_from(base='b', train_file='t'), parameters(), print('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


YAML = """
base: some/base
train_file: t.csv
binarizer: nm
nm: 2:4          # as a text, not the 124 that YAML takes it for
layers: 0,3
learning_rate: 3e-3
target_modules: [Q, V]
train_norms: true
metric:
"""
TOML = """
base = "some/base"
train_file = "t.csv"
binarizer = "nm"
nm = "2:4"
layers = "0,3"
learning_rate = 3e-3
target_modules = "Q,V"
train_norms = true
"""


@pytest.mark.parametrize(("name", "text"), [("c.yaml", YAML), ("c.yml", YAML), ("c.toml", TOML)])
def test_a_configuration_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    settings = settings_from(**read_config(tmp_path / name))
    assert settings == settings_from(
        base="some/base", train_file="t.csv", binarizer="nm", nm="2:4", layers="0,3", learning_rate=3e-3,
        target_modules=("Q", "V"), train_norms=True,
    )  # fmt: skip
    assert settings_from(**recorded(settings)) == settings
    assert set(recorded(settings)) == {
        "base", "recipe", "train_file", "binarizer", "layers", "learning_rate", "target_modules", "train_norms",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("c.yaml", "learning_rte: 1", "there is no setting 'learning_rte'", "Did you mean learning_rate?"),
        ("c.toml", "resume = true", "there is no setting 'resume'", None),
        ("c.yaml", "- base", "holds no settings", "Write one a line, as: learning_rate: 0.004"),
        ("c.yaml", "base: [", "cannot be read: ", None),
        ("c.toml", "base", "cannot be read: ", None),
        ("c.json", "{}", "neither YAML nor TOML", "Name it .yaml or .toml."),
        ("c.yaml", None, "no such file", "Check the name and the folder."),
    ],
)
def test_configuration_files_that_are_none(
    tmp_path: Path, name: str, text: str | None, message: str, hint: str | None
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(MissingError if text is None else ArgumentError) as caught:
        read_config(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(caught.value)
    assert caught.value.hint == hint
