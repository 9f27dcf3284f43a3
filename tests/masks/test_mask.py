from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import maskhub
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import LazyMask, Mask, MaskSet, count_ones, packed_size
from maskhub.masks.summary import to_fields
from maskhub.storage.tensor import RawTensor
from tests.tiny import TASK, read_parts, write_parts

FLAGS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))


def binding(**digests: str) -> BaseBinding:
    digests = digests or {"a": "1" * 64, "b": "2" * 64}
    return BaseBinding.of("base", digests, {n: f"model.{n}" for n in digests}, None)


def small(**changes: object) -> MaskSet:
    """A mask set of one mask and one dense tensor."""
    dense = {"head": RawTensor.from_numpy(np.arange(4, dtype=np.float32))}
    maskset = MaskSet(binding(), {"a": Mask.from_bool([True, False, True])}, dense)
    return dataclasses.replace(maskset, **changes)  # type: ignore[arg-type]


@given(FLAGS)
def test_to_bool_gives_back_what_from_bool_packed(keep: np.ndarray) -> None:
    mask = Mask.from_bool(keep)
    assert mask.shape == keep.shape
    assert mask.bits.shape == (packed_size(keep.shape),)
    assert np.array_equal(mask.to_bool(), keep)
    assert mask.kept == keep.sum()
    assert mask.size == keep.size
    assert mask.sparsity == pytest.approx(1 - keep.mean() if keep.size else 0)


def test_bits_are_row_major_least_significant_first() -> None:
    keep = np.zeros((3, 5), bool)
    keep[0, 0] = keep[0, 2] = keep[1, 3] = True  # positions 0, 2 and 8
    assert Mask.from_bool(keep).bits.tolist() == [0b00000101, 0b00000001]
    assert Mask.from_bool(np.asfortranarray(keep)).bits.tolist() == [0b00000101, 0b00000001]


def test_a_mask_refuses_bits_that_do_not_fit_its_shape() -> None:
    with pytest.raises(ValueError, match=r"a mask of shape \(3, 3\) needs 2 packed bytes"):
        Mask((3, 3), np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="needs 2 packed bytes"):
        Mask((3, 3), np.zeros(2, np.int8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the padding of the last byte must be 0"):
        Mask((3, 3), np.array([0, 0b10], np.uint8))
    Mask((3, 3), np.array([0xFF, 0b1], np.uint8))


def test_equality_and_hash_follow_shape_and_bits() -> None:
    mask = Mask.from_bool([[True, False], [True, True]])
    assert mask == Mask.from_bool([[True, False], [True, True]])
    assert hash(mask) == hash(Mask.from_bool([[True, False], [True, True]]))
    assert mask != Mask.from_bool([True, False, True, True])
    assert mask != Mask.from_bool([[True, True], [True, True]])
    assert mask != "mask"
    assert repr(mask) == "Mask(shape=(2, 2), kept=3, sparsity=0.2500)"


@pytest.mark.parametrize("keep", [[0, 1, 1], [0.0, 1.0, 1.0], np.array([0, 1, 1], np.uint8)])
def test_zeros_and_ones_are_packed_as_booleans(keep: object) -> None:
    assert Mask.from_bool(keep) == Mask.from_bool([False, True, True])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keep", "found"),
    [
        ([[0, 1], [2, 1]], "this int64 array holds 2"),
        ([0.5, 1.0], "this float64 array holds 0.5"),
        ([0.0, float("nan")], "this float64 array holds nan"),
        (["no", "yes"], "this <U3 array holds no"),
        (np.array([255, 0], np.uint8), "this uint8 array holds 255"),
        ([None, True], "this object array holds None"),
    ],
)
def test_what_is_neither_true_nor_false_is_no_mask(keep: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"^a mask is made of booleans, or of 0 and 1, and {found}\\. Compare it"):
        Mask.from_bool(keep)  # type: ignore[arg-type]


@given(hnp.arrays(np.uint8, st.integers(0, 40)), st.integers(0, 3), st.integers(1, 3))
def test_count_ones_of_any_view(data: np.ndarray, start: int, step: int) -> None:
    view = data[start::step]
    assert count_ones(view) == sum(int(b).bit_count() for b in view)


def test_binding_takes_the_commonest_prefix_and_keeps_the_exceptions() -> None:
    digests = dict.fromkeys(("a", "b", "c", "d"), "0" * 64)
    parameters = {"a": "bert.a", "b": "bert.b", "c": "roberta.c", "d": "else"}
    bound = BaseBinding.of("x", digests, parameters, None)
    assert bound.parameter_prefix == "bert."
    assert bound.parameters == {"c": "roberta.c", "d": "else"}
    assert {n: bound.parameter(n) for n in digests} == parameters


def test_a_mask_set_refuses_masks_that_its_base_lacks() -> None:
    with pytest.raises(ValueError, match="the base binding does not list: other"):
        MaskSet(binding(), {"other": Mask.from_bool([True])})


def test_a_mask_set_refuses_parameters_of_tensors_that_its_base_lacks() -> None:
    bound = msgspec.structs.replace(binding(), parameters={"other": "model.other"})
    with pytest.raises(ValueError, match="parameters of tensors that the base binding does not list: other"):
        MaskSet(bound, {})


def test_a_mask_set_refuses_two_tensors_for_one_parameter() -> None:
    tensor = RawTensor.from_numpy(np.zeros(1))
    with pytest.raises(ValueError, match=r"two tensors for one parameter of the task model: model\.a"):
        MaskSet(binding(), {}, {"model.a": tensor})


@given(
    st.dictionaries(st.text(), st.floats(allow_nan=False)),
    st.dictionaries(st.text(), st.integers()),
    st.text(),
)
def test_id_does_not_depend_on_notes(metrics: dict[str, float], lineage: dict[str, int], name: str) -> None:
    maskset = small()
    assert small(metrics=metrics, lineage=lineage, extra={"x": 1}).id == maskset.id
    assert maskset.with_base_name(name).id == maskset.id
    assert maskset.with_base_name(name).base.name == name


def test_id_covers_what_a_model_answers_with() -> None:
    maskset = small(task=TASK)
    assert maskset.id == small(task=msgspec.structs.replace(TASK)).id != small().id
    swapped = TASK.config | {"id2label": {"0": "spam", "1": "ham"}}
    changes: tuple[dict[str, Any], ...] = (
        {"config": swapped}, {"type": "x"}, {"architecture": "X"}, {"tokenizer": "user/t"}, {"max_length": 9},
    )  # fmt: skip
    ids = {small(task=msgspec.structs.replace(TASK, **change)).id for change in changes}
    assert len({*ids, maskset.id}) == len(changes) + 1
    same_numbers = msgspec.structs.replace(TASK, config=TASK.config | {"x": 2.0})
    assert small(task=same_numbers).id == small(task=msgspec.structs.replace(TASK, config=TASK.config | {"x": 2})).id
    renamed = dataclasses.replace(maskset, base=msgspec.structs.replace(maskset.base, parameter_prefix="other."))
    assert renamed.id != maskset.id
    listed = {name: maskset.base.parameter(name) for name in maskset.base.tensors}
    otherwise = msgspec.structs.replace(maskset.base, parameter_prefix="", parameters=listed)
    assert dataclasses.replace(maskset, base=otherwise).id == maskset.id  # the same names, told otherwise


@given(FLAGS.filter(lambda keep: keep.size > 0), st.data())
def test_id_changes_with_every_bit(keep: np.ndarray, data: st.DataObject) -> None:
    other = keep.copy()
    other.reshape(-1)[data.draw(st.integers(0, keep.size - 1))] ^= True
    assert small(masks={"a": Mask.from_bool(keep)}).id != small(masks={"a": Mask.from_bool(other)}).id


def test_id_changes_with_all_that_belongs_to_the_content() -> None:
    keep = [True, False, True, True]
    head = RawTensor.from_numpy(np.arange(4, dtype=np.float32))
    one_bit = head.data.copy()
    one_bit[3] ^= 1
    variants = [
        small(),
        small(masks={}),
        small(masks={"b": small().masks["a"]}),
        small(masks={"a": Mask.from_bool(keep)}),
        small(masks={"a": Mask.from_bool(np.reshape(keep, (2, 2)))}),
        small(base=binding(a="1" * 64, b="3" * 64)),
        small(base=binding(a="1" * 64)),
        small(dense={}),
        small(dense={"foot": head}),
        small(dense={"head": RawTensor("F32", (4,), one_bit)}),
        small(dense={"head": RawTensor("I32", (4,), head.data)}),
        small(dense={"head": RawTensor("F32", (2, 2), head.data)}),
    ]
    assert len({maskset.id for maskset in variants}) == len(variants)


def refuse() -> Any:
    raise AssertionError("decoded")


def undecoded(**known: Any) -> MaskSet:
    """A mask set whose one mask and one tensor fail where they are decoded."""
    return small(masks={"a": LazyMask((3,), refuse, **known)}, task=TASK)


def test_a_mask_set_is_a_mapping_of_its_masks() -> None:
    maskset = small()
    assert isinstance(maskset, Mapping)
    assert "a" in maskset
    assert "b" not in maskset
    assert 7 not in maskset
    assert (len(maskset), list(maskset), list(maskset.keys())) == (1, ["a"], ["a"])
    assert dict(maskset.items()) == maskset.masks == dict(maskset)
    assert maskset.get("b") is None
    with pytest.raises(KeyError, match="b"):
        maskset["b"]
    assert len(small(masks={})) == 0


def test_mask_sets_of_one_id_are_equal() -> None:
    assert small() == small(metrics={"f1": 1.0})
    assert hash(small()) == hash(small(metrics={"f1": 1.0}))
    assert small() != small(dense={})
    assert small() != small().masks


def test_a_mask_set_that_is_shown_is_not_decoded() -> None:
    assert repr(undecoded()) == (
        "MaskSet(\n    task='text-classification',\n    base='base',\n    masks=<1 of 3 weights>,\n    dense=<1>,\n)"
    )
    assert "masks=<1 of 3 weights, sparsity 0.3333>" in repr(undecoded(kept=2))
    assert repr(undecoded()["a"]) == "Mask(shape=(3,))"
    assert repr(undecoded(kept=2)["a"]) == "Mask(shape=(3,), kept=2, sparsity=0.3333)"
    maskset = small()
    assert "id=" not in repr(maskset)
    assert f"\n    id='{maskset.id}'," in repr(maskset)  # known now
    assert repr(MaskSet(binding(), {})) == "MaskSet(\n    base='base',\n    masks=<0 of 0 weights, sparsity 0.0000>,\n)"


def test_an_opened_mask_set_tells_of_its_file_without_decoding(mask_path: Path, tmp_path: Path) -> None:
    whole = maskhub.open(mask_path)
    manifest, parts = read_parts(mask_path)
    zeroed = {name: part if name in manifest["dense"] else bytes(len(part)) for name, part in parts.items()}
    damaged = write_parts(tmp_path / "damaged.msk", manifest, zeroed)
    opened = maskhub.open(damaged)
    assert opened.id == whole.id
    assert opened == whole
    assert hash(opened) == hash(whole)
    assert f"id='{whole.id}'" in repr(opened)
    assert opened.sparsity == whole.sparsity == pytest.approx(1 - np.concatenate(
        [mask.to_bool().reshape(-1) for mask in whole.values()]).mean())  # fmt: skip
    summary = opened.summary()
    assert (summary.file, summary.file_bytes, summary.id) == (str(damaged), damaged.stat().st_size, whole.id)
    assert whole.stored is not None
    assert summary.mask_bytes == sum(whole.stored.sizes.values())
    shown = html.unescape(re.sub("<.*?>", "\n", opened._repr_html_()))
    for label, value in to_fields(summary).items():
        for line in [value] if isinstance(value, str) else value:
            assert line in shown
            assert label in shown or not value


def test_a_changed_copy_knows_nothing_of_the_file(mask_path: Path) -> None:
    opened = maskhub.open(mask_path)
    name = next(iter(opened))
    fewer = dataclasses.replace(opened, masks={n: mask for n, mask in opened.items() if n != name})
    assert fewer.stored is None
    assert fewer.id != opened.id
    assert fewer.summary().file is fewer.summary().bits_per_weight is None
    renamed = opened.with_base_name("x")
    assert renamed.stored is None
    assert renamed.id == opened.id


def test_save_writes_what_open_reads(tmp_path: Path) -> None:
    maskset = small()
    maskset.save(tmp_path / "x.msk", codec="bits")
    opened = maskhub.open(tmp_path / "x.msk")
    assert opened == maskset
    assert opened.summary().codecs == {"bits": 1}


def test_operators_say_what_they_were_given() -> None:
    for one in (small(), small()["a"]):
        for other in (None, 1, "a", [True]):
            with pytest.raises(TypeError, match=f"unsupported operand type.*'{type(other).__name__}'"):
                one & other  # type: ignore[operator]
    with pytest.raises(TypeError, match="'MaskSet' and 'Mask'"):
        small() - small()["a"]  # type: ignore[operator]
