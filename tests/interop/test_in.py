"""Mask files that the other tools write themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import BaseMismatchError, CheckpointError, FormatError, MaskhubError
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.safetensors import write_tensors
from maskhub.storage.tensor import RawTensor
from tests import tiny

torch = pytest.importorskip("torch")
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def masks(base: Checkpoint) -> dict[str, Mask]:
    return tiny.random_masks(base, sparsity=0.3)


@pytest.fixture
def state(base: Checkpoint) -> dict[str, Any]:
    """The base's tensors in torch, as a task model calls them, and a classifier."""
    from maskhub.storage.torch import to_torch

    head = {"classifier.weight": torch.ones(2, tiny.HIDDEN), "classifier.bias": torch.zeros(2)}
    return {f"bert.{name}": to_torch(base.read(name)) for name in base} | head


def save_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with open(path, "wb") as file:
        write_tensors(file, {name: RawTensor.from_numpy(array) for name, array in arrays.items()})
    return path


def save_torch(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def bools(masks: dict[str, Mask], end: str = "", prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + name + end: mask.to_bool() for name, mask in masks.items()}


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_packed_bits_of_maskllm(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path, prefix: str) -> None:
    packed = {name: np.packbits(keep) for name, keep in bools(masks, ".mask", prefix).items()}
    np.savez_compressed(tmp_path / "mask_compressed.npz", **packed)
    maskset = interop.read(tmp_path / "mask_compressed.npz", base)
    assert maskset.masks == masks
    assert maskset.base.tensors.keys() == set(base)  # nothing says what of the base a model reads: all of it
    assert (maskset.base.parameter_prefix, maskset.base.parameters) == (prefix, {})
    assert maskset.lineage == {"operation": "pack", "source": "MaskLLM"}
    assert not maskset.dense
    assert maskset.task is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("old", [False, True])
def test_raw_masks_of_maskllm(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path, dtype: Any, old: bool) -> None:
    tensors = {name: torch.from_numpy(keep).to(dtype) for name, keep in bools(masks, ".mask").items()}
    path = save_torch(tmp_path / "mask.pt", tensors, _use_new_zipfile_serialization=not old)
    assert interop.read(path, base).masks == masks


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("end", ["", ".mask"])
def test_boolean_safetensors(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path, dtype: type, end: str) -> None:
    arrays = {name: keep.astype(dtype) for name, keep in bools(masks, end).items()}
    maskset = interop.read(save_safetensors(tmp_path / "m.safetensors", arrays), base)
    assert maskset.masks == masks
    assert maskset.lineage["source"] == "boolean tensors"
    odd = save_safetensors(tmp_path / "m", arrays)  # told by its bytes
    assert interop.read(odd, base).id == maskset.id


def test_prefixes_go_both_ways(masks: dict[str, Mask], tmp_path: Path) -> None:
    tensors = {f"bert.{n}": t for n, t in tiny.base_tensors().items()}
    base = open_checkpoint(tiny.write_checkpoint(tmp_path / "base", tensors))
    maskset = interop.read(save_safetensors(tmp_path / "m.safetensors", bools(masks)), base)
    assert maskset.masks == {f"bert.{name}": mask for name, mask in masks.items()}
    assert {maskset.base.parameter(name) for name in base} == set(tiny.SHAPES)


@pytest.fixture
def scores(masks: dict[str, Mask], state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as maskbert saves it: scores beside frozen weights, the classifier masked, too."""
    rng = np.random.default_rng(0)
    for name, mask in masks.items():
        keep = mask.to_bool()
        above = np.where(keep, rng.uniform(0.02, 1, keep.shape), rng.uniform(-1, 0.01, keep.shape)).astype(np.float32)
        above.flat[np.flatnonzero(~keep)[0]] = np.float32(0.01)  # at the threshold, which is dropped
        state[f"bert.{name}_mask"] = torch.from_numpy(above)
    state["classifier.weight_mask"] = torch.tensor([[0.5] * 5 + [-0.5]] * 2)
    return state


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"which_step": 3, "best_state_dict": s}])
def test_scores_of_the_papers_authors(
    base: Checkpoint, masks: dict[str, Mask], scores: dict[str, Any], tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    config = tiny.bert_config() | tiny.LABELS | {"architectures": ["BertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    maskset = interop.read(save_torch(tmp_path / "best_state.pt", wrap(scores)), base)
    assert maskset.masks == masks
    assert maskset.lineage == {"operation": "pack", "source": "scores", "threshold": 0.01}
    assert maskset.base.parameter_prefix == "bert."
    assert maskset.task == tiny.TASK
    assert maskset.dense["classifier.weight"].numpy().tolist() == [[1, 1, 1, 1, 1, 0]] * 2
    assert maskset.dense["classifier.bias"].numpy().tolist() == [0, 0]
    tiny.build(base, maskset, tmp_path / "dense")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_threshold_is_an_option(
    base: Checkpoint, scores: dict[str, Any], masks: dict[str, Mask], tmp_path: Path, dtype: Any
) -> None:
    scores[f"bert.{QUERY}_mask"] = scores[f"bert.{QUERY}_mask"].to(dtype)
    path = save_torch(tmp_path / "s.pt", scores)
    keep = interop.read(path, base, threshold=0.25).masks[QUERY].to_bool()
    assert np.array_equal(keep, (scores[f"bert.{QUERY}_mask"] > 0.25).numpy())
    assert interop.read(path, base, threshold=5.0).masks[QUERY].kept == 0
    np.savez(tmp_path / "a.npz", **{n: np.packbits(k) for n, k in bools(masks, ".mask").items()})
    with pytest.raises(MaskhubError, match=r"a\.npz: a threshold is for score files, and this is a MaskLLM"):
        interop.read(tmp_path / "a.npz", base, threshold=0.1)


def test_scores_that_do_not_fit(base: Checkpoint, scores: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    name = f"bert.{QUERY}"
    save_torch(path, scores | {f"{name}_mask": torch.zeros(2)})  # one score a head
    with pytest.raises(FormatError, match=rf"{name}_mask has shape \[2\], and \[6, 6\] is needed"):
        interop.read(path, base)
    save_torch(path, {n: t for n, t in scores.items() if n != name})
    with pytest.raises(FormatError, match=rf"s\.pt: {name}_mask has no {name} beside it"):
        interop.read(path, base)
    bias = "bert.pooler.dense.bias"
    save_torch(path, scores | {bias: scores[bias] + torch.tensor([1.0] + [0.0] * 5)})
    with pytest.raises(BaseMismatchError, match=rf"{bias} differs from the base's in 1 of 6 values"):
        interop.read(path, base)


@pytest.fixture(scope="module")
def linears(base: Checkpoint) -> Any:
    """A module with the base's names for its matrices and biases."""
    from maskhub.storage.torch import to_torch

    root = torch.nn.Module()
    for name in base:
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, torch.nn.Parameter(to_torch(base.read(name))))
    return root


def test_torch_prune(base: Checkpoint, linears: Any, tmp_path: Path) -> None:
    from torch.nn.utils import prune

    torch.manual_seed(0)
    names = [name for name in tiny.MASKED if "query" in name or "pooler" in name]
    modules = {name: linears.get_submodule(name.removesuffix(".weight")) for name in names}
    for module in modules.values():
        prune.random_unstructured(module, "weight", 0.4)
        prune.l1_unstructured(module, "weight", 0.1)
    expected = {name: Mask.from_bool(module.weight_mask.numpy() != 0) for name, module in modules.items()}
    state = linears.state_dict()
    maskset = interop.read(save_torch(tmp_path / "pruned.pt", state), base)
    assert maskset.masks == expected
    assert maskset.lineage["source"] == "torch.nn.utils.prune"
    assert maskset.base.tensors.keys() == set(base)
    weights = save_safetensors(tmp_path / "p.safetensors", {n: t.detach().numpy() for n, t in state.items()})
    assert interop.read(weights, base).id == maskset.id

    wrong = dict(state)
    wrong[f"{QUERY}_orig"] = state[f"{QUERY}_orig"] * 2
    with pytest.raises(BaseMismatchError, match=rf"not made from .*: {QUERY}_orig differs from the base's in 36 of 36"):
        interop.read(save_torch(tmp_path / "w.pt", wrong), base)
    for end, lacks in ("_orig", "_mask"), ("_mask", "_orig"):
        part = {n: t for n, t in state.items() if n != QUERY + lacks}
        with pytest.raises(FormatError, match=rf"the pruned parameter {QUERY} has no {QUERY}{lacks}"):
            interop.read(save_torch(tmp_path / "w.pt", part), base)
        with pytest.raises(MaskhubError, match=rf"{QUERY}{end} (has shape|is F32) \[2\]"):
            interop.read(save_torch(tmp_path / "w.pt", state | {QUERY + end: torch.ones(2)}), base)
    with pytest.raises(FormatError, match=f"holds both {QUERY} and {QUERY}_orig"):
        interop.read(save_torch(tmp_path / "w.pt", state | {QUERY: state[f"{QUERY}_orig"]}), base)
    half = state | {f"{QUERY}_mask": state[f"{QUERY}_mask"] / 2}
    with pytest.raises(FormatError, match=f"{QUERY}_mask is no mask: it holds values other than 0 and 1"):
        interop.read(save_torch(tmp_path / "w.pt", half), base)

    for module in modules.values():
        prune.remove(module, "weight")
    removed = interop.read(save_torch(tmp_path / "removed.pt", linears.state_dict()), base)
    assert removed.id == maskset.id
    assert removed.lineage["source"] == "pruned checkpoint"


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E4M3"])
@pytest.mark.parametrize("old", [False, True])
def test_sparse_bitmask(tmp_path: Path, dtype: str, old: bool) -> None:
    """What compressed-tensors' own compressor writes; older releases kept ``.weight`` in the names."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.config import BitmaskConfig
    from safetensors.torch import load_file, save_file

    base = open_checkpoint(tiny.write_base(tmp_path / "base", dtype))
    folder = tiny.build(base, maskset := tiny.tiny_maskset(base, sparsity=0.5), tmp_path / "dense")
    compressor = BaseCompressor.load_from_registry("sparse-bitmask", config=BitmaskConfig())
    dense = load_file(folder / "model.safetensors")
    state = compressor.compress(dense)
    if old:
        parts = ("shape", "compressed", "bitmask", "row_offsets")
        state = {n.replace(f".{p}", f".weight.{p}"): t for n, t in state.items() for p in parts if n.endswith(p)} | {
            n: t for n, t in state.items() if n in dense
        }
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"format": "sparse-bitmask"}}))
    read = interop.read(folder, base)
    assert (read.id, read.task) == (maskset.id, maskset.task)
    assert read.lineage == {"operation": "pack", "source": "compressed-tensors"}

    module = "bert.encoder.layer.0.intermediate.dense" + ".weight" * old
    for change, message in {
        ("compressed", lambda t: t[1:]): "bitmask does not fit the",
        ("bitmask", lambda t: t[:, :0]): r"bitmask is no bitmask for the shape \[10, 6\]",
        ("bitmask", lambda t: t | 128): "bitmask does not fit the",
        ("shape", lambda t: t * (1 << 61)): "bitmask is no bitmask for the shape",
        ("shape", lambda t: t.to(torch.float32)): "shape is F32, and integers are needed",
        ("row_offsets", lambda t: t + 1): "row_offsets does not fit",
        (
            "compressed",
            lambda t: t.view(torch.uint8).flip(0).view(t.dtype),
        ): "dense.weight was not pruned from the base",
    }.items():
        part, damage = change
        damaged = state | {f"{module}.{part}": damage(state[f"{module}.{part}"]).contiguous()}
        save_file(damaged, folder / "model.safetensors")
        with pytest.raises(MaskhubError, match=message):
            interop.read(folder, base)
    del state[f"{module}.row_offsets"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(FormatError, match=f"{module}.bitmask has no {module}.row_offsets beside it"):
        interop.read(folder, base)


@pytest.fixture
def tall(base: Checkpoint) -> dict[str, np.ndarray]:
    """Packed vectors over the base's sorted tensors, as TALL-masks makes them."""
    rng = np.random.default_rng(0)
    return {task: np.packbits(rng.random(sum(t.size for t in tiny.base_tensors().values())) < 0.4) for task in "AB"}


def test_vectors_of_tall_masks(base: Checkpoint, tall: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "tall.npz", **tall)
    np.save(tmp_path / "a.npy", tall["A"])
    save_torch(tmp_path / "tall.pt", {task: torch.from_numpy(v) for task, v in tall.items()})
    maskset = interop.read(tmp_path / "a.npy", base)
    flags = np.unpackbits(tall["A"])
    for name in sorted(base):
        size = base.read(name).size
        assert np.array_equal(maskset.masks[name].to_bool().reshape(-1), flags[:size])
        flags = flags[size:]
    assert flags.size < 8
    assert maskset.lineage["source"] == "TALL-masks"
    assert interop.read(f"{tmp_path}/tall.npz#A", base).id == maskset.id
    assert interop.read(f"{tmp_path}/tall.pt#A", base).id == maskset.id
    assert interop.read(f"{tmp_path}/tall.npz#B", base).id != maskset.id
    with pytest.raises(FormatError, match=r"tall\.npz: name one of its 2 mask sets: A, B") as caught:
        interop.read(tmp_path / "tall.npz", base)
    assert caught.value.hint == f"As in {tmp_path}/tall.npz#NAME."
    with pytest.raises(FormatError, match="holds no mask set 'C'; it holds A, B"):
        interop.read(f"{tmp_path}/tall.pt#C", base)
    np.save(tmp_path / "short.npy", tall["A"][:-1])
    with pytest.raises(FormatError, match=rf"short has shape \[{tall['A'].size - 1}\], and \[{tall['A'].size}\]"):
        interop.read(tmp_path / "short.npy", base)
    np.save(tmp_path / "full.npy", np.packbits(np.ones(sum(base.read(n).size for n in base), bool)))
    with pytest.raises(FormatError, match=r"full\.npy: drops no weight"):
        interop.read(tmp_path / "full.npy", base)


def test_a_fully_kept_tensor_of_a_vector_has_no_mask(base: Checkpoint, tmp_path: Path) -> None:
    flags = np.concatenate([np.full(base.read(n).size, n != QUERY) for n in sorted(base)])
    np.save(tmp_path / "a.npy", np.packbits(flags))
    maskset = interop.read(tmp_path / "a.npy", base)
    assert maskset.masks.keys() == {QUERY}
    assert maskset.masks[QUERY].kept == 0


@pytest.mark.parametrize("where", ["file", "folder"])
def test_dense_pytorch_checkpoints(base: Checkpoint, maskset: MaskSet, tmp_path: Path, where: str) -> None:
    from maskhub.storage.torch import to_torch

    dense = open_checkpoint(tiny.build(base, maskset, tmp_path / "dense"))
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_bytes((dense.folder / "config.json").read_bytes())
    path = save_torch(folder / "pytorch_model.bin", {name: to_torch(dense.read(name)) for name in dense})
    read = interop.read(path if where == "file" else folder, base)
    assert (read.id, read.task) == (maskset.id, maskset.task)
    (folder / "config.json").unlink()
    assert interop.read(path, base).task is None


def test_a_mask_by_another_name(base: Checkpoint, maskset: MaskSet, mask_path: Path, tmp_path: Path) -> None:
    (tmp_path / "task.bin").write_bytes(mask_path.read_bytes())
    assert interop.read(tmp_path / "task.bin", base).lineage == maskset.lineage
    other = open_checkpoint(tiny.write_base(tmp_path / "other", seed=1))
    with pytest.raises(BaseMismatchError):
        interop.read(tmp_path / "task.bin", other)


def test_names_and_shapes_are_the_bases(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for name in "encoder.layer.7.output.dense.weight", "x", "":
        save_safetensors(path, bools(masks) | {name: np.ones((6, 6), bool)})
        with pytest.raises(FormatError) as caught:
            interop.read(path, base)
        assert caught.value.message == f"{path}: {name} fits no tensor of {base.name} (1 of {len(masks) + 1} masks)"
    save_safetensors(path, bools(masks) | {QUERY: np.ones((4, 9), bool)})
    with pytest.raises(FormatError, match=rf"{QUERY} has shape \[4, 9\], and \[6, 6\] is needed"):
        interop.read(path, base)
    save_safetensors(path, bools(masks) | {QUERY: np.full((6, 6), 2, np.uint8)})
    with pytest.raises(FormatError, match=f"{QUERY} is no mask"):
        interop.read(path, base)
    with pytest.raises(FormatError, match="holds one mask set, and it has no name"):
        interop.read(f"{path}#a", base)
    save_safetensors(path, {})
    with pytest.raises(FormatError, match="holds neither masks nor a pruned checkpoint"):
        interop.read(path, base)
    with pytest.raises(CheckpointError, match="no tensor has a name of"):
        interop.read(save_safetensors(path, {"a.b": np.zeros(3, np.float32)}), base)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "model._orig_mod."])
def test_what_wrapped_the_model_is_no_part_of_its_names(
    base: Checkpoint, masks: dict[str, Mask], state: dict[str, Any], tmp_path: Path, wrapper: str
) -> None:
    """In masks alone as in those of torch's own pruning, which have the other parameters beside them."""
    maskset = interop.read(save_safetensors(tmp_path / "m.safetensors", bools(masks, prefix=f"{wrapper}bert.")), base)
    assert maskset.masks == masks
    assert maskset.base.parameter_prefix == "bert."
    for name, mask in masks.items():
        state[f"bert.{name}_orig"] = state.pop(f"bert.{name}")
        state[f"bert.{name}_mask"] = torch.from_numpy(mask.to_bool()).float()
    wrapped = {wrapper + name: tensor for name, tensor in state.items()}
    maskset = interop.read(save_torch(tmp_path / "pruned.pt", wrapped), base)
    assert maskset.masks == masks
    assert maskset.base.parameter_prefix == "bert."
    assert maskset.dense.keys() == {"classifier.weight", "classifier.bias"}


def test_parameters_of_another_model_are_no_masks_of_the_base(base: Checkpoint, tmp_path: Path) -> None:
    other = {"x.y.z_orig": torch.ones(2, 2), "x.y.z_mask": torch.eye(2)}
    with pytest.raises(FormatError, match=r"x\.y\.z_mask fits no tensor of .* \(1 of 1 masks\)"):
        interop.read(save_torch(tmp_path / "pruned.pt", other), base)


def test_two_masks_for_one_tensor(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path) -> None:
    arrays = bools(masks) | {f"bert.{QUERY}": masks[QUERY].to_bool()}
    with pytest.raises(CheckpointError, match=rf"{QUERY} and bert\.{QUERY} can both be the base's {QUERY}"):
        interop.read(save_safetensors(tmp_path / "m.safetensors", arrays), base)


def test_other_dtypes_of_the_base(tmp_path: Path) -> None:
    tensors = {"a.weight": RawTensor("F8_E8M0", (2, 2), np.ones(4, np.uint8))}
    base = open_checkpoint(tiny.write_checkpoint(tmp_path / "base", tensors))
    path = save_safetensors(tmp_path / "m.safetensors", {"a.weight": np.eye(2, dtype=bool)})
    with pytest.raises(FormatError, match=r"a\.weight masks a\.weight, which is F8_E8M0"):
        interop.read(path, base)


def test_progress_counts_the_bases_bytes(base: Checkpoint, masks: dict[str, Mask], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = save_safetensors(tmp_path / "m.safetensors", bools(masks))
    interop.read(path, base, progress=lambda done, total: calls.append((done, total)))
    total = sum(base.read(n).data.nbytes for n in base)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_a_single_file_as_base(base_folder: Path, masks: dict[str, Mask], tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((base_folder / "model.safetensors").read_bytes())
    base = open_checkpoint(alone)
    maskset = interop.read(save_safetensors(tmp_path / "m.safetensors", bools(masks)), base)
    assert maskset.masks == masks
    assert dataclasses.replace(maskset, masks={}).base.root == maskset.base.root
