"""The Python in ``docs/deploy.md`` runs as it stands, and gives the masked model's logits."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.demo import SENTENCES
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
TEXTS = list(SENTENCES)
TOLERANCE = 1e-4  # absolute, as the page says


def code(heading: str) -> str:
    """The Python of one section of the page."""
    section = re.split(r"^##+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = (s for s in section if s.startswith(f"{heading}\n"))
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder in which ``spam-classifier`` lies, and the logits of the masked model in memory."""
    folder = tmp_path_factory.mktemp("deploy")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=len(tiny.VOCAB), initializer_range=0.5, **sizes)
    transformers.BertModel(config).save_pretrained(folder / "base")
    tiny.write_tokenizer(folder / "base")  # also for the older transformers that Optimum needs
    base = open_checkpoint(folder / "base")
    maskset = tiny.tiny_maskset(base, sparsity=0.2)
    tiny.build(base, maskset, folder / "spam-classifier")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base")
    with torch.inference_mode():
        logits = maskhub.load_model(base, maskset)(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert logits.abs().max() > 0.1
    assert (logits[0] - logits[1]).abs().max() > 0.1
    return folder, logits


@pytest.fixture
def page(deployed: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's first section defines, where the checkpoint lies."""
    monkeypatch.chdir(deployed[0])
    namespace: dict[str, Any] = {}
    exec(code("transformers"), namespace)
    return namespace


def test_transformers(page: dict[str, Any], deployed: tuple[Path, Any]) -> None:
    assert torch.equal(page["logits"], deployed[1])


def test_safetensors_alone(page: dict[str, Any], deployed: tuple[Path, Any]) -> None:
    exec(code("safetensors alone"), page)
    assert torch.equal(page["logits"], deployed[1])


def test_safetensors_knows_tied_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, load_model

    def gpt2() -> Any:
        sizes = {"vocab_size": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))

    pruned = gpt2()
    pruned.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        pruned.transformer.wte.weight[::3] = 0
    pruned.save_pretrained(tmp_path / "pruned")
    base = open_checkpoint(tmp_path / "base")
    dense = tiny.build(base, from_pruned(base, open_checkpoint(tmp_path / "pruned")), tmp_path / "spam-classifier")
    file = dense / "model.safetensors"
    assert load_model(gpt2(), file) == (set(), [])
    with pytest.raises(RuntimeError, match=r"Missing key.*lm_head\.weight"):
        gpt2().load_state_dict(load_file(file))
    model = gpt2()
    load_model(model, file)
    assert torch.equal(model.lm_head.weight, pruned.transformer.wte.weight)


def test_torch_compile(page: dict[str, Any], deployed: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    exec(code("torch.compile"), page)
    np.testing.assert_allclose(page["logits"], deployed[1], atol=TOLERANCE, rtol=0)


def test_onnx_runtime(page: dict[str, Any], deployed: tuple[Path, Any]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    exec(code("ONNX Runtime"), page)
    np.testing.assert_allclose(page["logits"], deployed[1], atol=TOLERANCE, rtol=0)
    for texts in (["who is the man of the year?", *TEXTS], TEXTS[:1]):
        more = page["tokenizer"](texts, padding=True, return_tensors="pt")
        (logits,) = page["session"].run(["logits"], {name: tensor.numpy() for name, tensor in more.items()})
        with torch.inference_mode():
            np.testing.assert_allclose(logits, page["model"](**more).logits, atol=TOLERANCE, rtol=0)


def test_optimum(page: dict[str, Any], deployed: tuple[Path, Any]) -> None:
    pytest.importorskip("optimum.onnxruntime", exc_type=ImportError)
    exec(code("Optimum"), page)
    np.testing.assert_allclose(page["logits"], deployed[1], atol=TOLERANCE, rtol=0)
