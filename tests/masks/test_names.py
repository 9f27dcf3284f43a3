from __future__ import annotations

import pytest

from maskhub.masks.names import locate


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
        ("h.10.attn.c_proj.weight", 10, "AO"),
        ("transformer.h.0.mlp.c_fc.weight", 0, "I"),
        ("h.0.mlp.c_proj.weight", 0, "O"),
        ("model.layers.7.self_attn.q_proj.weight", 7, "Q"),
        ("model.layers.7.self_attn.o_proj.weight", 7, "AO"),
        ("model.layers.7.mlp.up_proj.weight", 7, "I"),
        ("model.layers.7.mlp.down_proj.weight", 7, "O"),
        ("encoder.albert_layer_groups.0.albert_layers.0.attention.value.weight", 0, "V"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense.weight", 0, "AO"),
        ("encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", 0, "I"),
        ("encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight", 0, "O"),
        ("albert.pooler.weight", None, "P"),
        ("encoder.block.3.layer.0.SelfAttention.k.weight", 3, "K"),
        ("decoder.block.3.layer.1.EncDecAttention.k.weight", 3, "EncDecAttention.k"),
        ("transformer.decoder.block.3.layer.2.DenseReluDense.wo.weight", 3, "O"),
        ("encoder.block.3.layer.1.DenseReluDense.wi_0.weight", 3, "DenseReluDense.wi_0"),
        ("electra.encoder.layer.1.attention.self.key.weight", 1, "K"),
        ("encoder.layer.2.attention.attention.query.weight", 2, "Q"),
        ("vit.layers.2.attention.q_proj.weight", 2, "Q"),
        ("vit.layers.2.attention.o_proj.weight", 2, "AO"),
        ("vit.layers.2.mlp.fc1.weight", 2, "I"),
        ("classifier.weight", None, "classifier"),
        ("classifier.out_proj.weight", None, "classifier.out_proj"),
        ("0.weight", None, "0"),
        ("spooler.dense.weight", None, "spooler.dense"),
        ("", None, ""),
    ],
)
def test_layer_and_matrix(name: str, layer: int | None, kind: str) -> None:
    assert locate(name) == (layer, kind)
