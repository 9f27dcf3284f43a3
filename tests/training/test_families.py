"""The whole way for each family of models: prune, pack, apply, load, and the logits are the masked model's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = 96
TOKENS = torch.arange(24).reshape(2, 12) * 7 % VOCABULARY
DECODER = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
VIT = {
    "image_size": 16, "patch_size": 4, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """``base`` is the class that the base checkpoint is of, ``task`` the one that is pruned."""

    config: str
    base: str
    task: str
    kind: str
    sizes: dict[str, Any]
    shard: str = "1GB"
    dtype: str = "float32"
    head: set[str] = field(default_factory=set)  # what only the task model has

    def inputs(self) -> dict[str, Any]:
        if self.kind == "image-classification":
            pixels = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
            return {"pixel_values": pixels.to(getattr(torch, self.dtype))}
        more = {"decoder_input_ids": TOKENS[:, :5]} if self.kind == "text2text-generation" else {}
        return {"input_ids": TOKENS, **more}


GENERATION = "text-generation"
FAMILIES = {
    "gpt2": Family("GPT2Config", "GPT2Model", "GPT2LMHeadModel", GENERATION, GPT2),
    "gpt2-head": Family("GPT2Config", "GPT2LMHeadModel", "GPT2LMHeadModel", GENERATION, GPT2, shard="20KB"),
    "llama": Family("LlamaConfig", "LlamaForCausalLM", "LlamaForCausalLM", GENERATION, DECODER, "20KB", "bfloat16"),
    "llama-bare": Family(
        "LlamaConfig", "LlamaModel", "LlamaForCausalLM", GENERATION, DECODER, head={"lm_head.weight"}
    ),
    "llama-classifier": Family(
        "LlamaConfig", "LlamaForCausalLM", "LlamaForSequenceClassification", "text-classification",
        DECODER | {"pad_token_id": VOCABULARY - 1}, head={"score.weight"},
    ),
    "qwen2": Family(
        "Qwen2Config", "Qwen2ForCausalLM", "Qwen2ForCausalLM", GENERATION, DECODER | {"tie_word_embeddings": True}
    ),
    "qwen3": Family(
        "Qwen3Config", "Qwen3ForCausalLM", "Qwen3ForCausalLM", GENERATION,
        DECODER | {"tie_word_embeddings": True, "head_dim": 8}, "20KB", "bfloat16",
    ),
    "mistral": Family("MistralConfig", "MistralForCausalLM", "MistralForCausalLM", GENERATION, DECODER, "20KB"),
    "mixtral": Family("MixtralConfig", "MixtralForCausalLM", "MixtralForCausalLM", GENERATION, DECODER | EXPERTS),
    "t5": Family(
        "T5Config", "T5ForConditionalGeneration", "T5ForConditionalGeneration", "text2text-generation", T5, "20KB"
    ),
    "bert": Family(
        "BertConfig", "BertModel", "BertForMaskedLM", "fill-mask", BERT,
        head={"cls.predictions.bias", *(
            f"cls.predictions.transform.{n}.{p}" for n in ("dense", "LayerNorm") for p in ("weight", "bias")
        )},
    ),
    "vit": Family(
        "ViTConfig", "ViTModel", "ViTForImageClassification", "image-classification", VIT, "20KB",
        head={"classifier.weight", "classifier.bias"},
    ),
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def make_base(family: Family, folder: Path) -> Checkpoint:
    """A random base model, saved by transformers."""
    torch.manual_seed(0)
    config = getattr(transformers, family.config)(**family.sizes)
    model = getattr(transformers, family.base)(config).to(getattr(torch, family.dtype))
    model.save_pretrained(folder, max_shard_size=family.shard)
    return open_checkpoint(folder)


def prune(model: Any) -> None:
    """Set a fifth of every other matrix to 0, in place; the embeddings are the first."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for matrix in [p for p in model.parameters() if p.dim() >= 2][::2]:
            matrix[torch.rand(matrix.shape, generator=generator) < 0.2] = 0


def load(task: Any, folder: Path) -> Any:
    """The dense checkpoint as plain transformers loads it, with every key accounted for."""
    model, report = task.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(model: Any, family: Family) -> Any:
    with torch.inference_mode():
        return model(**family.inputs()).logits


def tied(model: Any) -> set[tuple[str, ...]]:
    """Names that are one and the same parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {tuple(sorted(same)) for same in names.values() if len(same) > 1}


def test_a_pruned_model_goes_the_whole_way(family: Family, tmp_path: Path) -> None:
    base = make_base(family, tmp_path / "base")
    assert (len(base.shards) > 1) == (family.shard == "20KB")
    task = getattr(transformers, family.task)
    torch.manual_seed(2)
    model = task.from_pretrained(tmp_path / "base").eval()
    whole = logits(model, family)
    prune(model)
    model.save_pretrained(tmp_path / "pruned", max_shard_size=family.shard)

    maskset = from_pruned(base, open_checkpoint(tmp_path / "pruned"))
    assert maskset.dense.keys() == family.head
    assert maskset.task
    assert (maskset.task.type, maskset.task.architecture) == (family.kind, family.task)
    assert len(maskset.masks) > 3
    assert all(mask.sparsity < 0.5 for mask in maskset.masks.values())
    maskhub.save(maskset, tmp_path / "task.msk")
    dense = tiny.build(base, maskhub.open(tmp_path / "task.msk"), tmp_path / "dense")

    loaded = load(task, dense)
    assert loaded.dtype == model.dtype == getattr(torch, family.dtype)
    assert tied(loaded) == tied(model)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    in_memory = maskhub.load_model(base, tmp_path / "task.msk")
    assert type(in_memory) is task
    assert in_memory.dtype == model.dtype
    assert tied(in_memory) == tied(model)
    result = logits(model, family)
    assert torch.isfinite(result).all()
    assert not torch.equal(result, whole)
    assert torch.equal(logits(loaded, family), result)
    assert torch.equal(logits(in_memory, family), result)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("qwen2", "model.embed_tokens.weight", "lm_head.weight"),
        ("gpt2-head", "transformer.wte.weight", "lm_head.weight"),
        ("t5", "shared.weight", "encoder.embed_tokens.weight"),
    ],
)
def test_a_base_may_store_tied_weights_twice(name: str, first: str, second: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    family = dataclasses.replace(FAMILIES[name], shard="1GB")
    make_base(family, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    assert second not in tensors
    save_file(tensors | {second: tensors[first].clone()}, file, {"format": "pt"})
    task = getattr(transformers, family.task)
    model = task.from_pretrained(tmp_path / "base").eval()
    prune(model)
    model.save_pretrained(tmp_path / "pruned")

    base = open_checkpoint(tmp_path / "base")
    maskset = from_pruned(base, open_checkpoint(tmp_path / "pruned"))
    assert first in maskset.masks
    assert second not in maskset.base.tensors
    loaded = load(task, tiny.build(base, maskset, tmp_path / "dense"))
    assert tied(loaded) == tied(model) != set()
    assert torch.equal(logits(loaded, family), logits(model, family))
    assert torch.equal(logits(maskhub.load_model(base, maskset), family), logits(model, family))
