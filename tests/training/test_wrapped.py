"""In one's own loop: a model inside a wrapper, and what ``save_pretrained`` writes of a masked one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

import maskhub
import maskhub.training as learning
from maskhub.errors import TrainingError
from maskhub.training.masking import scores_of
from tests import toy

TOKENS = torch.arange(5, 21).reshape(2, 8)
METHOD: dict[str, Any] = {"recipe": "paper", "initial_sparsity": 0.3, "l2_sp": 0.01, "classifier": "dense"}


@pytest.fixture
def model(bert: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(bert)


def train(model: Any, steps: int = 3) -> None:
    """Steps of a loop of one's own."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    learning.attach(model, optimizer, steps=steps)
    model.train()
    for _ in range(steps):
        model(input_ids=TOKENS, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def distributed(model: Any) -> Any:
    wrapped = torch.nn.parallel.DistributedDataParallel.__new__(torch.nn.parallel.DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = model  # needs no group of processes to be seen as what it is
    return wrapped


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": torch.nn.DataParallel,
    "DDP": distributed,
    "DDP over torch.compile": lambda model: distributed(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("kind", [*WRAPPERS, "torch.compile after masking"])
def test_a_wrapped_model_packs_as_the_plain_one(model: Any, bert: Path, tmp_path: Path, kind: str) -> None:
    inner, wrap = model, WRAPPERS[kind.removesuffix(" after masking")]
    if kind in WRAPPERS:
        model = wrap(model)
        learning.mask_model(model, bert, **METHOD)
    else:
        learning.mask_model(model, bert, **METHOD)
        model = wrap(model)
    train(inner if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model)
    with pytest.raises(TrainingError, match="masked already"):
        learning.mask_model(model, bert, **METHOD)
    learning.pack(model, tmp_path / "task.msk")
    mask = maskhub.open(tmp_path / "task.msk")
    assert mask.task
    assert mask.task.architecture == "BertForSequenceClassification"
    assert set(mask.dense) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(logits(maskhub.load_model(bert, mask)), logits(inner))


def test_what_cannot_be_masked_is_named(model: Any, bert: Path) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=["query"]))
    injected = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["query"]), copy.deepcopy(model))
    for one in (adapted, injected, torch.compile(adapted, backend="eager")):
        with pytest.raises(TrainingError, match="an adapter of PEFT's on it") as caught:
            learning.mask_model(one, bert, **METHOD)
        assert "merge_and_unload()" in str(caught.value.hint)
    with pytest.raises(TrainingError, match="Linear is no model of transformers"):
        learning.mask_model(torch.nn.Linear(2, 2), bert, **METHOD)  # type: ignore[arg-type]
    masked = copy.deepcopy(model)
    learning.mask_model(masked, bert, **METHOD)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["classifier"]), masked)
    with pytest.raises(TrainingError, match="an adapter of PEFT's on it"):
        learning.attach(masked, torch.optim.Adam(masked.parameters()), steps=3)
    merged = adapted.merge_and_unload()
    learning.mask_model(merged, bert, **METHOD)  # nothing was changed in it, so it is the base's still


@pytest.mark.parametrize(
    "method",
    [{}, {"score_margin": 0.1}, {"binarizer": "bernoulli"}, {"binarizer": "topk"}, {"classifier": "masked"}],
    ids=str,
)
def test_a_masked_model_is_saved_as_the_dense_one(
    model: Any, bert: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    learning.mask_model(model, bert, **(METHOD | method))
    train(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model.save_pretrained(tmp_path / "saved")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(logits(loaded), logits(model))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for scores in scores_of(twin).values():
            scores.fill_(-1)
    twin.save_pretrained(tmp_path / "twin")
    zeros = load_file(tmp_path / "twin/model.safetensors")["bert.encoder.layer.0.attention.self.query.weight"]
    assert bool((zeros == 0).any())
    learning.pack(model, tmp_path / "task.msk")
    assert torch.equal(logits(maskhub.load_model(bert, tmp_path / "task.msk")), logits(model))


def test_save_pretrained_takes_what_it_takes_of_any_model_in_the_same_places(
    model: Any, bert: Path, tmp_path: Path
) -> None:
    learning.mask_model(model, bert, **METHOD)
    train(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    with torch.no_grad():
        for scores in scores_of(model).values():
            scores.fill_(-1)
    model.save_pretrained(str(tmp_path / "saved"), True, state, False, "20KB", "fp16")
    model.save_pretrained(tmp_path / "none", False)  # of another process than the main one
    assert not (tmp_path / "none/model.safetensors").exists()
    shards = sorted((tmp_path / "saved").glob("model.fp16-*.safetensors"))
    assert len(shards) > 1
    saved = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert saved.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in saved.items())
    with pytest.raises(TypeError, match="multiple values"):
        model.save_pretrained(tmp_path / "twice", True, is_main_process=True)


@pytest.mark.parametrize("method", [{}, {"score_margin": 0.1}], ids=str)
def test_plain_trainers_save_what_loads_and_what_goes_on(
    model: Any, bert: Path, tmp_path: Path, method: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """``save_model`` reloads as the dense model, and a training that goes on from a checkpoint is the same one."""
    rows = [{"input_ids": [5 + i % 7, 6, 7, 8 + i % 5], "labels": i % 2} for i in range(16)]

    def trainer(model: Any, folder: str) -> Trainer:
        learning.mask_model(model, bert, **(METHOD | method))
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder), max_steps=6, save_steps=3, per_device_train_batch_size=4,
            learning_rate=3e-2, report_to=[], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        return Trainer(model, arguments, train_dataset=rows, callbacks=[learning.MaskCallback()])  # type: ignore[arg-type]

    other = copy.deepcopy(model)
    first = trainer(model, "run")
    first.train()
    first.save_model(str(tmp_path / "saved"))
    model.eval()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(model))

    second = trainer(other, "again")
    caplog.clear()
    second.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-3"))
    assert "keys in the checkpoint" not in caplog.text
    other.eval()
    assert all(torch.equal(one, scores_of(other)[name]) for name, one in scores_of(model).items())
    assert torch.equal(logits(other), logits(model))


def test_a_dense_state_alone_is_not_taken_for_scores(model: Any, bert: Path, tmp_path: Path) -> None:
    learning.mask_model(model, bert, **METHOD)
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(RuntimeError, match=r"Missing key.*parametrizations\.weight\.0\.scores"):
        model.load_state_dict(load_file(tmp_path / "saved/model.safetensors"))


def test_the_run_of_maskhub_is_saved_so_as_well(bert: Path, task: Path, tmp_path: Path) -> None:
    result = maskhub.train(**vars_of(toy.settings(bert, task)), output=tmp_path / "run")
    result.model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(result.model))


def vars_of(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__ if name != "keep_head"}


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "LlamaForCausalLM"])
def test_what_is_tied_to_the_base_is_not_trained(kind: str, bert: Path, base_of: Any, tmp_path: Path) -> None:
    base = base_of("llama") if kind.startswith("Llama") else tmp_path / "base"
    if kind == "BertForMaskedLM":
        torch.manual_seed(0)
        getattr(transformers, kind).from_pretrained(bert).save_pretrained(base)
    else:
        config = transformers.AutoConfig.from_pretrained(base, tie_word_embeddings=True)
        base = tmp_path / "base"
        getattr(transformers, kind)(config).save_pretrained(base)
    model = getattr(transformers, kind).from_pretrained(base)
    learning.mask_model(model, base, **METHOD)
    assert all("parametrizations" in name for name, p in model.named_parameters() if p.requires_grad)
    learning.pack(model, tmp_path / "task.msk")
    maskhub.apply(base, tmp_path / "task.msk", tmp_path / "dense")
    dense = getattr(transformers, kind).from_pretrained(tmp_path / "dense")
    model.eval()
    assert torch.equal(logits(dense), logits(model))
