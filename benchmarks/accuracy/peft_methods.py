"""PEFT's methods as the comparison has them, and the size of the file that each ships."""

from __future__ import annotations

from typing import Any

import torch
from peft import (
    FourierFTConfig,
    IA3Config,
    LoraConfig,
    PeftModel,
    UniLoraConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import save

# Every linear layer of BERT, with the pooler, and of Llama; and query and value.
ALL = ["query", "key", "value", "dense", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLACEMENTS = {"all": ALL, "qv": ["query", "value", "q_proj", "v_proj"]}


def heads(model: Any) -> set[str]:
    """The names of the model's parts that are new to the task and have parameters."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    return {
        name
        for name, part in plain.named_children()
        if name != plain.base_model_prefix and any(True for _ in part.parameters())
    }


def adapted(model: Any, method: str) -> PeftModel:
    """The model with a method's adapter on it, and its head to be trained whole."""
    common: dict[str, Any] = {"modules_to_save": sorted(heads(model))}
    kind, *parts = method.split("-")
    if kind == "lora":
        placement, rank = parts
        r = int(rank.removeprefix("rs"))
        config = LoraConfig(
            r=r, lora_alpha=2 * r, use_rslora=rank.startswith("rs"), target_modules=PLACEMENTS[placement], **common
        )
    elif kind == "vera":  # its two random matrices are drawn again from a seed by who loads it
        config = VeraConfig(r=256, target_modules=ALL, save_projection=False, **common)
    elif kind == "ia3":
        inner = ["output.dense", "down_proj"]
        outer = ["key", "value", "k_proj", "v_proj"]
        config = IA3Config(target_modules=outer + inner, feedforward_modules=inner, **common)
    elif kind == "fourierft":
        config = FourierFTConfig(n_frequency=1000, target_modules=PLACEMENTS["qv"], init_weights=True, **common)
    elif kind == "unilora":
        config = UniLoraConfig(r=4, theta_d_length=23040, target_modules=ALL, **common)
    else:
        raise ValueError(f"no method {method}")
    return get_peft_model(model, config)


def file_bytes(model: Any, dtype: torch.dtype) -> int:
    """The size of a safetensors file with what was trained, as this type."""
    if isinstance(model, PeftModel):
        trained = get_peft_model_state_dict(model)
    else:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return len(save({name: tensor.detach().to(dtype).contiguous() for name, tensor in trained.items()}))
