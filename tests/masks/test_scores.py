from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from maskhub.masks.scores import LEVELS, UniformScores, draw

WORD = (1 << 64) - 1
QUERY = "encoder.layer.0.attention.self.query.weight"
GOLDEN = (
    [34826, 41058, 9903, 13199, 45648, 38476, 65154, 14022],
    [54617, 32773, 40297, 55949, 162, 29373, 33235, 32635],
    [1050215004, 1052129475, 1032895242, 1036945367, 1053539523, 1051336284, 1058248187, 1037956669],
)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """One block of Philox4x64-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (second >> 64) ^ c1 ^ k0, second & WORD, (first >> 64) ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return [c0, c1, c2, c3]


def words(key: list[int], count: int) -> list[int]:
    """The stream of 64-bit words; NumPy raises the counter before each block, so it starts at 1."""
    blocks = (philox([block, 0, 0, 0], key) for block in range(1, count // 4 + 2))
    return [word for block in blocks for word in block][:count]


def key_of(seed: int, name: str) -> list[int]:
    digest = blake3(f"scores {seed} {name}".encode()).digest()
    return [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8)]


def test_the_reference_agrees_with_the_published_vectors() -> None:
    # Known answers of Random123, the paper's library: counter and key all 0, then all 1.
    assert philox([0] * 4, [0] * 2) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([WORD] * 4, [WORD] * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 15, 16, 17, 1000])
@pytest.mark.parametrize(("seed", "name"), [(0, QUERY), (1, QUERY), (2**32 - 1, "classifier.weight"), (7, "ä/😀")])
def test_draws_are_16_bits_each_of_the_stream(seed: int, name: str, count: int) -> None:
    stream = words(key_of(seed, name), (count + 3) // 4)
    expected = [word >> shift & 0xFFFF for word in stream for shift in (0, 16, 32, 48)][:count]
    drawn = draw(seed, name, count)
    assert drawn.dtype == np.uint16
    assert drawn.tolist() == expected


@pytest.mark.parametrize(("start", "count"), [(0, 5), (16, 1), (32, 40), (160, 0)])
def test_a_stream_may_be_read_from_the_middle(start: int, count: int) -> None:
    assert draw(7, QUERY, count, start).tolist() == draw(7, QUERY, 200)[start : start + count].tolist()


def test_golden_draws() -> None:
    assert draw(0, QUERY, 8).tolist() == GOLDEN[0]
    assert draw(42, "classifier.weight", 8).tolist() == GOLDEN[1]


def test_golden_scores() -> None:
    init = UniformScores.for_sparsity(0.05, 1e-2, seed=0)
    assert (init.low, init.high) == (-0.02, pytest.approx(0.58))
    scores = init.scores(QUERY, (2, 4))
    assert scores.dtype == np.float32
    assert scores.shape == (2, 4)
    assert scores.reshape(-1).view(np.uint32).tolist() == GOLDEN[2]
    assert init.cut(1e-2) == 3277


@pytest.mark.parametrize("sparsity", [0.01, 0.03, 0.05, 0.1, 0.5, 0.9])
def test_the_share_that_starts_dropped(sparsity: float) -> None:
    init = UniformScores.for_sparsity(sparsity, 1e-2, seed=3)
    count = 200_000
    dropped = np.mean(init.scores("w", (count,)) <= np.float32(1e-2))
    assert abs(init.cut(1e-2) / LEVELS - sparsity) < 1 / LEVELS
    assert abs(dropped - sparsity) < 5 * np.sqrt(sparsity * (1 - sparsity) / count)


@given(
    sparsity=st.floats(1e-4, 1 - 1e-4),
    threshold=st.floats(-0.0199, 2.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_above_the_threshold_are_draws_from_the_cut_on(sparsity: float, threshold: float, seed: int) -> None:
    init = UniformScores.for_sparsity(sparsity, threshold, seed)
    every = np.arange(LEVELS)
    assert np.array_equal(init._table() > np.float32(threshold), every >= init.cut(threshold))
    drawn = draw(seed, "w", 300)
    assert np.array_equal(init.scores("w", (300,)) > np.float32(threshold), drawn >= init.cut(threshold))


def test_seeds_and_names_give_unrelated_draws() -> None:
    streams = {tuple(draw(seed, name, 16).tolist()) for seed in range(4) for name in ("a", "b", "a b")}
    assert len(streams) == 12
