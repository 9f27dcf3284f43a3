from __future__ import annotations

import math

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from maskhub.errors import ArgumentError
from maskhub.masks.mask import Mask
from maskhub.storage import digest


def plain(data: bytes) -> str:
    return blake3(data).hexdigest()


def test_tensor_digest_is_over_dtype_shape_and_bytes() -> None:
    assert digest.tensor_digest("F32", (1, 2), b"12345678") == plain(b"tensor F32 1,2\n12345678")
    assert digest.tensor_digest("I64", (), b"12345678") == plain(b"tensor I64 \n12345678")
    assert digest.tensor_digest("F32", (0, 7), b"") == plain(b"tensor F32 0,7\n")


def test_mask_digest_is_over_shape_and_packed_bits() -> None:
    mask = Mask.from_bool([[True, False, True]])
    assert mask.digest == digest.mask_digest((1, 3), mask.bits) == plain(b"mask 1,3\n\x05")


@pytest.mark.parametrize("size", [0, 1, digest.PARALLEL_FROM - 1, digest.PARALLEL_FROM, 3 * digest.PARALLEL_FROM + 5])
def test_threads_do_not_change_a_digest(size: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    assert digest.tensor_digest("U8", (size,), data) == plain(b"tensor U8 %d\n" % size + data.tobytes())


def test_base_root_is_over_the_sorted_list() -> None:
    a, b = "a" * 64, "b" * 64
    expected = plain(f"base\ntensor {a} 1 x\ntensor {b} 2 é\n".encode())
    assert digest.base_root({"x": a, "é": b}) == expected
    assert digest.base_root({"é": b, "x": a}) == expected


def test_mask_id_is_over_all_that_a_model_answers_with() -> None:
    root, a, b = "0" * 64, "a" * 64, "b" * 64
    task = {"type": "t", "config": {"é": [1, 2.0, 0.1, 1e21, None, True], "big": 1 << 60}}
    text = (
        f"maskhub {root}\nparameter 1 m 5 net.m\nparameter 2 é 2 é\nmask {a} 1 m\ndense {b} 1 d\ntask\n"
        '{"config":{"big":1152921504606847000,"é":[1,2,0.1,1e+21,null,true]},"type":"t"}'
    )
    given = {"m": a}, {"d": b}, {"é": "é", "m": "net.m"}
    assert digest.mask_id(root, *given, task) == plain(text.encode())
    assert digest.mask_id(root, *given, None) == plain(text.partition("{")[0].encode())
    assert digest.mask_id(root, {"m": a}, {}, {}, None) != digest.mask_id(root, {}, {"m": a}, {}, None)


@pytest.mark.parametrize("number", [math.nan, math.inf, 10**400])
def test_a_task_with_what_no_json_number_is_has_no_id(number: float) -> None:
    with pytest.raises(ArgumentError, match="the task's configuration: "):
        digest.mask_id("0" * 64, {}, {}, {}, {"config": {"a": [number]}})


@given(st.dictionaries(st.text(min_size=1), st.sampled_from(["a" * 64, "b" * 64])), st.data())
def test_different_lists_never_read_the_same(tensors: dict[str, str], data: st.DataObject) -> None:
    other = data.draw(st.dictionaries(st.text(min_size=1), st.sampled_from(["a" * 64, "b" * 64])))
    assert (digest.base_root(tensors) == digest.base_root(other)) == (tensors == other)


def test_a_name_cannot_pass_for_two_entries() -> None:
    a = "a" * 64
    assert digest.base_root({f"x\ntensor {a} 1 y": a}) != digest.base_root({"x": a, "y": a})


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(min_size=64, max_size=64))
def test_seal_reads_its_own_place_as_zeros(before: bytes, after: bytes, digits: bytes) -> None:
    assert digest.seal(before + digits + after, len(before)) == plain(before + b"0" * 64 + after)
    assert digest.seal(before + digits, len(before), [after[:3], after[3:]]) == plain(before + b"0" * 64 + after)
