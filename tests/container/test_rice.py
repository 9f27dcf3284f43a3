from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskhub.container.codecs import rice
from maskhub.errors import CodecError
from maskhub.storage.tensor import Bytes


def stored(values: list[int] | NDArray[np.integer]) -> Bytes:
    return np.frombuffer(rice.compress(np.array(values, np.int64)), np.uint8)


def bits(text: str) -> Bytes:
    """Bytes from their bits, the least significant of each byte first."""
    return np.packbits(np.array([int(bit) for bit in text.replace(" ", "")], np.uint8), bitorder="little")


SIZES = st.sampled_from([1, 2, 127, 128, 129, 1000])


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=300), st.binary(max_size=5))
@example([0] * 128 + [(1 << 32) - 1] * 128, b"")
@example([(1 << 32) - 1], b"\xff")
@example([0, (1 << 32) - 1], b"")
def test_what_was_stored_comes_back_with_what_follows(values: list[int], rest: bytes) -> None:
    payload = np.concatenate([stored(values), np.frombuffer(rest, np.uint8)])
    found, left = rice.decompress(payload, len(values))
    assert found.dtype == np.uint32
    assert found.tolist() == values
    assert left.tobytes() == rest


@given(SIZES, st.integers(0, 31), st.integers(0, 9))
def test_lists_of_any_density_come_back(size: int, level: int, seed: int) -> None:
    chance = 2.0**-level
    values = np.minimum(np.random.default_rng(seed).geometric(chance, size), 1 << 32) - 1
    found, rest = rice.decompress(stored(values), size)
    assert np.array_equal(found, values)
    assert not rest.size


@pytest.mark.parametrize("chance", [0.5, 0.3, 0.1, 0.01, 1e-4])
def test_the_code_is_near_the_entropy(chance: float) -> None:
    values = np.random.default_rng(0).geometric(chance, 100_000) - 1
    entropy = -(chance * np.log2(chance) + (1 - chance) * np.log2(1 - chance)) / chance
    assert 8 * stored(values).size / values.size < 1.03 * entropy + 0.02


def test_a_density_that_changes_costs_little() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.geometric(chance, 20_000) - 1 for chance in (0.4, 0.01, 0.0001)]
    alone = sum(stored(part).size for part in parts)
    assert stored(np.concatenate(parts)).size < 1.002 * alone


def test_the_layout_is_that_of_the_format() -> None:
    unary = "000000000000 1" + "1" + "1" + "00000000001"  # parameter 6, then the high parts 0, 0, 10
    low = "110000" + "000000" + "001111"
    assert np.array_equal(stored([3, 0, 700]), np.concatenate([bits(unary), bits(low)]))


def test_an_empty_list_is_no_bytes() -> None:
    assert rice.compress(np.empty(0, np.int64)) == b""
    found, rest = rice.decompress(np.frombuffer(b"ab", np.uint8), 0)
    assert not found.size
    assert rest.tobytes() == b"ab"


@pytest.mark.parametrize("values", [[0], [3, 0, 700], list(range(500)), [1 << 31] * 129])
def test_a_list_that_is_cut_is_refused(values: list[int]) -> None:
    payload = stored(values)
    for size in range(payload.size):
        with pytest.raises(CodecError, match=f"a list of {len(values)} values is cut short"):
            rice.decompress(payload[:size], len(values))


@pytest.mark.parametrize(
    ("text", "count", "reason"),
    [
        ("01 1 1", 1, "bits behind its last value"),  # a one behind the last value
        ("001 1 000 0 1100 0000", 1, "bits behind its last value"),  # one in the padding of the low part: k is 1
        ("01 1", 1, "a parameter that is not below 32"),  # -1
        ("0" * 64 + "1 1", 1, "a parameter that is not below 32"),  # 32
        ("0" * 62 + "1" + "001" + "0" * 6 + "0" * 32, 1, r"a value of 2\*\*32 or more"),
        ("1" + "0" * 7, 1, "a list of 1 values is cut short"),
        ("", 1, "a list of 1 values is cut short"),
    ],
)
def test_what_is_no_list_is_refused(text: str, count: int, reason: str) -> None:
    with pytest.raises(CodecError, match=f"a list (has|of) .*{reason}|{reason}"):
        rice.decompress(bits(text), count)


def test_the_largest_parameter_holds_the_largest_value() -> None:
    text = "0" * 62 + "1" + "01" + "0" * 7 + "1" * 31 + "0"  # k is 31, the high part 1
    found, rest = rice.decompress(bits(text), 1)
    assert found.tolist() == [(1 << 32) - 1]
    assert not rest.size
