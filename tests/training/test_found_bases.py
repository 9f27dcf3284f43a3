"""Bases as they are found: with a classifier already, with labels in the configuration, with tokens too many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig

import maskhub
import maskhub.training
from maskhub.errors import ArgumentError, CheckpointError, TrainingError
from maskhub.runtime.evaluate import evaluate
from maskhub.tasks.data import read_file
from maskhub.training.train import learn
from tests import tiny, toy

Changes = dict[str, Any]


def changed(bert: Path, folder: Path, **config: Any) -> Path:
    """A copy of a base with other keys in its ``config.json``."""
    folder.mkdir()
    for file in bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(json.loads((bert / "config.json").read_text()) | config))
    return folder


def labels_of(count: int, key: str) -> Changes:
    """So many labels as a ``config.json`` says them under this key, or under all that there are."""
    names = {str(i): f"OLD_{i}" for i in range(count)}
    every: Changes = {
        "num_labels": count, "_num_labels": count, "id2label": names, "label2id": {n: int(i) for i, n in names.items()},
        "problem_type": "multi_label_classification",
    }  # fmt: skip
    return every if key == "all" else {key: every[key]}


def with_classifier(bert: Path, folder: Path, labels: int) -> Path:
    """A base that was finetuned for so many classes."""
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=labels)
    torch.nn.init.normal_(model.classifier.bias)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("key", "count"),
    [
        ("num_labels", 1), ("num_labels", 2), ("num_labels", 3), ("_num_labels", 3), ("id2label", 1), ("id2label", 2),
        ("id2label", 5), ("label2id", 3), ("all", 3),
    ],
)  # fmt: skip
def test_labels_in_a_bases_configuration_give_way_to_the_tasks(
    bert: Path, task: Path, tmp_path: Path, key: str, count: int
) -> None:
    base = changed(bert, tmp_path / "base", **labels_of(count, key))
    result = learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run")
    maskhub.apply(base, result.mask, tmp_path / "dense")
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")
    for model in (dense, maskhub.load_model(base, result.mask)):
        assert (model.config.num_labels, sorted(model.config.id2label.values())) == (2, ["film", "spam"])
        assert model.classifier.weight.shape[0] == 2
        assert model.config.problem_type == "single_label_classification"
    assert maskhub.pipeline(result.mask, base)("who")[0]["label"] in ("film", "spam")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("key", "count", "labels"), [
    ("num_labels", 3, 2), ("num_labels", 1, 2), ("_num_labels", 3, 2), ("id2label", 3, 2), ("id2label", 2, 2),
    ("label2id", 3, 2), ("problem_type", 2, 2), ("all", 3, 2), ("all", 2, 2), ("all", 2, 3), ("all", 3, 1),
])  # fmt: skip
def test_labels_of_a_pruned_checkpoint_are_its_own(
    bert: Path, tmp_path: Path, key: str, count: int, labels: int, named: bool
) -> None:
    """Also where its configuration leaves them out, as two labels without names are."""
    base = changed(bert, tmp_path / "base", **labels_of(count, key))
    config = BertConfig.from_pretrained(bert, num_labels=labels)
    if named:
        config.id2label = {i: f"NEW_{i}" for i in range(labels)}
        config.label2id = {name: i for i, name in config.id2label.items()}
    for kind in ("SequenceClassification", "TokenClassification", *(["QuestionAnswering"] if labels == 2 else [])):
        pruned = getattr(transformers, f"BertFor{kind}").from_pretrained(base, config=config)
        with torch.no_grad():
            pruned.bert.encoder.layer[0].output.dense.weight[0] = 0
        pruned.save_pretrained(tmp_path / f"{kind}-pruned")
        maskhub.pack(tmp_path / f"{kind}-pruned", tmp_path / f"{kind}.msk", base=base)
        maskhub.apply(base, tmp_path / f"{kind}.msk", tmp_path / kind)
        dense = type(pruned).from_pretrained(tmp_path / kind)
        for model in (dense, maskhub.load_model(base, tmp_path / f"{kind}.msk")):
            assert model.config.id2label == config.id2label
            assert model.config.label2id == config.label2id
            assert model.config.problem_type is None
            found = model.state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in pruned.state_dict().items())


@pytest.mark.parametrize("labels", [2, 3])
def test_a_base_with_a_classifier_gets_a_new_one(bert: Path, task: Path, tmp_path: Path, labels: int) -> None:
    base = with_classifier(bert, tmp_path / "base", labels)
    said: list[str] = []
    result = learn(
        toy.settings(base, task, epochs=0.2, eval_steps=1, classifier="dense"), tmp_path / "run", say=said.append
    )
    assert "Classifier: a new one; the base's own is left out (--keep-head begins with it)" in said
    mask = maskhub.open(result.mask)
    assert set(mask.dense) == {"classifier.weight", "classifier.bias"}
    assert not any("classifier" in name for name in mask.base.tensors)
    # As new as on the bare base.
    bare = learn(toy.settings(bert, task, epochs=0.2, eval_steps=1, classifier="frozen"), tmp_path / "bare")
    same = learn(toy.settings(base, task, epochs=0.2, eval_steps=1, classifier="frozen"), tmp_path / "same")
    spread = [maskhub.open(run.mask).dense["classifier.weight"].numpy().std() for run in (bare, same)]
    old = load_file(base / "model.safetensors")["classifier.weight"]
    assert spread[0] == pytest.approx(spread[1], rel=0.5)
    assert maskhub.open(same.mask).dense["classifier.bias"].numpy().tolist() == [0, 0]
    assert not torch.equal(torch.from_numpy(maskhub.open(same.mask).dense["classifier.weight"].numpy().copy()), old[:2])
    maskhub.apply(base, result.mask, tmp_path / "dense")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")


def test_the_old_classifier_for_who_wants_it(bert: Path, task: Path, tmp_path: Path) -> None:
    base = with_classifier(bert, tmp_path / "base", 2)
    said: list[str] = []
    settings = toy.settings(base, task, epochs=0.2, eval_steps=1, classifier="frozen", keep_head=True)
    mask = maskhub.open(learn(settings, tmp_path / "run", say=said.append).mask)
    assert "Classifier: begins as the base's own" in said
    old = load_file(base / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        assert mask.dense[name].numpy().tolist() == old[name].tolist()
    trained = learn(toy.settings(base, task, classifier="dense", keep_head=True), tmp_path / "dense")
    assert maskhub.open(trained.mask).dense["classifier.bias"].numpy().tolist() != old["classifier.bias"].tolist()
    three = with_classifier(bert, tmp_path / "three", 3)
    for wrong, what in ((three, "with 2 labels"), (bert, "")):
        with pytest.raises(ArgumentError, match=f"keep_head: .* has no layer for text-classification {what}".rstrip()):
            learn(toy.settings(wrong, task, keep_head=True), tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("said", [None, [], ["BertModel"], ["OwnClassifier"], ["BertForTokenClassification"]], ids=str)
def test_a_classifier_is_new_whatever_class_the_base_says_it_is(
    bert: Path, task: Path, tmp_path: Path, said: Any
) -> None:
    base = with_classifier(bert, tmp_path / "finetuned", 2)
    base = changed(base, tmp_path / "base", architectures=said)
    lines: list[str] = []
    settings = toy.settings(base, task, epochs=0.2, eval_steps=1, classifier="frozen")
    mask = maskhub.open(learn(settings, tmp_path / "run", say=lines.append).mask)
    assert "Classifier: a new one; the base's own is left out (--keep-head begins with it)" in lines
    assert mask.dense["classifier.bias"].numpy().tolist() == [0, 0]
    model = AutoModelForSequenceClassification.from_pretrained(base)
    maskhub.training.mask_model(model, base)
    assert model.classifier.weight.requires_grad
    maskhub.training.pack(model, tmp_path / "own.msk")
    assert set(maskhub.open(tmp_path / "own.msk").dense) == {"classifier.weight", "classifier.bias"}


def modernbert(folder: Path, head: str, **config: Any) -> Path:
    sizes = {
        "vocab_size": len(tiny.VOCAB), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
        "eos_token_id": 3, "local_attention": 16,
    }  # fmt: skip
    torch.manual_seed(3)
    model = getattr(transformers, f"ModernBert{head}")(transformers.ModernBertConfig(**sizes, **config))
    torch.nn.init.normal_(model.head.norm.weight)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | tokens))
    return folder


@pytest.mark.parametrize("own_loop", [False, True])
def test_a_head_that_was_pretrained_is_the_bases(task: Path, tmp_path: Path, own_loop: bool) -> None:
    """ModernBERT's prediction head: layers beside the body, which the task's class has as well."""
    base = modernbert(tmp_path / "base", "ForMaskedLM")
    lines: list[str] = []
    if own_loop:
        model = AutoModelForSequenceClassification.from_pretrained(base)
        maskhub.training.mask_model(model, base)
        maskhub.training.pack(model, tmp_path / "task.msk")
        mask = maskhub.open(tmp_path / "task.msk")
    else:
        result = learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run", say=lines.append)
        mask, model = maskhub.open(result.mask), result.model
    assert set(mask.dense) == {"classifier.weight", "classifier.bias"}
    assert {"head.dense.weight", "head.norm.weight"} <= mask.base.tensors.keys()
    stored = load_file(base / "model.safetensors")
    assert torch.equal(model.head.norm.weight, stored["head.norm.weight"])
    assert not any(line.startswith("Classifier") for line in lines)
    maskhub.apply(base, mask, tmp_path / "dense")
    built = load_file(tmp_path / "dense/model.safetensors")
    for name in ("head.dense.weight", "head.norm.weight"):
        assert torch.equal(built[name], stored[name])
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense")


def test_a_head_that_was_finetuned_for_another_task_is_not_the_bases(task: Path, tmp_path: Path) -> None:
    base = modernbert(tmp_path / "base", "ForSequenceClassification", num_labels=3)
    lines: list[str] = []
    result = learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run", say=lines.append)
    assert "Classifier: a new one; the base's own is left out (--keep-head begins with it)" in lines
    mask = maskhub.open(result.mask)
    assert set(mask.dense) == {"classifier.weight", "classifier.bias", "head.dense.weight", "head.norm.weight"}
    assert mask.dense["head.norm.weight"].numpy().std() < 0.1  # as new: the old one is drawn from a normal distribution


def test_weights_that_do_not_fit_their_configuration(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layer.1.output.dense.weight"))
    save_file(tensors | {name: tensors[name][:, :-2].contiguous()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"layer\.1\.output\.dense\.weight has the shape \[.*its config\.json says"
    ):
        learn(toy.settings(base, task), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tokens_that_the_model_does_not_embed(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(base)
    with pytest.raises(CheckpointError, match=r"tokens up to \d+ \('newword'\), and the model embeds") as caught:
        learn(toy.settings(base, task), tmp_path / "run")
    assert "resize_token_embeddings" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()
    model = AutoModel.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(base)
    learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run")


def test_a_base_that_answers_in_tuples(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base", return_dict=False, output_hidden_states=True, output_attentions=True)
    settings = toy.settings(base, task, epochs=0.5, eval_steps=2)
    result = learn(settings, tmp_path / "run")
    plain = learn(toy.settings(bert, task, epochs=0.5, eval_steps=2), tmp_path / "plain")
    assert result.metrics == plain.metrics
    examples = read_file(task / "eval.jsonl")
    assert evaluate(base, result.mask, examples) == evaluate(bert, plain.mask, examples)


@pytest.mark.parametrize(("stored", "said"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", None)])
def test_a_base_is_loaded_as_it_is_stored(
    bert: Path, task: Path, tmp_path: Path, stored: str, said: str | None
) -> None:
    base = changed(bert, tmp_path / "base")
    dtype = getattr(torch, stored)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config.pop("dtype", None)
    (base / "config.json").write_text(json.dumps(config | ({"dtype": said} if said else {})))
    result = learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run")
    maskhub.apply(base, result.mask, tmp_path / "dense")
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense").eval()
    live = maskhub.load_model(base, result.mask)
    for model in (result.model, live, dense):
        assert model.dtype == dtype
    tokens = torch.arange(5, 21).reshape(2, 8)
    with torch.no_grad():
        trained = result.model.eval()(input_ids=tokens).logits
        assert torch.equal(live(input_ids=tokens).logits, trained)
        assert torch.equal(dense(input_ids=tokens).logits, trained)


def test_dtypes_that_differ_are_both_named(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    for other, name in ((torch.float32, "F32"), (torch.float8_e4m3fn, "F8_E4M3")):
        mixed = {n: tensor.to(other if "LayerNorm" in n else torch.bfloat16) for n, tensor in tensors.items()}
        save_file(mixed, base / "model.safetensors", {"format": "pt"})
        with pytest.raises(TrainingError, match=f"it is stored in BF16 and {name}, and loaded in BF16") as caught:
            learn(toy.settings(base, task), tmp_path / "run")
        assert "dtype" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()
    model = AutoModelForSequenceClassification.from_pretrained(bert, dtype=torch.bfloat16)
    with pytest.raises(TrainingError, match="it is stored in F32, and loaded in BF16"):
        maskhub.training.mask_model(model, bert)


q, c = "quantization_config", "compression_config"
CT = {"quant_method": "compressed-tensors"}
DENSE, BITMASK = {"format": "dense", "sparsity_structure": "unstructured"}, {"format": "sparse-bitmask"}


@pytest.mark.parametrize(
    ("key", "config", "kind"),
    [
        (q, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "load_in_4bit"),
        (q, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        (q, {"quant_method": "gptq", "bits": 4}, "gptq"), (q, {"quant_method": "awq", "bits": 4}, "awq"),
        (q, {"quant_method": "fp8"}, "fp8"), (q, {"bits": 4}, "unknown"),
        (q, CT | {"format": "pack-quantized"}, "compressed-tensors"),
        (q, CT | {"format": "dense", "config_groups": {"group_0": {}}}, "compressed-tensors"),
        (q, CT | {"format": "dense", "config_groups": {}, "sparsity_config": BITMASK}, "sparse-bitmask"),
        (q, CT | {"sparsity_config": BITMASK}, "sparse-bitmask"),
        (c, CT | {"format": "int-quantized"}, "compressed-tensors"),
        (c, {q: CT | {"format": "int-quantized"}, "sparsity_config": DENSE}, "compressed-tensors"),
        (c, {q: CT | {"format": "dense"}, "sparsity_config": BITMASK}, "sparse-bitmask"),
        (c, {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ("sparsity_config", BITMASK, "sparse-bitmask"),
    ],
)  # fmt: skip
def test_a_quantised_base_is_named(
    bert: Path, task: Path, tmp_path: Path, key: str, config: Changes, kind: str
) -> None:
    base = changed(bert, tmp_path / "base", **{key: config})
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    message = rf"its weights are quantised or packed \({kind}\), and masks need them as floating-point numbers"
    with pytest.raises(CheckpointError, match=message):
        learn(toy.settings(base, task), tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        maskhub.training.mask_model(model, base)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("end", "kind"), [("qweight", "GPTQ or AWQ"), ("weight.absmax", "bitsandbytes"), ("weight.SCB", "bitsandbytes")]
)
def test_a_quantised_base_is_known_by_its_tensors(bert: Path, task: Path, tmp_path: Path, end: str, kind: str) -> None:
    """Where its ``config.json`` does not tell: GPTQ's was a file of its own."""
    base = changed(bert, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors[f"encoder.layer.0.output.dense.{end}"] = torch.zeros(2, 2, dtype=torch.int32)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"quantised or packed \({kind}\)"):
        learn(toy.settings(base, task), tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "config"),
    [
        (q, {}), (q, CT | {"format": "dense", "config_groups": {}, "sparsity_config": DENSE}),
        (q, CT | {"format": "dense"}), (q, CT | {"sparsity_config": DENSE}),
        (c, {q: CT | {"format": "dense"}, "sparsity_config": DENSE}), (c, {"sparsity_config": DENSE}),
        ("sparsity_config", DENSE),
    ],
)  # fmt: skip
def test_a_base_that_a_sparsifier_stored_densely_is_as_any(
    bert: Path, task: Path, tmp_path: Path, key: str, config: Changes
) -> None:
    """Its tool is not asked for, neither to train nor by the dense build."""
    base = changed(bert, tmp_path / "base", **{key: config})
    result = learn(toy.settings(base, task, epochs=0.2, eval_steps=1), tmp_path / "run")
    maskhub.apply(base, result.mask, tmp_path / "dense")
    assert key not in json.loads((tmp_path / "dense/config.json").read_text())
    dense = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense").eval()
    tokens = torch.arange(5, 21).reshape(2, 8)
    with torch.no_grad():
        assert torch.equal(dense(input_ids=tokens).logits, result.model.eval()(input_ids=tokens).logits)


def test_an_adapter_in_the_bases_folder_is_left_alone(bert: Path, task: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = changed(bert, tmp_path / "base")
    model = peft.get_peft_model(AutoModel.from_pretrained(bert), peft.LoraConfig(target_modules=["query"], r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(base)
    assert (base / "adapter_config.json").is_file()
    settings = {"epochs": 0.2, "eval_steps": 1}
    with_adapter = learn(toy.settings(base, task, **settings), tmp_path / "with")
    without = learn(toy.settings(bert, task, **settings), tmp_path / "without")
    assert maskhub.open(with_adapter.mask).id == maskhub.open(without.mask).id
    assert not any("lora" in name for name in with_adapter.model.state_dict())


def test_an_old_index_beside_the_weights_is_left_alone(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base")
    old = {name: tensor + 1 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(old, base / "model-00001-of-00001.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(old, "model-00001-of-00001.safetensors")}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    settings = {"epochs": 0.2, "eval_steps": 1}
    found = learn(toy.settings(base, task, **settings), tmp_path / "with")
    assert (
        maskhub.open(found.mask).id == maskhub.open(learn(toy.settings(bert, task, **settings), tmp_path / "w").mask).id
    )


def test_a_base_of_one_file_under_any_name(bert: Path, task: Path, tmp_path: Path) -> None:
    base = changed(bert, tmp_path / "base")
    (base / "model.safetensors").rename(base / "weights.safetensors")
    result = learn(toy.settings(base / "weights.safetensors", task, epochs=0.2, eval_steps=1), tmp_path / "run")
    maskhub.verify(result.mask, base=bert)
