from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned, task_type
from maskhub.errors import CheckpointError, MissingError
from maskhub.masks.mask import MaskSet
from maskhub.storage.tensor import ITEM_SIZE, RawTensor
from tests import tiny

QUERY = "encoder.layer.1.attention.self.query.weight"


def pruned_copy(folder: Path, change: dict[str, RawTensor], *, prefix: str = "") -> Checkpoint:
    """The tiny base with some of its tensors replaced."""
    tensors = tiny.base_tensors() | change
    return open_checkpoint(tiny.write_checkpoint(folder, {prefix + name: t for name, t in tensors.items()}))


def with_words(name: str, words: dict[int, int], dtype: str = "F32") -> RawTensor:
    """A tensor of the base with some elements' bit patterns replaced."""
    tensor = tiny.base_tensors(dtype)[name]
    data = tensor.data.copy()
    for place, word in words.items():
        data.view(f"<u{ITEM_SIZE[dtype]}")[place] = word
    return RawTensor(dtype, tensor.shape, data)


@pytest.mark.parametrize("dtype", tiny.FLOATS)
@pytest.mark.parametrize("shards", [1, 3])
def test_apply_and_back_gives_the_same_mask_set(tmp_path: Path, dtype: str, shards: int) -> None:
    base = open_checkpoint(tiny.write_base(tmp_path / "base", dtype, shards=shards, integers=True))
    maskset = tiny.tiny_maskset(base)
    dense = open_checkpoint(tiny.build(base, maskset, tmp_path / "dense"))
    read = from_pruned(base, dense, base_name="tiny-bert")
    assert read.id == maskset.id
    assert read.base == maskset.base
    assert read.masks == maskset.masks
    assert read.dense.keys() == maskset.dense.keys() == {"classifier.weight", "classifier.bias"}
    assert read.task == maskset.task
    assert read.lineage == {"operation": "pack", "source": "pruned checkpoint"}
    # And once more through the dense checkpoint: the same bytes.
    again = tiny.build(base, read, tmp_path / "again")
    for file in again.glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "dense" / file.name).read_bytes()


@pytest.mark.parametrize(("base_prefix", "dense_prefix"), [("", ""), ("", "bert."), ("bert.", "bert."), ("bert.", "")])
def test_names_are_paired_with_and_without_a_prefix(tmp_path: Path, base_prefix: str, dense_prefix: str) -> None:
    base = pruned_copy(tmp_path / "base", {}, prefix=base_prefix)
    dense = pruned_copy(tmp_path / "dense", {QUERY: with_words(QUERY, {3: 0})}, prefix=dense_prefix)
    maskset = from_pruned(base, dense)
    assert maskset.base.name == base.name
    assert maskset.masks.keys() == {base_prefix + QUERY}
    keep = np.ones((6, 6), bool)
    keep[0, 3] = False
    assert np.array_equal(maskset.masks[base_prefix + QUERY].to_bool(), keep)
    assert {maskset.base.parameter(base_prefix + n) for n in tiny.SHAPES} == {dense_prefix + n for n in tiny.SHAPES}
    assert not maskset.dense
    if base_prefix == dense_prefix or not base_prefix:
        assert (maskset.base.parameter_prefix, maskset.base.parameters) == (dense_prefix[len(base_prefix) :], {})


def test_two_base_tensors_are_never_paired_with_one(tmp_path: Path) -> None:
    tensor = RawTensor.from_numpy(np.arange(1, 5, dtype=np.float32))
    dropped = RawTensor.from_numpy(np.array([1, 0, 3, 4], np.float32))
    base = open_checkpoint(tiny.write_checkpoint(tmp_path / "base", {"a.weight": tensor, "b.weight": tensor}))
    dense = open_checkpoint(tiny.write_checkpoint(tmp_path / "dense", {"weight": dropped}))
    maskset = from_pruned(base, dense)
    assert maskset.base.tensors.keys() == {"a.weight"}
    assert maskset.base.parameter("a.weight") == "weight"


@pytest.mark.parametrize(
    ("prefixes", "named"),
    [
        (("passage.", "query."), f"passage.{QUERY} and query.{QUERY} can both be the base's {QUERY}"),
        (("", "teacher."), f"{QUERY} and teacher.{QUERY} can both be the base's {QUERY}"),
        (("", "model."), f"{QUERY} and model.{QUERY} can both be the base's {QUERY}"),
        (("", "module."), f"{QUERY} and module.{QUERY} are both {QUERY}"),
        (("_orig_mod.", "module."), f"_orig_mod.{QUERY} and module.{QUERY} are both {QUERY}"),
        (("model.bert.", "teacher.bert."), "holds several models: model, teacher"),
        (("model.bert.", "model.teacher."), f"bert.{QUERY} and teacher.{QUERY} can both be the base's {QUERY}"),
    ],
)  # fmt: skip
def test_two_parameters_for_one_base_tensor_are_both_named(
    base: Checkpoint, tmp_path: Path, prefixes: tuple[str, str], named: str
) -> None:
    """Whichever of them is pruned."""
    tensors = {QUERY: base.read(QUERY)}
    for dropped in prefixes:
        content = {p + n: with_words(n, {0: 0}) if p == dropped else t for p in prefixes for n, t in tensors.items()}
        dense = open_checkpoint(tiny.write_checkpoint(tmp_path / f"dense{prefixes.index(dropped)}", content))
        with pytest.raises(CheckpointError) as caught:
            from_pruned(base, dense)
        assert caught.value.message == f"{dense.name}: {named}"
        assert caught.value.hint == "Save the one that is meant alone."


def test_a_head_may_have_names_like_the_bases(base: Checkpoint, tmp_path: Path) -> None:
    """A tensor of its own in the task's head, below more than the model's prefix, stands in nobody's way."""
    change = {QUERY: with_words(QUERY, {3: 0})}
    tensors = {f"bert.{name}": tensor for name, tensor in (tiny.base_tensors() | change).items()}
    own = {f"head.decoder.{QUERY}": base.read(QUERY)}
    dense = open_checkpoint(tiny.write_checkpoint(tmp_path / "dense", tensors | own))
    maskset = from_pruned(base, dense)
    assert maskset.masks.keys() == {QUERY}
    assert maskset.base.parameter(QUERY) == f"bert.{QUERY}"
    assert maskset.dense.keys() == own.keys()


def test_tensors_that_the_dense_checkpoint_lacks_are_not_bound(tmp_path: Path) -> None:
    base = open_checkpoint(tiny.write_base(tmp_path / "base", integers=True))
    tensors = tiny.base_tensors() | {QUERY: with_words(QUERY, {0: 0})}
    del tensors["pooler.dense.weight"], tensors["pooler.dense.bias"]
    maskset = from_pruned(base, open_checkpoint(tiny.write_checkpoint(tmp_path / "dense", tensors)))
    assert maskset.base.tensors.keys() == tensors.keys()


@pytest.mark.parametrize("word", [1 << 31 | 1, 1, 0x7FC00000, 0x3F800000])
def test_a_weight_that_is_neither_the_bases_nor_zero_is_an_error(base: Checkpoint, tmp_path: Path, word: int) -> None:
    dense = pruned_copy(tmp_path / "dense", {QUERY: with_words(QUERY, {0: word, 1: 0, 2: word})}, prefix="bert.")
    with pytest.raises(CheckpointError) as caught:
        from_pruned(base, dense)
    assert caught.value.message == (
        f"{dense.name}: tensor bert.{QUERY} was not pruned from the base: 2 of 36 weights are neither the base's nor 0"
    )
    assert caught.value.hint == "Only pruning can be packed as a mask; changed weights cannot."


def test_nan_and_negative_zero_are_compared_by_their_bits(tmp_path: Path) -> None:
    nan, other_nan, minus = 0x7FC00001, 0x7FC00002, 1 << 31
    base = pruned_copy(tmp_path / "base", {QUERY: with_words(QUERY, {0: nan, 1: nan, 2: minus, 3: minus, 4: 0})})
    dense = pruned_copy(tmp_path / "dense", {QUERY: with_words(QUERY, {0: nan, 1: 0, 2: minus, 3: 0, 4: 0})})
    keep = from_pruned(base, dense).masks[QUERY].to_bool().reshape(-1)
    assert keep[:5].tolist() == [True, False, True, False, True]
    assert keep[5:].all()
    words = {0: other_nan, 1: nan, 2: minus, 3: minus, 4: 0}
    strange = pruned_copy(tmp_path / "strange", {QUERY: with_words(QUERY, words)})
    with pytest.raises(CheckpointError, match="1 of 36 weights are neither"):
        from_pruned(base, strange)


@pytest.mark.parametrize("dtype", tiny.FLOATS)
def test_weights_multiplied_by_zero_are_dropped(tmp_path: Path, dtype: str) -> None:
    """A negative weight times 0 is -0, and PyTorch's own pruning multiplies."""
    base = open_checkpoint(tiny.write_base(tmp_path / "base", dtype))
    minus = 1 << 8 * ITEM_SIZE[dtype] - 1
    tensors = tiny.base_tensors(dtype) | {QUERY: with_words(QUERY, {3: minus, 4: 0}, dtype)}
    maskset = from_pruned(base, open_checkpoint(tiny.write_checkpoint(tmp_path / "dense", tensors)))
    assert np.flatnonzero(~maskset.masks[QUERY].to_bool()).tolist() == [3, 4]
    assert maskset.masks.keys() == {QUERY}


def test_another_dtype_or_shape_is_an_error(base: Checkpoint, tmp_path: Path) -> None:
    tensor = tiny.base_tensors()[QUERY]
    halves = RawTensor.from_numpy(tensor.numpy().astype(np.float16))
    for name, other, found in (
        ("dtype", halves, r"F16 \[6, 6\]"),
        ("shape", RawTensor("F32", (4, 9), tensor.data), r"F32 \[4, 9\]"),
    ):
        dense = pruned_copy(tmp_path / name, {QUERY: other})
        with pytest.raises(CheckpointError, match=rf"tensor {QUERY} is {found}, and the base's is F32 \[6, 6\]"):
            from_pruned(base, dense)


def test_the_same_checkpoint_is_an_error(base: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"equals the base .*: no weight is pruned"):
        from_pruned(base, base)


def test_a_checkpoint_of_other_names_is_an_error(base: Checkpoint, tmp_path: Path) -> None:
    other = open_checkpoint(tiny.write_checkpoint(tmp_path / "o", {"x.y": RawTensor.from_numpy(np.zeros(3))}))
    with pytest.raises(CheckpointError, match=r"no tensor has a name of .*, so it was not pruned from it"):
        from_pruned(base, other)


def test_what_the_task_changed_in_the_configuration_is_kept(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    assert maskset.task
    config = tiny.LABELS | {"problem_type": "single_label_classification", "hidden_size": 6}
    changed = dataclasses.replace(maskset, task=tiny.Task("?", "BertForTokenClassification", config))
    dense = open_checkpoint(tiny.build(base, changed, tmp_path / "dense"))
    task = from_pruned(base, dense).task
    assert task
    assert (task.type, task.architecture) == ("token-classification", "BertForTokenClassification")
    assert task.config == tiny.LABELS | {"problem_type": "single_label_classification"}


@pytest.mark.parametrize("architectures", [None, [], {}, {"a": 1}, 5, [5], [None], "BertModel"])
def test_odd_architectures_name_no_task(
    base: Checkpoint, maskset: MaskSet, tmp_path: Path, architectures: object
) -> None:
    folder = tiny.build(base, maskset, tmp_path / "dense")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
    assert from_pruned(base, open_checkpoint(folder)).task is None


def test_a_missing_configuration_is_an_error(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    folder = tiny.build(base, maskset, tmp_path / "dense")
    (folder / "config.json").unlink()
    with pytest.raises(MissingError, match=r"dense/config\.json: no such file"):
        from_pruned(base, open_checkpoint(folder))
    shutil.rmtree(folder)


def test_progress_counts_the_bases_bytes(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    dense = open_checkpoint(tiny.build(base, maskset, tmp_path / "dense"))
    calls: list[tuple[int, int]] = []
    from_pruned(base, dense, progress=lambda done, total: calls.append((done, total)))
    total = sum(base.read(n).data.nbytes for n in base)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("RobertaForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_the_task_of_a_class(architecture: str, task: str) -> None:
    assert task_type(architecture) == task
