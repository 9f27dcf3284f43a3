"""Bases as they are found: other files beside them, other names, other dtypes, and what is no base at all."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.checkpoint import for_transformers, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.errors import BaseMismatchError, CheckpointError, FormatError, MaskhubError, MissingError
from maskhub.storage.safetensors import TensorFile, write_tensors
from maskhub.storage.tensor import RawTensor
from tests import tiny


def tensors(folder: Path) -> dict[str, RawTensor]:
    file = TensorFile(folder / "model.safetensors")
    return {name: file.read(name) for name in file}


def written(folder: Path, content: dict[str, RawTensor], name: str = "model.safetensors") -> Path:
    with (folder / name).open("wb") as file:
        write_tensors(file, content, {"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_single_file_is_taken_before_an_old_index(tmp_path: Path, kind: str) -> None:
    """As transformers does: the index is of an earlier save."""
    folder = tiny.write_base(tmp_path / "base", shards=2, seed=1)
    new = tiny.base_tensors(seed=2)
    if kind == "safetensors":
        written(folder, new)
    else:
        torch = pytest.importorskip("torch")
        old = {name: torch.from_numpy(t.numpy().copy()) for name, t in tiny.base_tensors(seed=1).items()}
        torch.save(old, folder / "pytorch_model-00001-of-00001.bin")
        index = {"metadata": {}, "weight_map": dict.fromkeys(old, "pytorch_model-00001-of-00001.bin")}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        torch.save({n: torch.from_numpy(t.numpy().copy()) for n, t in new.items()}, folder / "pytorch_model.bin")
        for file in folder.glob("*safetensors*"):
            file.unlink()
    base = open_checkpoint(folder)
    assert all(np.array_equal(base.read(name).numpy(), tensor.numpy()) for name, tensor in new.items())


@pytest.mark.parametrize(("file", "what"), tiny.NO_WEIGHTS.items())
def test_a_folder_without_weights_says_what_it_has(tmp_path: Path, file: str, what: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert f"the folder has {what}" in caught.value.message
    assert f"({file}), and no model.safetensors" in caught.value.message
    assert caught.value.hint
    (tmp_path / file).unlink()
    with pytest.raises(MissingError, match=r"neither model\.safetensors nor"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "task.msk"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    if name.endswith(".bin"):
        pytest.importorskip("torch")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n")
    with pytest.raises(FormatError, match=r"a pointer of Git LFS, not the file itself\. Get the file: git lfs pull\."):
        maskhub.open(tmp_path / name) if name.endswith(".msk") else open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "model.safetensors.index.json"])
def test_a_pointer_of_git_lfs_beside_the_weights_is_named_and_not_copied(
    base_folder: Path, mask_path: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "base")
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n")
    named = rf"base/{name}: a pointer of Git LFS, not the file itself\. Get the file: git lfs pull\."
    with pytest.raises(FormatError, match=named):
        maskhub.apply(folder, mask_path, tmp_path / "built")
    assert not (tmp_path / "built").exists()
    if name in ("tokenizer.json", "vocab.txt"):
        load = pytest.importorskip("maskhub.runtime.load")
        with pytest.raises(FormatError, match=named):
            load.processor_from(folder, "base")


RENAMED = {
    "prefix": lambda name: f"bert.{name}",
    "gamma": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma"),
    "both": lambda name: f"model.bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma')}",
}


@pytest.mark.parametrize("kind", RENAMED)
@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_tensors_under_other_names_are_matched(
    base_folder: Path, mask_path: Path, tmp_path: Path, kind: str, shards: int
) -> None:
    content = {RENAMED[kind](name): tensor for name, tensor in tensors(base_folder).items()}
    config = json.loads((base_folder / "config.json").read_text())
    other = tiny.write_checkpoint(tmp_path / "other", content, shards=shards, config=config)
    told = "under other names, as .* matched by their digests"
    with pytest.warns(UserWarning, match=told):
        maskhub.verify(mask_path, base=other)
    with pytest.warns(UserWarning, match=told):
        maskhub.apply(other, mask_path, tmp_path / "built", shard_size="1GB")
    maskhub.apply(base_folder, mask_path, tmp_path / "right", shard_size="1GB")
    built, right = tensors(tmp_path / "built"), tensors(tmp_path / "right")
    assert built.keys() == right.keys()
    assert all(np.array_equal(built[name].data, right[name].data) for name in right)


def test_a_changed_tensor_under_another_name_is_no_match(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    content = {f"bert.{name}": tensor for name, tensor in tensors(base_folder).items()}
    name = "bert.encoder.layer.1.output.dense.weight"
    data = content[name].data.copy()
    data[3] ^= 1
    content[name] = RawTensor(content[name].dtype, content[name].shape, data)
    other = tiny.write_checkpoint(tmp_path / "other", content)
    with pytest.raises(BaseMismatchError, match="it lacks"):
        maskhub.verify(mask_path, base=other)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_transformers_loads_a_renamed_base_of_several_shards(tmp_path: Path, kind: str) -> None:
    """By the names that its files have, from just its own files."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    source = tiny.write_base(tmp_path / "source", shards=3)
    if kind == "bin":
        index = json.loads((source / "model.safetensors.index.json").read_text())
        for shard in sorted(source.glob("*.safetensors")):
            content = {
                name: torch.from_numpy(TensorFile(shard).read(name).numpy().copy()) for name in TensorFile(shard)
            }
            torch.save(content, shard.with_suffix(".bin"))
            shard.unlink()
        index["weight_map"] = {name: f"{Path(file).stem}.bin" for name, file in index["weight_map"].items()}
        (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        (source / "model.safetensors.index.json").unlink()
    base = open_checkpoint(source)
    renamed = base.renamed({f"bert.{name}": name for name in base})
    assert set(renamed) == {*base, *(f"bert.{name}" for name in base)}
    with for_transformers(renamed) as folder:
        found = open_checkpoint(folder)
        assert {name: found.digest(name) for name in found} == {name: base.digest(name) for name in base}
        state = transformers.AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[name], torch.from_numpy(base.read(name).numpy().copy())) for name in base)


def wrapped(name: str, kind: str) -> str:
    return {
        "DDP": f"module.{name}",
        "torch.compile": f"_orig_mod.{name}",
        "both": f"module._orig_mod.{name}",
        "FSDP": name.replace("layer.1.", "layer.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
        "Lightning": f"model.{name}",
        "Lightning and torch.compile": f"model._orig_mod.{name}",
    }[kind]


@pytest.mark.parametrize("kind", ["DDP", "torch.compile", "both", "FSDP", "Lightning", "Lightning and torch.compile"])
def test_what_wrapped_a_pruned_model_is_no_part_of_its_names(
    base_folder: Path, mask_path: Path, tmp_path: Path, kind: str
) -> None:
    """As state dicts that trainers wrote, in a PyTorch file with the rest of their checkpoint."""
    torch = pytest.importorskip("torch")
    maskhub.apply(base_folder, mask_path, tmp_path / "pruned")
    state = {wrapped(n, kind): torch.from_numpy(t.numpy().copy()) for n, t in tensors(tmp_path / "pruned").items()}
    if "Lightning" in kind:
        state["loss.weight"] = torch.ones(2)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt.pt")
    source = tmp_path / "last.ckpt.pt"
    left = pytest.warns(UserWarning, match=r"left out, since it is not of 'model': loss\.weight")
    with left if "Lightning" in kind else contextlib.nullcontext():
        maskhub.pack(source, tmp_path / "again.msk", base=base_folder)
    again, mask = maskhub.open(tmp_path / "again.msk"), maskhub.open(mask_path)
    assert again.masks == mask.masks
    assert set(again.dense) == set(mask.dense)
    assert again.base.parameters == mask.base.parameters


@pytest.mark.parametrize("inside", ["", "bert."])
def test_two_models_in_one_checkpoint_of_lightnings_are_both_named(
    base_folder: Path, mask_path: Path, tmp_path: Path, inside: str
) -> None:
    torch = pytest.importorskip("torch")
    maskhub.apply(base_folder, mask_path, tmp_path / "pruned")
    state = {}
    for model, folder in (("student", tmp_path / "pruned"), ("teacher", base_folder)):
        for name, tensor in tensors(folder).items():
            state[f"{model}.{inside}{name.removeprefix('bert.')}"] = torch.from_numpy(tensor.numpy().copy())
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: .*student.* teacher") as caught:
        maskhub.pack(tmp_path / "last.ckpt", tmp_path / "task.msk", base=base_folder)
    assert caught.value.hint == "Save the one that is meant alone."
    assert not (tmp_path / "task.msk").exists()


@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "sparsity_config"])
def test_bookkeeping_of_a_file_is_no_part_of_the_task(base_folder: Path, tmp_path: Path, key: str) -> None:
    base = open_checkpoint(base_folder)
    pruned = tiny.build(base, tiny.tiny_maskset(base), tmp_path / "pruned")
    config = json.loads((pruned / "config.json").read_text())
    (pruned / "config.json").write_text(json.dumps(config | {key: {"quant_method": "other", "format": "dense"}}))
    found = from_pruned(base, open_checkpoint(pruned))
    assert found.task
    assert key not in found.task.config
    assert found.task.config["id2label"] == tiny.LABELS["id2label"]


def test_the_configuration_says_what_the_files_hold(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        (other / "config.json").write_text(json.dumps(config | {key: "float16"}))
        maskhub.apply(other, mask_path, tmp_path / key)
        assert json.loads((tmp_path / key / "config.json").read_text())[key] == "float32"


def sentence_base(folder: Path) -> Path:
    """A tiny model of sentence vectors, as sentence-transformers saves one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    tiny.tiny_model("bert", folder / "plain", initializer_range=0.1)
    parts = [Transformer(str(folder / "plain")), Pooling(32, "mean"), Dense(32, 8), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "sentences"))
    return folder / "sentences"


def test_a_model_of_sentence_vectors_keeps_its_pooling(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import torch
    from transformers import AutoModel

    import maskhub.training as learning

    base = sentence_base(tmp_path)
    model = AutoModel.from_pretrained(base)
    learning.mask_model(model, base, initial_sparsity=0.2)
    learning.pack(model, tmp_path / "task.msk")
    maskhub.apply(base, tmp_path / "task.msk", tmp_path / "built")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    right = sentence_transformers.SentenceTransformer(str(base), device="cpu")
    right[0].auto_model.load_state_dict(maskhub.load_model(base, tmp_path / "task.msk").state_dict())
    built = sentence_transformers.SentenceTransformer(str(tmp_path / "built"), device="cpu")
    texts = ["who is the man", "free prize"]
    assert torch.equal(built.encode(texts, convert_to_tensor=True), right.encode(texts, convert_to_tensor=True))
    assert built.encode(texts).shape == (2, 8)


@pytest.mark.parametrize("code", [False, True])
def test_of_the_parts_of_a_base_the_data_alone_are_copied(
    base_folder: Path, tmp_path: Path, code: bool, recwarn: pytest.WarningsRecorder
) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "base")
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt", "spiece.model", "deep/a.json"):
        (folder / "1_Part" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "1_Part" / name).write_text("data")
    for name in ("modules.py", "__pycache__/modules.pyc", "run.sh", "model.onnx", "old.pkl"):
        (folder / "1_Part" / name).parent.mkdir(exist_ok=True)
        (folder / "1_Part" / name).write_text("code")
    (folder / "sentence_roberta_config.json").write_text('{"max_seq_length": 8}')
    (folder / "own.py").write_text("code")
    mask = tiny.tiny_maskset(folder)
    plain = type(mask)(mask.base, mask.masks, {}, None)

    def copied(kind: str) -> set[str]:
        types = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Part", "type": kind}]
        (folder / "modules.json").write_text(json.dumps(types))
        out = tiny.build(open_checkpoint(folder), plain, tmp_path / kind, code=code)
        assert (out / "sentence_roberta_config.json").read_text() == '{"max_seq_length": 8}'
        return {path.relative_to(out / "1_Part").as_posix() for path in (out / "1_Part").rglob("*.*")}

    data = {"config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt", "spiece.model", "deep/a.json"}
    assert copied("sentence_transformers.models.Pooling") == data | ({"modules.py"} if code else set())
    assert not recwarn.list
    copied("own.Pooling")
    (told,) = [str(warning.message) for warning in recwarn.list]
    assert told.startswith(f"{folder}: own.Pooling of its parts is its own code, and SentenceTransformer may need what")
    assert "left out: its Python files (--code copies them), 1_Part/__pycache__" in told or code
    assert (
        "left out: 1_Part/__pycache__/modules.pyc, 1_Part/model.onnx, 1_Part/old.pkl, 1_Part/run.sh" in told or not code
    )


def test_parts_outside_the_base_are_not_copied(base_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base_folder, tmp_path / "other")
    base = open_checkpoint(other)
    mask = tiny.tiny_maskset(base)
    plain = type(mask)(mask.base, mask.masks, {}, None)
    for modules in ('[{"path": "../secret"}]', '[{"path": "/etc"}]', "[3]", "{", '[{"name": "x"}]'):
        (other / "modules.json").write_text(modules)
        with pytest.raises(FormatError, match=r"modules\.json: no list of the parts"):
            dense.build(base, [(plain, tmp_path / "built")])
    tiny.build(base, mask, tmp_path / "classifier")  # a classifier makes no sentence vectors
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key.txt").write_text("key")
    (other / "1_Pooling").symlink_to(tmp_path / "secret")
    (other / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    with pytest.raises(MaskhubError, match="a link that leads out of the base's folder"):
        dense.build(base, [(plain, tmp_path / "built")])
    assert not (tmp_path / "built").exists()
