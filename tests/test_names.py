from __future__ import annotations

import pytest

from maskhub.names import locate


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", 0, "Q"),
        ("encoder.layer.11.attention.self.key.weight", 11, "K"),
        ("roberta.encoder.layer.3.attention.self.value.weight", 3, "V"),
        ("encoder.layer.2.attention.output.dense.weight", 2, "AO"),
        ("encoder.layer.2.intermediate.dense.weight", 2, "I"),
        ("encoder.layer.2.output.dense.weight", 2, "O"),
        ("distilbert.transformer.layer.5.attention.q_lin.weight", 5, "Q"),
        ("transformer.layer.5.attention.k_lin.weight", 5, "K"),
        ("transformer.layer.5.attention.v_lin.weight", 5, "V"),
        ("transformer.layer.5.attention.out_lin.weight", 5, "AO"),
        ("transformer.layer.5.ffn.lin1.weight", 5, "I"),
        ("transformer.layer.5.ffn.lin2.weight", 5, "O"),
        ("bert.pooler.dense.weight", None, "P"),
        ("pooler.dense.weight", None, "P"),
        ("model.layers.7.mlp.gate_proj.weight", 7, "mlp.gate_proj"),
        ("h.10.attn.c_attn.weight", 10, "attn.c_attn"),
        ("classifier.weight", None, "classifier"),
        ("classifier.out_proj.weight", None, "classifier.out_proj"),
        ("0.weight", None, "0"),
        ("spooler.dense.weight", None, "spooler.dense"),
        ("", None, ""),
    ],
)
def test_layer_and_matrix(name: str, layer: int | None, kind: str) -> None:
    assert locate(name) == (layer, kind)
