"""Reading a parameter's name: which layer it belongs to, and which of the layer's matrices it is."""

from __future__ import annotations

import re

# The paper's letters: query, key, value, attention output, intermediate and output of the feed-forward part, pooler.
# What has no letter there (fused matrices, gates, attention across) keeps its path.
KINDS = {
    # BERT, RoBERTa, ELECTRA, and ViT as it is stored
    "attention.self.query": "Q", "attention.self.key": "K", "attention.self.value": "V",
    "attention.attention.query": "Q", "attention.attention.key": "K", "attention.attention.value": "V",
    "attention.output.dense": "AO", "intermediate.dense": "I", "output.dense": "O", "pooler.dense": "P",
    # ViT as transformers 5 loads it
    "attention.q_proj": "Q", "attention.k_proj": "K", "attention.v_proj": "V", "attention.o_proj": "AO",
    "mlp.fc1": "I", "mlp.fc2": "O",
    # DistilBERT
    "attention.q_lin": "Q", "attention.k_lin": "K", "attention.v_lin": "V", "attention.out_lin": "AO",
    "ffn.lin1": "I", "ffn.lin2": "O",
    # ALBERT
    "attention.query": "Q", "attention.key": "K", "attention.value": "V", "attention.dense": "AO",
    "ffn": "I", "ffn_output": "O", "pooler": "P",
    # GPT-2
    "attn.c_proj": "AO", "mlp.c_fc": "I", "mlp.c_proj": "O",
    # Llama, Mistral, Qwen
    "self_attn.q_proj": "Q", "self_attn.k_proj": "K", "self_attn.v_proj": "V", "self_attn.o_proj": "AO",
    "mlp.up_proj": "I", "mlp.down_proj": "O",
    # T5
    "SelfAttention.q": "Q", "SelfAttention.k": "K", "SelfAttention.v": "V", "SelfAttention.o": "AO",
    "DenseReluDense.wi": "I", "DenseReluDense.wo": "O",
}  # fmt: skip
INNER = re.compile(r"^(?:albert_layers|layer)\.\d+\.")  # ALBERT's layers of a group, and T5's parts of a block
LETTERS = {
    "Q": "query", "K": "key", "V": "value", "AO": "attention's output",
    "I": "feed-forward in", "O": "feed-forward out", "P": "pooler",
}  # fmt: skip
ORDER = ("Q", "K", "V", "AO", "I", "O", "P")


def locate(name: str) -> tuple[int | None, str]:
    """Layer index (None outside the layers) and matrix kind: the paper's letter, or the path within the layer."""
    name = name.removesuffix(".weight")
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    layer, path = (int(match[1]), INNER.sub("", match[2])) if match else (None, name)
    if match is None:
        path = next((known for known in KINDS if path == known or path.endswith("." + known)), path)
    return layer, KINDS.get(path, path)


def order(layer: int | None, kind: str) -> tuple[bool, int, int, str]:
    """A key to sort by: layers as numbered and what is outside them last, in each the paper's kinds in its order."""
    return layer is None, layer or 0, ORDER.index(kind) if kind in ORDER else len(ORDER), kind
