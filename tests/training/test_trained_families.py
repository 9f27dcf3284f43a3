"""Families besides those of the other tests: a mask is learned, built and loaded, with the same logits bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import maskhub
from maskhub.errors import TrainingError
from maskhub.training.train import learn
from tests import tiny, toy

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = len(tiny.VOCAB) + 1  # and one that some tokenizers add
ENCODER = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.1,
}  # fmt: skip
DECODER = ENCODER | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
RELATIVE = {
    "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16,
    "position_biased_input": False, "pooler_hidden_size": 32,
}  # fmt: skip
# By configuration: the base's class, sizes, and how many weights are masked.
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "DebertaV2Config": ("DebertaV2Model", ENCODER | RELATIVE, 16),
    "MPNetConfig": ("MPNetModel", ENCODER | {"pad_token_id": 1}, 13),
    "ModernBertConfig": ("ModernBertModel", ENCODER | {
        "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 16,
    }, 8),
    "XLNetConfig": ("XLNetModel", {
        "vocab_size": WORDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.1,
    }, 4),
    "LongformerConfig": ("LongformerModel", ENCODER | {"attention_window": 8, "pad_token_id": 1}, 19),
    "BigBirdConfig": ("BigBirdModel", ENCODER | {"attention_type": "original_full"}, 13),
    "OPTConfig": ("OPTModel", {
        "vocab_size": WORDS, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 32, "pad_token_id": 0, "init_std": 0.1,
    }, 12),
    "BloomConfig": ("BloomModel", {
        "vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0, "initializer_range": 0.1,
    }, 8),
    "Gemma2Config": ("Gemma2ForCausalLM", DECODER | {"head_dim": 8, "query_pre_attn_scalar": 8}, 14),
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "SqueezeBertConfig": (
        "SqueezeBertModel", ENCODER | {"embedding_size": 32}, r"layers\.0\.attention\.query \(Conv1d\) is none",
    ),
    "MixtralConfig": (
        "MixtralForCausalLM", DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2},
        r"model\.layers\.0\.mlp\.experts\.\w+ equals no tensor",
    ),
}  # fmt: skip


def make_base(config: str, kind: str, sizes: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    getattr(transformers, kind)(getattr(transformers, config)(**sizes)).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    # No limit of lengths, as XLNet's says none.
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | tokens))
    return folder


@pytest.mark.parametrize("config", FAMILIES)
def test_a_mask_is_learned_built_and_loaded(config: str, task: Path, tmp_path: Path) -> None:
    kind, sizes, masked = FAMILIES[config]
    base = make_base(config, kind, sizes, tmp_path / "base")
    learned = learn(toy.settings(base, task, recipe="default", epochs=0.6, eval_steps=3), tmp_path / "run")
    assert len(maskhub.open(learned.mask).masks) == masked
    maskhub.apply(base, learned.mask, tmp_path / "dense")
    model: Any = getattr(transformers, type(learned.model).__name__)
    dense, report = model.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not any(report.values())
    tokens = torch.arange(4, 28).reshape(2, 12)
    with torch.no_grad():
        trained, live, built = (
            one.eval()(input_ids=tokens).logits
            for one in (learned.model, maskhub.load_model(base, learned.mask), dense)
        )
    assert torch.equal(trained, live)
    assert torch.equal(trained, built)


@pytest.mark.parametrize("config", REFUSED)
def test_what_cannot_be_masked_names_its_layer(config: str, task: Path, tmp_path: Path) -> None:
    kind, sizes, message = REFUSED[config]
    base = make_base(config, kind, sizes, tmp_path / "base")
    with pytest.raises(TrainingError, match=message):
        learn(toy.settings(base, task), tmp_path / "run")
    assert not (tmp_path / "run").exists()
