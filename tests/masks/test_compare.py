from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskhub
from maskhub.container.writer import save
from maskhub.errors import MaskhubError
from maskhub.masks.compare import MEASURES, NUMBERS, Overlap, chance, diff, matrix, overlap
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage.tensor import RawTensor
from tests import tiny

MASKS = Path(__file__).parents[2] / "benchmarks" / "masks"


def variant(maskset: MaskSet, seed: int, **changes: object) -> MaskSet:
    """The same task with other masks."""
    rng = np.random.default_rng(seed)
    masks = {name: tiny.random_mask(mask.shape, rng, 0.3) for name, mask in maskset.masks.items()}
    return dataclasses.replace(maskset, masks=masks, **changes)  # type: ignore[arg-type]


@given(st.sampled_from([0, 1, 7, 8, 9, 64, 65, 300]), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_numbers_are_those_of_boolean_arrays(size: int, one: float, two: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(size) < one, rng.random(size) < two
    found = overlap(Mask.from_bool(a), Mask.from_bool(b))
    assert (found.weights, found.kept_a, found.kept_b) == (size, a.sum(), b.sum())
    assert (found.both, found.only_a, found.only_b) == ((a & b).sum(), (a & ~b).sum(), (b & ~a).sum())
    assert (found.neither, found.either, found.hamming) == ((~a & ~b).sum(), (a | b).sum(), (a ^ b).sum())
    if size:
        assert (found.density_a, found.density_b) == pytest.approx((a.mean(), b.mean()))
        assert found.differing == pytest.approx((a ^ b).mean())
    assert found.jaccard == pytest.approx((a & b).sum() / (a | b).sum() if (a | b).any() else 1)
    assert found.jaccard_dropped == pytest.approx((~a & ~b).sum() / (~a | ~b).sum() if (~a | ~b).any() else 1)
    assert found.dissimilarity == pytest.approx((a ^ b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 0)
    assert found.expected == pytest.approx(a.sum() * b.sum() / max(1, size))
    assert all(math.isfinite(value) for value in found.numbers().values() if value is not None)
    assert tuple(found.numbers()) == NUMBERS
    assert MEASURES.keys() <= set(NUMBERS)


def test_chance_is_what_shuffling_gives() -> None:
    rng = np.random.default_rng(0)
    a = np.arange(60) < 45
    counts = [np.count_nonzero(a & (rng.permutation(60) < 50)) for _ in range(20_000)]
    expected, variance = chance(60, 45, 50)
    assert np.mean(counts) == pytest.approx(expected, abs=5 * math.sqrt(variance / len(counts)))
    assert np.var(counts) == pytest.approx(variance, rel=0.05)
    found = Overlap.of_counts(60, 45, 50, 40)
    assert found.z == pytest.approx((40 - np.mean(counts)) / np.std(counts), rel=0.03)


def test_the_correlation_is_pearsons_whatever_the_size() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((3, 40, 50)) < 0.9
    b = np.where(rng.random(a.shape) < 0.5, a, rng.random(a.shape) < 0.8)
    found = overlap(Mask.from_bool(a), Mask.from_bool(b))
    assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    large = overlap(*(Mask.from_bool(np.tile(x, (16, 1, 1))) for x in (a, b)))
    assert large.correlation == pytest.approx(found.correlation)
    assert large.z == pytest.approx(4 * (found.z or 0), rel=1e-3)
    # Summed over tensors of several sizes and densities it is still 1 for equal masks, and a mean of theirs for others.
    dense = Mask.from_bool(rng.random((7, 9)) < 0.99)
    mask = Mask.from_bool(a)
    assert (overlap(dense, dense) + overlap(mask, mask)).correlation == pytest.approx(1)
    assert (found + large).correlation == pytest.approx(found.correlation)
    assert overlap(mask, ~mask).correlation == pytest.approx(-1)


def test_overlap_that_cannot_vary_has_no_z() -> None:
    for weights, a, b, both in ((0, 0, 0, 0), (1, 1, 1, 1), (9, 9, 4, 4), (9, 0, 4, 0)):
        found = Overlap.of_counts(weights, a, b, both)
        assert (found.z, found.correlation) == (None, None)
    assert math.isnan(MEASURES["correlation"](Overlap()))


def test_overlaps_add_up() -> None:
    one, two = Overlap.of_counts(100, 50, 60, 40), Overlap.of_counts(10, 9, 1, 1)
    total = one + two
    assert (total.weights, total.kept_a, total.kept_b, total.both) == (110, 59, 61, 41)
    assert total.expected == one.expected + two.expected == pytest.approx(30.9)
    assert total.variance == one.variance + two.variance


def test_diff_by_tensor_layer_and_kind(maskset: MaskSet) -> None:
    other = variant(maskset, 1)
    found = diff(maskset, other, ("x", "y"))
    assert (found.a, found.b) == ("x", "y")
    assert [tensor.name for tensor in found.tensors] == sorted(maskset.masks)
    for tensor in found.tensors:
        a, b = maskset[tensor.name].to_bool(), other[tensor.name].to_bool()
        assert (tensor.shape, tensor.parameter) == (a.shape, f"bert.{tensor.name}")
        assert tensor.overlap == Overlap.of_counts(a.size, int(a.sum()), int(b.sum()), int((a & b).sum()))
    assert found.total.hamming == sum(np.count_nonzero(maskset[n].to_bool() != other[n].to_bool()) for n in other.masks)
    assert list(found.layers) == [0, 1, None]
    assert list(found.kinds) == ["Q", "AO", "I", "O", "P"]
    assert found.layers[None] == found.kinds["P"] == found.cells[None, "P"]
    assert found.cells[1, "AO"].weights == tiny.HIDDEN**2
    for groups in (found.layers, found.kinds, found.cells):
        summed = sum(groups.values(), Overlap())
        assert (summed.weights, summed.both) == (found.total.weights, found.total.both)
    assert found.same_start
    assert not found.same
    assert not found.dense
    assert not found.fields


def test_what_else_differs_is_listed(maskset: MaskSet) -> None:
    names = sorted(maskset.masks)
    head = {
        "classifier.weight": RawTensor.from_numpy(np.zeros((2, tiny.HIDDEN), np.float32)),
        "classifier.bias": RawTensor.from_numpy(np.zeros(3, np.float32)),
        "extra": RawTensor.from_numpy(np.zeros((), np.float64)),
    }
    a = dataclasses.replace(maskset, masks={n: maskset.masks[n] for n in names[1:]})
    b = dataclasses.replace(
        maskset,
        masks={n: maskset.masks[n] for n in names[:-1]},
        dense=head,
        metrics={"accuracy": 0.8},
        lineage={"operation": "train", "seed": 3, "settings": {"epochs": 2}},
        initial=Initial(1, 3277, -0.02, 0.58),
    ).with_base_name("mirror")
    found = diff(a, b)
    assert (found.only_in_a, found.only_in_b) == ((names[-1],), (names[0],))
    assert {d.name: (d.a, d.b, d.values) for d in found.dense} == {
        "classifier.bias": ("F32 [2]", "F32 [3]", None),
        "classifier.weight": (f"F32 [2, {tiny.HIDDEN}]", f"F32 [2, {tiny.HIDDEN}]", 2 * tiny.HIDDEN),
        "extra": (None, "F64 []", None),
    }
    assert {f.field: (f.a, f.b) for f in found.fields} == {
        "base.name": ("tiny-bert", "mirror"),
        "initial.seed": (0, 1),
        "lineage.seed": (0, 3),
        "lineage.settings.epochs": (None, 2),
        "metrics.accuracy": (0.9, 0.8),
    }
    assert not found.same_start
    assert found.total.hamming == 0
    assert not found.same


def test_notes_do_not_make_masks_different(maskset: MaskSet) -> None:
    noted = dataclasses.replace(maskset, metrics={}, lineage={"note": "other"})
    found = diff(maskset, noted)
    assert found.same
    assert found.fields
    assert not found.other_task
    other = diff(maskset, dataclasses.replace(maskset, task=None))
    assert other.other_task
    assert not other.same


def test_what_is_known_to_be_the_same_is_not_decoded(maskset: MaskSet, tmp_path: Path) -> None:
    one, two = tmp_path / "a.msk", tmp_path / "b.msk"
    save(maskset, one, codec="bits")
    first = sorted(maskset.masks)[0]
    changed = dataclasses.replace(maskset, masks={**maskset.masks, first: ~maskset.masks[first]})
    save(changed, two, codec="bits")
    for name in sorted(maskset.masks)[1:]:  # damaged in both files
        for path in (one, two):
            content = bytearray(path.read_bytes())
            place = content.index(maskset[name].bits.tobytes())
            content[place] ^= 1
            path.write_bytes(content)
            tiny.sealed(path)
    found = diff(maskhub.open(one), maskhub.open(two))
    assert found.total.hamming == maskset[first].size
    assert found.total == diff(maskset, changed).total


def test_shapes_of_masks_must_match() -> None:
    with pytest.raises(MaskhubError, match=r"masks of different shapes: \[4\] and \[2, 2\]"):
        overlap(Mask.from_bool(np.ones(4, bool)), Mask.from_bool(np.ones((2, 2), bool)))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_matrix_holds_every_pair(maskset: MaskSet, measure: str) -> None:
    sets = {name: variant(maskset, seed) for seed, name in enumerate("pqrs")}
    first = sorted(maskset.masks)[0]
    sets["q"] = dataclasses.replace(sets["q"], masks={n: m for n, m in sets["q"].masks.items() if n != first})
    found = matrix(sets, measure)
    common = {name: dataclasses.replace(s, masks={n: s.masks[n] for n in sets["q"].masks}) for name, s in sets.items()}
    assert (found.names, found.measure, found.tensors) == (tuple(sets), measure, len(maskset.masks) - 1)
    assert found.weights == sum(mask.size for mask in sets["q"].masks.values())
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            assert found.values[i, j] == pytest.approx(MEASURES[measure](diff(common[a], common[b]).total))


def test_a_matrix_over_more_than_one_chunk(monkeypatch: pytest.MonkeyPatch, maskset: MaskSet) -> None:
    sets = {name: variant(maskset, seed) for seed, name in enumerate("pqrs")}
    whole = matrix(sets, "hamming").values
    monkeypatch.setattr("maskhub.masks.compare.CHUNK", 8)
    assert np.array_equal(matrix(sets, "hamming").values, whole)


def test_an_unknown_measure(maskset: MaskSet) -> None:
    with pytest.raises(MaskhubError, match="measure: there is no 'cosine'") as caught:
        matrix({"a": maskset, "b": maskset}, "cosine")
    assert "jaccard" in str(caught.value.hint)


def test_progress_counts_tensors(maskset: MaskSet) -> None:
    calls: list[tuple[int, int]] = []
    diff(maskset, maskset, progress=lambda done, total: calls.append((done, total)))
    matrix({"a": maskset, "b": maskset}, progress=lambda done, total: calls.append((done, total)))
    count = len(maskset.masks)
    assert calls == 2 * [(i, count) for i in range(1, count + 1)]


def test_data_frames(maskset: MaskSet) -> None:
    pytest.importorskip("pandas")
    found = diff(maskset, variant(maskset, 1))
    frame = found.to_frame()
    assert list(frame.index) == [tensor.name for tensor in found.tensors]
    assert frame["both"].sum() == found.total.both
    assert list(frame.columns) == ["layer", "kind", "parameter", "shape", *NUMBERS]
    by_layer = frame.groupby("layer", dropna=False)["hamming"].sum()
    assert list(map(str, by_layer.index)) == ["0", "1", "<NA>"]
    assert list(by_layer) == [overlap.hamming for overlap in found.layers.values()]
    square = matrix({"p": maskset, "q": variant(maskset, 1)}, "hamming").to_frame()
    assert square.loc["p", "q"] == square.loc["q", "p"] == found.total.hamming


def test_without_pandas_the_cure_is_told(maskset: MaskSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # which makes its import fail
    with pytest.raises(MaskhubError, match="data frames need pandas") as caught:
        diff(maskset, maskset).to_frame()
    assert caught.value.hint == "Install it: pip install pandas."


def test_real_masks() -> None:
    sets = {path.stem: maskhub.open(path) for path in sorted(MASKS.glob("*.msk"))}
    found = maskhub.diff(sets["sst2"], sets["trec"], names=("sst2", "trec"))
    kept = [np.concatenate([sets[n][t].to_bool().ravel() for t in sorted(sets[n].masks)]) for n in ("sst2", "trec")]
    assert found.total.weights == kept[0].size == 8_994_816
    assert found.total.both == np.count_nonzero(kept[0] & kept[1])
    assert found.total.dissimilarity == pytest.approx((kept[0] ^ kept[1]).sum() / (kept[0].sum() + kept[1].sum()))
    assert found.same_start
    assert found.total.z is not None
    assert found.total.z > 100
    values = maskhub.diff(*sets.values(), names=tuple(sets))
    i, j = values.names.index("sst2"), values.names.index("trec")
    assert values.values[i, j] == found.total.jaccard_dropped
    assert np.array_equal(np.diag(values.values), np.ones(3))
    values = maskhub.diff(*sets.values(), measure="correlation")
    assert values.values[i, j] == pytest.approx(found.total.correlation)
    assert np.diag(values.values) == pytest.approx(1)
