from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import (
    ArgumentError,
    BaseMismatchError,
    CheckpointError,
    FormatError,
    MaskhubError,
    MissingError,
    OutOfMemoryError,
)
from maskhub.masks.mask import MaskSet
from maskhub.runtime.load import load_model, load_processor, pipeline, processor_from
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import from_torch, to_torch
from tests import tiny


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Checkpoint:
    return open_checkpoint(tiny_bert)


@pytest.fixture(scope="module")
def task(bert: Checkpoint) -> MaskSet:
    return tiny.tiny_maskset(bert, name=str(bert.folder))


def test_masked_weights_in_a_model_of_the_tasks_class(bert: Checkpoint, task: MaskSet) -> None:
    model = load_model(bert, task)
    assert type(model) is transformers.BertForSequenceClassification
    assert not model.training
    assert model.config.id2label == {0: "ham", 1: "spam"}
    state = model.state_dict()
    for name in bert:
        weight = bert.read(name).numpy()
        expected = np.where(task[name].to_bool(), weight, 0) if name in task.masks else weight
        assert np.array_equal(state[f"bert.{name}"].numpy(), expected)
    for name, tensor in task.dense.items():
        assert np.array_equal(state[name].numpy(), tensor.numpy())


def test_all_ways_to_name_base_and_mask(bert: Checkpoint, task: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "task.msk"
    maskhub.save(task, path)
    inputs = {"input_ids": torch.tensor([[2, 10, 11, 3]])}
    logits = [
        load_model(base, mask)(**inputs).logits.tolist()
        for base, mask in ((bert, task), (bert.folder, path), (str(bert.folder), str(path)))
    ]
    assert logits[0] == logits[1] == logits[2]


def test_another_base(task: MaskSet, tmp_path: Path) -> None:
    other = tiny.tiny_model("bert", tmp_path / "other", seed=1)
    with pytest.raises(BaseMismatchError) as caught:
        load_model(other, task)
    assert str(caught.value).startswith(f"{other}: not the base this mask was made for: it differs in ")
    assert "encoder.layer.0.attention.self.query.weight" in caught.value.tensors
    assert type(load_model(other, task, verify=False)) is transformers.BertForSequenceClassification


def with_task(task: MaskSet, **changes: Any) -> MaskSet:
    assert task.task is not None
    return dataclasses.replace(task, task=msgspec.structs.replace(task.task, **changes))


def test_out_of_memory_is_not_the_masks_fault(bert: Checkpoint, task: MaskSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own error, at the place where a model is made."""
    kind = transformers.BertForSequenceClassification
    monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: torch.empty(1 << 60))
    with pytest.raises(OutOfMemoryError) as caught:
        load_model(bert, task)
    assert caught.value.message == "not enough memory for BertForSequenceClassification"


def test_masks_that_make_no_model(bert: Checkpoint, task: MaskSet) -> None:
    for name in ("NoSuchModel", "load_model", "Trainer", "os"):
        with pytest.raises(FormatError) as caught:
            load_model(bert, with_task(task, architecture=name))
        assert caught.value.message == (
            f"the task's architecture {name!r} is no model class of transformers {transformers.__version__}"
        )
    with pytest.raises(FormatError) as caught:
        load_model(bert, with_task(task, architecture="BertForTokenClassification"))
    assert caught.value.message == (
        "the mask does not fit BertForTokenClassification: parameters missing or unknown: "
        "bert.pooler.dense.bias, bert.pooler.dense.weight"
    )
    with pytest.raises(FormatError, match=r"does not fit BertForSequenceClassification: .*: classifier.bias"):
        load_model(bert, dataclasses.replace(task, dense={"classifier.weight": task.dense["classifier.weight"]}))


def test_a_mask_without_a_task_is_loaded_as_the_base(bert: Checkpoint, task: MaskSet) -> None:
    binding = msgspec.structs.replace(task.base, parameter_prefix="")
    plain = dataclasses.replace(task, base=binding, dense={}, task=None)
    assert type(load_model(bert, plain)) is transformers.BertModel


def test_tokenizers(bert: Checkpoint, task: MaskSet, tmp_path: Path) -> None:
    assert load_processor(bert, task)("free prize")["input_ids"] == [2, 22, 24, 3]
    other = tmp_path / "tokenizer"
    shutil.copytree(bert.folder, other, ignore=shutil.ignore_patterns("model*"))
    assert load_processor(bert, with_task(task, tokenizer=str(other)))("who")["input_ids"] == [2, 9, 3]
    for path in other.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError) as caught:
        processor_from(other, "some/base")
    assert caught.value.message == "some/base: the folder has no tokenizer"
    (other / "tokenizer.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"^some/base: its tokenizer cannot be loaded: "):
        processor_from(other, "some/base")


def test_pipelines(bert: Checkpoint, task: MaskSet, tmp_path: Path) -> None:
    maskhub.save(task, tmp_path / "task.msk")
    texts = ["free prize now", "who is it"]
    model, tokenizer = load_model(bert, task), load_processor(bert, task)
    with torch.inference_mode():
        odds = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0] for text in texts]
    expected = [{"label": ("ham", "spam")[int(o.argmax())], "score": float(o.max())} for o in odds]
    for pipe in (pipeline(tmp_path / "task.msk"), maskhub.pipeline(task, bert.folder, "text-classification")):
        assert isinstance(pipe, transformers.TextClassificationPipeline)
        said = pipe(texts)
        assert [s["label"] for s in said] == [e["label"] for e in expected]
        assert [s["score"] for s in said] == pytest.approx([e["score"] for e in expected], rel=1e-6)


def test_a_pipeline_whose_base_is_not_there(task: MaskSet, tmp_path: Path) -> None:
    gone = task.with_base_name("/no/such/base")
    with pytest.raises(MissingError) as caught:
        pipeline(gone)
    assert caught.value.message == "/no/such/base: no such folder (the base that the mask names)"
    assert caught.value.hint == "Pass base=..., a folder or a Hub id."
    with pytest.raises(MissingError, match=r"^/nor/this: no such folder\. Name "):
        pipeline(gone, "/nor/this")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
        torch.int64, torch.int8, torch.uint8, torch.bool,
    ],
)  # fmt: skip
def test_tensors_keep_their_bits(dtype: torch.dtype) -> None:
    data = torch.arange(48, dtype=torch.uint8)
    data = data % 2 if dtype == torch.bool else data * 5
    tensor = data.view(dtype).reshape(2, -1)
    raw = from_torch(tensor)
    assert raw.shape == tuple(tensor.shape)
    back = to_torch(raw)
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.view(torch.uint8), tensor.view(torch.uint8))
    assert np.array_equal(from_torch(tensor.T.contiguous().T).data, raw.data)
    assert to_torch(from_torch(torch.empty(0, 3, dtype=dtype))).shape == (0, 3)
    assert from_torch(torch.ones((), dtype=dtype)).shape == ()


def test_a_dtype_that_torch_lacks() -> None:
    with pytest.raises(MaskhubError, match=r"^torch has no dtype for F8_E8M0$"):
        to_torch(RawTensor("F8_E8M0", (1,), np.zeros(1, np.uint8)))


def test_loading_prints_nothing(bert: Checkpoint, task: MaskSet, tmp_path: Path) -> None:
    maskhub.save(task, tmp_path / "task.msk")
    code = f"import maskhub; print(type(maskhub.load_model({str(bert.folder)!r}, 'task.msk')).__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("BertForSequenceClassification\n", "")


@pytest.mark.parametrize("call", ["load_model(base, mask)", "pipeline(mask)", "predict(base, mask, 'who is it')"])
def test_without_torch_the_extra_is_named(call: str, bert: Checkpoint, task: MaskSet, tmp_path: Path) -> None:
    maskhub.save(task, tmp_path / "task.msk")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import maskhub\n"
        f"base, mask = {str(bert.folder)!r}, 'task.msk'\n"
        f"try: maskhub.{call}\n"
        "except maskhub.MaskhubError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout == f"{call.partition('(')[0]} needs torch. Install it: pip install 'maskhub[train]'.\n"


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", None])
@pytest.mark.parametrize("place", [{}, {"device": "cpu"}, {"device_map": {"": "cpu"}}, {"device_map": "cpu"}])
def test_dtype_and_device(bert: Checkpoint, task: MaskSet, dtype: Any, place: dict[str, Any], tmp_path: Path) -> None:
    """As transformers loads the dense checkpoint."""
    dense = tiny.build(bert, task, tmp_path / "dense")
    options = {"dtype": dtype} if dtype else {}
    right = transformers.AutoModelForSequenceClassification.from_pretrained(dense, **options)
    model = load_model(bert, task, dtype=dtype, **place)
    assert (model.device.type, model.dtype) == ("cpu", right.dtype)
    assert not model.training
    found, expected = model.state_dict(), right.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert from_torch(found[name]).data.tobytes() == from_torch(tensor).data.tobytes()
    inputs = {"input_ids": torch.tensor([[2, 10, 11, 3]])}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, right(**inputs).logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert.folder)
    classify = transformers.pipeline("text-classification", model=right, tokenizer=tokenizer)
    assert pipeline(task, bert, dtype=dtype, **place)("who wins") == classify("who wins")


@pytest.mark.parametrize("option", [{"dtype": "float99"}, {"device_map": {"": "nowhere"}}, {"device": "nowhere"}])
def test_a_dtype_or_device_that_is_none(bert: Checkpoint, task: MaskSet, option: dict[str, Any]) -> None:
    (said,) = option.values()
    with pytest.raises(ArgumentError, match=next(iter(option))):
        load_model(bert, task, **option)
    if "device_map" not in option:
        with pytest.raises(ArgumentError, match=next(iter(option))):
            maskhub.load_tasks(bert, {"task": task}, **option)
    assert said
