from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from maskhub.errors import ArgumentError, TrainingError
from maskhub.training.layers import check_layers, maskable, parse_layers, select
from maskhub.training.settings import Method


@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        ("all", 3, {0, 1, 2}),
        ("upper", 12, set(range(2, 12))),
        ("upper", 24, set(range(4, 24))),
        ("upper", 6, {1, 2, 3, 4, 5}),
        ("upper", 2, {0, 1}),
        ("upper", 1, {0}),
        ("2-11", 12, set(range(2, 12))),
        ("0,3,5", 6, {0, 3, 5}),
        ("0-1,4", 6, {0, 1, 4}),
        ("5", 6, {5}),
        ("top:4", 12, {8, 9, 10, 11}),
        ("top:12", 12, set(range(12))),
    ],
)
def test_parsing(layers: str, count: int, expected: set[int]) -> None:
    assert parse_layers(layers, count) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("0-12", "training settings: layers '0-12': there is no layer 12; the base has layers 0 to 11"),
        ("99", "training settings: layers '99': there is no layer 99; the base has layers 0 to 11"),
        ("top:13", "training settings: layers 'top:13': the base has only 12 layers"),
        ("top:0", "training settings: layers 'top:0': names no layer; the base has layers 0 to 11"),
        ("5-2", "training settings: layers '5-2': names no layer; the base has layers 0 to 11"),
        ("", "training settings: layers '': expected all, upper, 2-11, 0,3,5 or top:4"),
        ("first", "training settings: layers 'first': expected all, upper, 2-11, 0,3,5 or top:4"),
        ("-1", "training settings: layers '-1': expected all, upper, 2-11, 0,3,5 or top:4"),
        ("1,", "training settings: layers '1,': expected all, upper, 2-11, 0,3,5 or top:4"),
        ("top:x", "training settings: layers 'top:x': expected all, upper, 2-11, 0,3,5 or top:4"),
    ],
)
def test_layers_that_are_none(layers: str, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_layers(layers, 12)
    assert caught.value.message == message


MATRICES = {
    "bert": [
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    ],
    "distilbert": [
        "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
    ],
}  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_what_is_masked(family: str, request: pytest.FixtureRequest) -> None:
    """The matrices of the layers and BERT's pooler: no embedding, bias, LayerNorm, and no classifier."""
    folder: Path = request.getfixturevalue(f"tiny_{family}")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder, num_labels=2))
    head = {n for n, _ in model.named_parameters() if n.startswith(("classifier", "pre_classifier"))}
    found = maskable(model, {name for name, _ in model.named_parameters()} - head)
    place = "distilbert.transformer" if family == "distilbert" else f"{family}.encoder"
    matrices = MATRICES.get(family, MATRICES["bert"])
    layers = {f"{place}.layer.{layer}.{m}.weight": layer for layer in (0, 1) for m in matrices}
    pooler = {"bert.pooler.dense.weight": None} if family == "bert" else {}
    assert found == layers | pooler
    highest = {name for name, layer in layers.items() if layer == 1} | set(pooler)
    assert set(select(found, Method(layers="1"))) == highest
    assert select(found, Method(layers="all")) == list(found)


def test_a_weight_shared_with_an_embedding_is_not_masked() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8, n_positions=8))
    found = maskable(model, {name for name, _ in model.named_parameters(remove_duplicate=False)})
    place = "transformer.h.0"
    names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert found == {f"{place}.{name}.weight": 0 for name in names}


def test_a_model_without_layers() -> None:
    with pytest.raises(TrainingError, match=r"^the base has no layers with linear weights that could be masked$"):
        check_layers(nn.Linear(2, 2), {"pooler.dense.weight": None})


def test_a_choice_that_leaves_nothing() -> None:
    weights = {f"encoder.layer.{i}.attention.self.query.weight": i for i in range(2)}
    with pytest.raises(ArgumentError, match=r"structure together leave no weight to mask\. Leave ") as caught:
        select(weights, Method(layers="0", pattern=r"layer\.1"))
    assert caught.value.hint == "Leave one of them out; --dry-run shows what the others mask."


def test_modules_by_the_papers_letters_or_the_ends_of_their_names() -> None:
    weights = {f"model.layers.{i}.self_attn.{name}_proj.weight": i for i in range(2) for name in "qkvo"}
    for given in (("Q", "V"), ("q_proj", "self_attn.v_proj"), ("Q", "v_proj")):
        found = select(weights, Method(target_modules=given))
        assert found == [name for name in weights if "q_proj" in name or "v_proj" in name]
    with pytest.raises(
        ArgumentError, match=r"^training settings: target_modules: the base has no proj\. It has"
    ) as caught:
        select(weights, Method(target_modules=("Q", "proj")))
    assert caught.value.hint == "It has: AO, K, Q, V."
