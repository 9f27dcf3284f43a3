"""Reading a parameter's name: which layer it belongs to, and which of the layer's matrices it is."""

from __future__ import annotations

import re

# The paper's letters: query, key, value, attention output, intermediate and output of the feed-forward part, pooler.
KINDS = {
    "attention.self.query": "Q", "attention.self.key": "K", "attention.self.value": "V",
    "attention.output.dense": "AO", "intermediate.dense": "I", "output.dense": "O",
    "attention.q_lin": "Q", "attention.k_lin": "K", "attention.v_lin": "V",
    "attention.out_lin": "AO", "ffn.lin1": "I", "ffn.lin2": "O",
    "pooler.dense": "P",
}  # fmt: skip
ORDER = ("Q", "K", "V", "AO", "I", "O", "P")


def locate(name: str) -> tuple[int | None, str]:
    """Layer index (None outside the layers) and matrix kind: the paper's letter, or the path within the layer."""
    name = name.removesuffix(".weight")
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    layer, path = (int(match[1]), match[2]) if match else (None, name)
    if match is None:
        path = next((known for known in KINDS if path == known or path.endswith("." + known)), path)
    return layer, KINDS.get(path, path)


def order(layer: int | None, kind: str) -> tuple[bool, int, int, str]:
    """A key to sort by: layers as numbered and what is outside them last, in each the paper's kinds in its order."""
    return layer is None, layer or 0, ORDER.index(kind) if kind in ORDER else len(ORDER), kind
