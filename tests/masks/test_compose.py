from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskhub
from maskhub.container.writer import save
from maskhub.errors import BaseMismatchError, MaskhubError
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.compose import Missing, compose
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from tests.tiny import sealed

SHAPES: dict[str, tuple[int, ...]] = {"t0": (1,), "t1": (7,), "t2": (8,), "t3": (5, 13), "t4": (0, 3), "t5": ()}
START = Initial(0, 3277, -0.02, 0.58)
TASK = Task("text-classification", "BertForSequenceClassification", {"id2label": {"0": "ham", "1": "spam"}})


def binding(name: str = "base", salt: str = "") -> BaseBinding:
    digests = {n: digest.tensor_digest("F32", shape, f"{n}{salt}".encode()) for n, shape in SHAPES.items()}
    return BaseBinding.of(name, digests, {n: f"bert.{n}" for n in SHAPES}, None)


def flags(seed: int, density: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape) < density for name, shape in SHAPES.items()}


def maskset(seed: int, **changes: object) -> MaskSet:
    masks = {name: Mask.from_bool(keep) for name, keep in flags(seed).items()}
    head = {"classifier.weight": RawTensor.from_numpy(np.ones((2, 3), np.float32))}
    made = MaskSet(binding(), masks, head, TASK, START, {"accuracy": 0.5}, {"seed": seed})
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


A, B, C = maskset(1), maskset(2), maskset(3)


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 2**32))
def test_laws(one: int, two: int, three: int) -> None:
    a, b, c = maskset(one), maskset(two), maskset(three)
    everything = a | ~a
    for left, right in (
        (a & a, a), (a | a, a), (a ^ b ^ b, a), (a - b, a & ~b), (~~a, a),
        (~(a & b), ~a | ~b), (~(a | b), ~a & ~b),
        (a & b, b & a), ((a & b) & c, a & (b & c)), ((a ^ b) ^ c, a ^ (b ^ c)),
        (a & (b | c), (a & b) | (a & c)), (a ^ b, (a | b) - (a & b)), (a & everything, a), (a - everything, a & ~a),
        (compose("vote", {"a": a, "b": b, "c": c}, min=1), a | b | c),
        (compose("vote", {"a": a, "b": b, "c": c}, min=3), a & b & c),
        (compose("vote(2, a, b, c)", {"a": a, "b": b, "c": c}), (a & b) | (a & c) | (b & c)),
        (compose("xor", {"a": a, "b": b, "c": c}), a ^ b ^ c),
        (compose("minus", {"a": a, "b": b, "c": c}), a - b - c),
    ):  # fmt: skip
        assert dict(left.masks) == dict(right.masks)
        assert left.id == right.id


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_operators_are_numpys_on_booleans(one: int, two: int) -> None:
    a, b = maskset(one), maskset(two)
    for name in SHAPES:
        x, y = flags(one)[name], flags(two)[name]
        for found, mask, wanted in (
            ((a & b)[name], a[name] & b[name], x & y),
            ((a | b)[name], a[name] | b[name], x | y),
            ((a ^ b)[name], a[name] ^ b[name], x ^ y),
            ((a - b)[name], a[name] - b[name], x & ~y),
            ((~a)[name], ~a[name], ~x),
        ):
            assert np.array_equal(found.to_bool(), wanted)
            assert np.array_equal(mask.to_bool(), wanted)
            assert found == mask
            assert found.kept == mask.kept == np.count_nonzero(wanted)


def test_operators_refuse_what_is_no_mask_or_has_another_shape() -> None:
    with pytest.raises(ValueError, match=r"masks of different shapes: \(7,\) and \(8,\)"):
        A["t1"] & A["t2"]
    for operand in (1, True, "b", A["t1"]):
        with pytest.raises(TypeError, match="unsupported operand"):
            A & operand  # type: ignore[operator]
    with pytest.raises(TypeError, match="unsupported operand"):
        A["t1"] | np.ones(7, bool)  # type: ignore[operator]


def test_a_composed_mask_set_says_where_it_comes_from() -> None:
    composed = compose("( a&b )|~c", {"a": A, "b": B, "c": C})
    assert composed.lineage == {
        "operation": "compose", "expression": "(a & b) | ~c", "parents": {"a": A.id, "b": B.id, "c": C.id}
    }  # fmt: skip
    assert (composed.base, composed.task, composed.initial, composed.metrics) == (A.base, TASK, START, {})
    assert composed.dense["classifier.weight"] is A.dense["classifier.weight"]
    chosen = compose("a - b", {"a": A, "b": B}, head_from="b")
    assert chosen.lineage["head_from"] == "b"
    other = dataclasses.replace(B, initial=None)
    assert compose("a - b", {"a": A, "b": other}).initial is None


def test_the_same_composition_gives_the_same_file(tmp_path: Path) -> None:
    for called, x, y in (("1", A, B), ("2", *(dataclasses.replace(m, metrics={}) for m in (A, B)))):
        save(compose("a ^ b", {"a": x, "b": y}), tmp_path / called)
    save(A, tmp_path / "a.msk", codec="bits")
    save(B, tmp_path / "b.msk", codec="gaps")
    opened = {name: maskhub.open(tmp_path / f"{name}.msk") for name in "ba"}
    manifest = save(compose("a^b", opened), tmp_path / "3")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == (tmp_path / "3").read_bytes()
    assert maskhub.open(tmp_path / "3").id == manifest.id == (A ^ B).id


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path) -> None:
    manifest = save(A, tmp_path / "a.msk", codec="bits")
    content = bytearray((tmp_path / "a.msk").read_bytes())
    place = content.rindex(A["t3"].bits.tobytes())
    content[place] ^= 1
    (tmp_path / "a.msk").write_bytes(content)
    sealed(tmp_path / "a.msk")
    composed = compose("~a", {"a": maskhub.open(tmp_path / "a.msk")})
    assert composed.lineage["parents"] == {"a": manifest.id}
    assert composed["t1"] == ~A["t1"]
    with pytest.raises(MaskhubError, match="t3: the decoded mask does not match its digest"):
        _ = composed["t3"].bits


def without(source: MaskSet, *names: str) -> MaskSet:
    return dataclasses.replace(source, masks={n: m for n, m in source.masks.items() if n not in names})


def test_tensors_that_only_some_mask() -> None:
    sets = {"a": A, "b": without(B, "t1", "t3"), "c": C}
    with pytest.raises(MaskhubError, match=r"not all of a, b, c mask t1, t3 \(b lacks t1\)") as caught:
        compose("a & b | c", sets)
    assert "--missing keep" in str(caught.value.hint)
    dropped = compose("a & b | c", sets, missing="drop")
    assert set(dropped.masks) == set(SHAPES) - {"t1", "t3"}
    assert dropped.lineage["missing"] == "drop"
    assert dropped["t2"] == (A["t2"] & B["t2"]) | C["t2"]
    kept = compose("a & b | c", sets, missing="keep")
    assert set(kept.masks) == set(SHAPES)
    assert kept["t3"] == A["t3"] | C["t3"]  # b keeps all of it
    assert kept["t2"] == dropped["t2"]
    assert compose("a - b | (c & ~c)", sets, missing="keep")["t3"].kept == 0
    whole = compose("vote(2, a, b, c)", sets, missing="keep")
    assert whole["t1"] == A["t1"] | C["t1"]
    assert "missing" not in compose("a & b", {"a": A, "b": B}, missing="keep").lineage
    with pytest.raises(MaskhubError, match="missing: there is no 'ignore'"):
        compose("a & b", {"a": A, "b": B}, missing="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["error", "keep", "drop"])
def test_masks_without_a_common_tensor(missing: Missing) -> None:
    with pytest.raises(MaskhubError, match="a, b have no masked tensor in common"):
        compose("a & b", {"a": without(A, "t0", "t1", "t2"), "b": without(B, "t3", "t4", "t5")}, missing=missing)


def test_heads_that_differ_are_listed() -> None:
    values = {"classifier.weight": RawTensor.from_numpy(np.zeros((2, 3), np.float32))}
    shape = {"classifier.weight": RawTensor.from_numpy(np.ones((6, 3), np.float32))}
    more = {**A.dense, "classifier.bias": RawTensor.from_numpy(np.ones(2, np.float32))}
    other = msgspec.structs.replace(TASK, config={"id2label": {"0": "x", "1": "y", "2": "z"}})
    for changes, told in (
        ({"dense": values}, "the heads of a, b differ: classifier.weight (F32 [2, 3], other values)"),
        ({"dense": shape}, "the heads of a, b differ: classifier.weight (a F32 [2, 3], b F32 [6, 3])"),
        ({"dense": more}, "the heads of a, b differ: classifier.bias (a none, b F32 [2])"),
        ({"dense": {}}, "the heads of a, b differ: classifier.weight (a F32 [2, 3], b none)"),
        ({"task": other}, "differ: task (a text-classification, 2 labels, b text-classification, 3 labels)"),
        ({"task": None}, "differ: task (a text-classification, 2 labels, b none)"),
    ):
        b = dataclasses.replace(B, **changes)
        with pytest.raises(MaskhubError) as caught:
            compose("a & b", {"a": A, "b": b})
        assert told in str(caught.value)
        assert caught.value.hint == "Take that of one: --head-from a|b, or in Python head_from='a'."
        chosen = compose("a & b", {"a": A, "b": b}, head_from="b")
        assert (chosen.dense, chosen.task) == (b.dense, b.task)


def test_operators_keep_the_head_of_the_mask_on_their_left() -> None:
    b = dataclasses.replace(B, dense={"score.weight": RawTensor.from_numpy(np.zeros(3, np.float32))}, task=None)
    for made, left in ((A & b, A), (b & A, b), (A | b, A), (b ^ A, b), (A - b, A), (~b, b), (A & b & b, A)):
        assert (made.dense, made.task) == (left.dense, left.task)
        assert made.lineage["head_from"] == "a"
    assert dict((A & b).masks) == dict((b & A).masks)


def test_the_head_may_come_from_a_mask_beside_the_expression() -> None:
    head = maskset(9, dense={"score.weight": RawTensor.from_numpy(np.ones(3, np.float32))})
    composed = compose("a & b", {"a": A, "b": B, "h": head}, head_from="h")
    assert composed.dense.keys() == {"score.weight"}
    assert composed.lineage["parents"]["h"] == head.id


def test_bases_must_match() -> None:
    other = dataclasses.replace(B, base=binding("other/base", "salt"))
    for make in (lambda: A & other, lambda: maskhub.diff(A, other), lambda: maskhub.diff(A, A, other)):
        with pytest.raises(BaseMismatchError, match=r"masks of different bases: base \(root .*\) and other/base") as e:
            make()
        assert e.value.tensors == tuple(SHAPES)
    renamed = B.with_base_name("mirror/base")
    assert (A & renamed).id == (A & B).id


def test_models_may_read_different_tensors_of_one_base() -> None:
    """As one that tags words, and has no pooler, and one that classifies texts."""
    read = {n: d for n, d in A.base.tensors.items() if n != "t3"}
    base = BaseBinding.of("base", read, {n: f"bert.{n}" for n in read}, None)
    tagger = dataclasses.replace(without(B, "t3"), base=base)
    found = maskhub.diff(A, tagger)
    assert (found.only_in_a, found.only_in_b) == (("t3",), ())
    assert [(f.field, f.a, f.b) for f in found.fields if f.field != "lineage.seed"] == [("base.tensors", 6, 5)]
    sets = {"a": A, "b": tagger}
    with pytest.raises(MaskhubError, match=r"differ: tensors of the base that their models read \(a 6, b 5\)"):
        compose("a & b", sets, missing="keep")
    of_a = compose("a & b", sets, missing="keep", head_from="a")
    assert of_a.base == A.base
    assert of_a["t3"] == A["t3"]
    assert of_a["t2"] == A["t2"] & B["t2"]
    of_b = compose("a & b", sets, missing="keep", head_from="b")
    assert of_b.base == base
    assert of_b.masks.keys() == read.keys()
    elsewhere = BaseBinding.of("x", {"u": "0" * 64}, {"u": "u"}, None)
    with pytest.raises(BaseMismatchError, match="they have no tensor in common"):
        A & MaskSet(elsewhere, {"u": A["t1"]})


def test_shapes_must_match() -> None:
    other = dataclasses.replace(B, masks={**B.masks, "t3": Mask.from_bool(np.ones((13, 5), bool))})
    with pytest.raises(MaskhubError, match=r"t3 has shape \[5, 13\] in a, and \[13, 5\] in b"):
        A & other


@pytest.mark.parametrize(
    ("expression", "options", "message"),
    [
        ("a & b", {"head_from": "c"}, "no mask is called 'c' to take the head from"),
        ("a", {}, "does not use b"),
        ("a & c", {}, "column 5: no mask is called 'c'"),
        ("and", {"min": 1}, "a number of masks is for votes, not for 'and'"),
        ("a & b", {"min": 1}, "a number of masks beside an expression"),
        ("vote", {}, "a vote needs the number"),
        ("vote", {"min": 3}, "vote of 3 among 2 masks"),
        ("nand", {}, "no mask is called 'nand'"),
    ],
)
def test_what_cannot_be_composed(expression: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(MaskhubError, match=message):
        compose(expression, {"a": A, "b": B}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["and", "vote", "2a", "a-b", "", "a b", "ä", "a\n"])
def test_names_that_could_not_stand_in_an_expression(name: str) -> None:
    with pytest.raises(MaskhubError, match="cannot name a mask"):
        compose("or", {name: A, "b": B})
