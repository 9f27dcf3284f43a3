from __future__ import annotations

import contextlib
import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from maskhub.container import codecs
from maskhub.container.codecs.drift import BLOCK, Draws, Drift
from maskhub.container.codecs.pco import compress, decompress, width_for
from maskhub.errors import ArgumentError, CodecError
from maskhub.masks.mask import Mask, count_ones
from maskhub.masks.scores import Initial, draw

INITIAL = Initial(seed=7, cut=6000, low=-0.02, high=0.3)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks of any shape, with a share of kept weights from none to all, also in whole rows."""
    shape = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0, 0.01, 0.05, 0.5, 0.95, 0.99, 1]))
    rows = shape[:1] + (1,) * (len(shape) - 1) if draw(st.booleans()) else shape
    return Mask.from_bool(np.broadcast_to(rng.random(rows) < density, shape))


def target(mask: Mask, parent: Mask | None = None, kept: int | None = None) -> codecs.Target:
    parent = parent or Mask.from_bool(np.ones(mask.shape, bool))
    return codecs.Target("w", mask.shape, mask.kept if kept is None else kept, INITIAL, parent)


def encode(mask: Mask, name: str = codecs.AUTO) -> tuple[codecs.Codec, bytes]:
    return codecs.encode(mask, name, target(mask))


def decode(codec: codecs.Codec, payload: bytes, mask: Mask) -> Mask:
    return Mask(mask.shape, codec.decode(np.frombuffer(payload, np.uint8), target(mask)))


ANY_MASK = [name for name in codecs.names() if name != "nm"]  # which needs a pattern


@pytest.mark.parametrize("name", ANY_MASK)
@given(mask=masks())
@example(mask=Mask.from_bool(np.ones((), bool)))
@example(mask=Mask.from_bool(np.zeros((), bool)))
@example(mask=Mask.from_bool(np.zeros((0,), bool)))
@example(mask=Mask.from_bool(np.zeros((3, 0, 2, 5), bool)))
@example(mask=Mask.from_bool(np.ones((1,), bool)))
@example(mask=Mask.from_bool(np.ones((7, 3, 5, 2), bool)))
@example(mask=Mask.from_bool(np.zeros((7, 3, 5, 2), bool)))
@example(mask=Mask.from_bool(np.arange(70_000) % 69_999 == 0))  # a distance that needs 32 bits
@example(mask=Mask.from_bool(np.arange(70_000) % 69_999 != 0))
def test_decode_gives_back_what_was_encoded(name: str, mask: Mask) -> None:
    codec, payload = encode(mask, name)
    read = codecs.from_dict(codecs.to_dict(codec))
    assert read == codec
    assert decode(read, payload, mask) == mask
    assert encode(mask, name) == (codec, payload)


@given(st.data())
def test_patterns_come_back(data: st.DataObject) -> None:
    m = data.draw(st.sampled_from([2, 4, 8, 16]))
    n = data.draw(st.integers(1, m - 1))
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    groups = rng.permuted(np.tile(np.arange(m) < n, (math.prod(shape), 1)), axis=1)
    mask = Mask.from_bool(groups.reshape(*shape[:-1], shape[-1] * m))
    codec, payload = encode(mask, f"nm:{n}:{m}")
    assert codecs.to_dict(codec) == {"name": "nm", "n": n, "m": m}
    assert decode(codec, payload, mask) == mask
    found, payload = encode(mask, "nm")  # perhaps a stricter pattern
    assert codecs.to_dict(found)["m"] <= m
    assert decode(found, payload, mask) == mask
    if mask.size > m:
        keep = mask.to_bool().copy()
        at = data.draw(st.integers(0, mask.size - 1))
        keep.reshape(-1)[at] ^= True
        first = [int(i) for i in np.unravel_index(at // m * m, mask.shape)]
        kept = n + (1 if keep.reshape(-1)[at] else -1)
        reason = f"the group of {m} weights at {first} keeps {kept}, not {n}"
        with pytest.raises(CodecError, match=re.escape(reason)):
            encode(Mask.from_bool(keep), f"nm:{n}:{m}")


def test_a_mask_without_a_pattern_is_no_nm() -> None:
    with pytest.raises(CodecError, match="codec 'nm': the mask has no N:M pattern in its last dimension"):
        encode(Mask.from_bool(np.arange(64) % 3 > 0), "nm")


@pytest.mark.parametrize("asked", ["nm:4:4", "nm:0:4", "nm:1:3", "nm:5:4", "nm:2of4", "nm:2:4:8", "nm:-2:4", "nm:"])
def test_what_is_no_pattern_is_refused(asked: str) -> None:
    with pytest.raises(ArgumentError, match=f"codec '{asked}': no pattern of neighbours") as caught:
        encode(Mask.from_bool([True] * 4), asked)
    assert caught.value.hint == "It is nm:N:M, as in nm:2:4: M is 2, 4, 8 or 16, and N below it."


def test_a_pattern_must_divide_the_rows() -> None:
    with pytest.raises(CodecError, match="4 does not divide the last dimension"):
        encode(Mask.from_bool([True, False] * 3), "nm:2:4")


@pytest.mark.parametrize("size", [1, 7, 100, 70_000, BLOCK + 13])
@pytest.mark.parametrize("cut", [0, 1, 3000, 65_535, 65_536])
def test_drift_codes_changes_near_and_far(size: int, cut: int) -> None:
    initial = Initial(seed=1, cut=cut, low=0, high=1)
    rng = np.random.default_rng(size)
    draws = draw(1, "w", size).astype(int)
    keep = draws >= cut
    distance = np.where(keep, draws - cut, cut - 1 - draws)
    for changed in (np.zeros(size, bool), rng.random(size) < 0.3 * np.exp(-distance / 2000), rng.random(size) < 1e-3):
        mask = Mask.from_bool(keep ^ changed)
        aim = codecs.Target("w", mask.shape, mask.kept, initial)
        codec, payload = codecs.encode(mask, "drift", aim)
        assert np.array_equal(codec.decode(np.frombuffer(payload, np.uint8), aim), mask.bits)


def test_drift_is_a_third_of_gaps_for_masks_that_drifted() -> None:
    size = 1 << 18
    draws = draw(INITIAL.seed, "w", size).astype(int)
    keep = draws >= INITIAL.cut
    distance = np.where(keep, draws - INITIAL.cut, INITIAL.cut - 1 - draws)
    mask = Mask.from_bool(keep ^ (np.random.default_rng(0).random(size) < 0.4 * np.exp(-distance / 1500)))
    assert len(encode(mask, "drift")[1]) < 0.45 * len(encode(mask, "gaps")[1])
    assert encode(mask)[0].name == "drift"


def test_codecs_that_lack_what_they_build_on_say_so() -> None:
    mask = Mask.from_bool(np.arange(100) % 7 > 0)
    bare = codecs.Target("w", mask.shape, mask.kept)
    with pytest.raises(CodecError, match="codec 'drift': the mask's initial scores are not recorded"):
        codecs.encode(mask, "drift", bare)
    with pytest.raises(CodecError, match="codec 'delta': the parent has no mask for this tensor"):
        codecs.encode(mask, "delta", bare)
    other = Mask.from_bool(np.ones((10, 10), bool))
    with pytest.raises(CodecError, match=re.escape("the parent's mask has shape [10, 10], not [100]")):
        codecs.encode(mask, "delta", target(mask, other))
    assert codecs.encode(mask, "auto", bare)[0].name in ("bits", "zstd", "gaps")


@given(masks())
def test_auto_takes_the_smallest(mask: Mask) -> None:
    sizes = {}
    for name in codecs.REGISTRY:
        with contextlib.suppress(CodecError):
            sizes[name] = len(encode(mask, name)[1])
    chosen, payload = encode(mask)
    assert len(payload) == min(sizes.values()) == sizes[chosen.name]


def test_sizes_of_typical_masks() -> None:
    rng = np.random.default_rng(0)
    size = 1 << 18
    dropped = rng.random(size) >= 0.05
    bound = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95)) * size / 8
    codec, payload = encode(Mask.from_bool(dropped))
    assert codec.name == "gaps"
    assert len(payload) < 1.02 * bound
    tiles = np.tile(rng.random((64, 64)) < 0.5, (8, 8))
    assert encode(Mask.from_bool(tiles))[0].name == "zstd"
    assert encode(Mask.from_bool(rng.random(size) < 0.5))[0].name == "bits"


def test_unknown_codecs_and_parameters_are_refused_by_name() -> None:
    with pytest.raises(
        CodecError, match="unknown codec 'magic'; this version knows bits, zstd, gaps, drift, nm, delta"
    ) as caught:
        codecs.from_dict({"name": "magic"})
    assert caught.value.hint == "A newer version may know it, or a package that brings it."
    for name in "auto", "nm:2:4":  # these are for people
        with pytest.raises(CodecError, match=f"unknown codec '{name}'"):
            codecs.from_dict({"name": name, "n": 2, "m": 4})
    with pytest.raises(CodecError, match="unknown codec ''"):
        codecs.from_dict({})
    with pytest.raises(CodecError, match=re.escape("unknown codec '[1]'")):
        codecs.from_dict({"name": [1]})
    with pytest.raises(CodecError, match="codec 'gaps': Object missing required field `width`"):
        codecs.from_dict({"name": "gaps"})
    with pytest.raises(CodecError, match="codec 'gaps': Invalid enum value 64"):
        codecs.from_dict({"name": "gaps", "width": 64})


@pytest.mark.parametrize("name", ["magic", "magic:1", "", ":", "NM"])
def test_what_is_asked_for_must_be_a_codec(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        codecs.encoder(name)
    assert caught.value.message == f"codec: there is no {name.partition(':')[0]!r}"
    assert caught.value.hint == "It is one of: auto, bits, zstd, gaps, drift, nm, delta."


def test_what_nothing_can_be_chosen_of_takes_no_colon() -> None:
    for name in "zstd:19", "bits:", "drift:a:b", "auto:1":
        with pytest.raises(ArgumentError, match=f"codec '{name}': there is nothing to choose behind a colon") as caught:
            codecs.encoder(name)
        assert caught.value.hint == f"Name it {name.partition(':')[0]}."


def test_a_codec_is_a_frozen_value() -> None:
    for codec in codecs.REGISTRY.values():
        mask = Mask.from_bool([True, False] * 2)
        one, _ = codec.encode(mask, target(mask))
        assert dataclasses.is_dataclass(one)
        assert hash(one) == hash(codecs.from_dict(codecs.to_dict(one)))


MASK = Mask.from_bool(np.random.default_rng(1).permuted(np.tile([0, 0, 1, 1], (250, 1)), axis=1).reshape(25, 40))


@pytest.mark.parametrize("name", codecs.REGISTRY)
@given(data=st.data())
def test_damaged_payloads_end_in_a_codec_error_or_in_other_bits(name: str, data: st.DataObject) -> None:
    codec, payload = encode(MASK, name)
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = damaged[: data.draw(st.integers(0, len(damaged)))] + data.draw(st.binary(max_size=8))
    for broken in (damaged, cut):
        try:
            bits = codec.decode(np.frombuffer(bytes(broken), np.uint8), target(MASK))
        except CodecError:
            continue
        assert bits.shape == MASK.bits.shape  # the reader compares digests


@pytest.mark.parametrize("name", codecs.REGISTRY)
@given(data=st.data())
def test_any_bytes_end_in_a_codec_error_or_in_bits_of_the_right_size(name: str, data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    size = math.prod(shape)
    kept = data.draw(st.integers(0, size))
    other, payload = encode(MASK, name)
    codec = codecs.from_dict(
        codecs.to_dict(other) | ({"count": data.draw(st.integers(0, size))} if name == "delta" else {})
    )
    numbers = data.draw(st.lists(st.integers(0, (1 << 32) - 1) | st.integers(0, 20), max_size=size + 1))
    heads = st.tuples(*[st.integers(0, 1 << 17) | st.sampled_from([0, 16, 32, size])] * 4)
    payload = data.draw(
        st.binary(max_size=200)
        | st.binary(min_size=0, max_size=40).map(lambda more: payload + more)
        | st.just(compress(np.array(numbers, np.int64), 32))
        | heads.map(lambda head: np.array(head, "<u4").tobytes() + compress(np.array(numbers, np.int64), 32))
    )
    try:
        bits = codec.decode(np.frombuffer(payload, np.uint8), target(Mask.from_bool(np.ones(shape, bool)), kept=kept))
    except CodecError:
        return
    assert bits.dtype == np.uint8
    assert bits.shape == ((size + 7) // 8,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
PARAMETERS = st.sampled_from(["width", "n", "m", "count", "x"])


@given(
    st.dictionaries(PARAMETERS, JSON | st.sampled_from([1, 2, 4, 16, 32])), st.sampled_from([*codecs.REGISTRY]) | JSON
)
def test_any_parameters_end_in_a_codec_error_or_in_a_codec(parameters: dict[str, object], name: object) -> None:
    try:
        codec = codecs.from_dict({"name": name} | parameters)
    except CodecError:
        return
    assert codec.name == name
    assert codecs.from_dict(codecs.to_dict(codec)) == codec


@pytest.mark.parametrize("name", codecs.REGISTRY)
def test_a_payload_for_another_size_is_refused(name: str) -> None:
    codec, payload = encode(MASK, name)
    data = np.frombuffer(payload, np.uint8)
    for shape in ((5, 5), (250, 400), (25, 41)):
        other = Mask.from_bool(np.ones(shape, bool))
        # What was changed of a larger mask may fit; then it is the digest that differs.
        with contextlib.suppress(CodecError):
            assert codec.decode(data, target(other)).size == other.bits.size
    with pytest.raises(CodecError):
        codec.decode(data[:0], target(MASK))


@pytest.mark.parametrize(
    ("keep", "distances"),
    [
        ([1, 0, 0, 1], [0, 2]),  # half kept: the ones are coded
        ([1, 1, 0, 1], [2]),
        ([0, 0, 0, 1, 0], [3]),
        ([0, 1, 0, 1, 1], [0, 1]),
        ([0, 0], []),
        ([1, 1], []),
    ],
)
def test_gaps_stores_the_distances_of_the_rarer_bit(keep: list[int], distances: list[int]) -> None:
    codec, payload = encode(Mask.from_bool(keep), "gaps")
    assert codecs.to_dict(codec) == {"name": "gaps", "width": 16}
    assert decompress(np.frombuffer(payload, np.uint8), len(distances), 16).tolist() == distances


def test_gaps_refuses_positions_past_the_end() -> None:
    codec, payload = encode(Mask.from_bool(np.arange(1000) == 999), "gaps")
    with pytest.raises(CodecError, match="a position lies past the end of the tensor"):
        codec.decode(np.frombuffer(payload, np.uint8), codecs.Target("w", (999,), 1))


@pytest.mark.parametrize(("largest", "width"), [(0, 16), (65535, 16), (65536, 32), ((1 << 32) - 1, 32)])
def test_width_is_the_narrowest(largest: int, width: int) -> None:
    assert width_for(largest) == width
    values = np.array([largest, 0, largest])
    assert np.array_equal(decompress(np.frombuffer(compress(values, width), np.uint8), 3, width), values)


def test_width_has_an_end() -> None:
    with pytest.raises(CodecError, match="a distance of 4294967296 does not fit 32 bits"):
        width_for(1 << 32)


def test_a_payload_of_another_width_or_count_is_refused() -> None:
    payload = np.frombuffer(compress(np.arange(10), 16), np.uint8)
    for count, width in ((9, 16), (11, 16), (10, 32), (0, 16)):
        with pytest.raises(CodecError, match="pcodec payload"):
            decompress(payload, count, width)


@pytest.mark.parametrize("width", [16, 32])
def test_lists_are_written_in_the_part_of_pcodec_that_the_format_names(width: int) -> None:
    payload = compress(np.random.default_rng(0).geometric(0.1, 4096), width)
    assert payload[:6] == b"pco!\3\0"
    chunks = payload.split({16: b"\7", 32: b"\1"}[width] + (4095).to_bytes(3, "little"), 1)
    assert chunks[0][-2:] == b"\4\1"  # format version 4.1
    assert chunks[1][0] == 0  # classic mode, no deltas


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("pages", [[700], [1] * 700, [256, 257, 1, 186], [699, 1]])
@pytest.mark.parametrize("largest", [0, 1, 300, (1 << 16) - 1, (1 << 32) - 1])
def test_lists_of_any_chunks_come_back(width: int, pages: list[int], largest: int) -> None:
    largest = min(largest, (1 << width) - 1)
    values = np.random.default_rng(0).integers(0, largest + 1, 700)
    values[[5, 6]] = largest
    paging = PagingSpec.exact_page_sizes(pages)
    config = ChunkConfig(mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op(), paging_spec=paging)
    payload = standalone.simple_compress(values.astype(f"u{width // 8}"), config)
    assert np.array_equal(decompress(np.frombuffer(payload, np.uint8), 700, width), values)
    for size in (*range(0, len(payload), len(payload) // 30 + 1), len(payload) - 1):
        with pytest.raises(CodecError, match="pcodec payload: "):
            decompress(np.frombuffer(payload[:size], np.uint8), 700, width)
    with pytest.raises(CodecError, match="1 bytes follow its end"):
        decompress(np.frombuffer(payload + b"\0", np.uint8), 700, width)


def test_decoded_bits_have_no_ones_in_the_padding() -> None:
    for size in range(1, 20):
        mask = Mask.from_bool(np.ones(size, bool))
        for name in ANY_MASK:
            codec, payload = encode(mask, name)
            assert count_ones(codec.decode(np.frombuffer(payload, np.uint8), target(mask))) == size


@pytest.mark.parametrize("size", [1, 17, 5000, BLOCK + 77])
@pytest.mark.parametrize("cut", [0, 1, 6000, 65_535, 65_536])
def test_masks_of_one_seed_decode_alike_together_and_alone(size: int, cut: int) -> None:
    """Whichever comes first: the farther, whose order holds the nearer's, or the nearer, whose is made anew."""
    initial = Initial(seed=7, cut=cut, low=-0.02, high=0.3)
    start = draw(7, "w", size) >= cut
    rng = np.random.default_rng(0)
    found = [Mask.from_bool(start ^ (rng.random(size) < share)) for share in (0.3, 0.001, 0.05, 0)]
    distance = np.where(start, draw(7, "w", size).astype(int) - cut, cut - 1 - draw(7, "w", size).astype(int))
    found.append(Mask.from_bool(start ^ (distance < 40)))  # a small window
    for order in (found, found[::-1]):
        draws = Draws()
        for number, mask in enumerate(order):
            told = codecs.Target("w", mask.shape, mask.kept, initial)
            payload = np.frombuffer(codecs.encode(mask, "drift", told)[1], np.uint8)
            shared = dataclasses.replace(told, draws=draws)
            bits, dropped = Drift().dropped(payload, shared)
            assert np.array_equal(bits, mask.bits)
            assert dropped is None or np.array_equal(dropped, np.flatnonzero(~mask.to_bool()))
            many = any(part.mean() < 0.8 for part in (start[:BLOCK], start[BLOCK:]) if part.size)
            assert (dropped is None) == (number == 0 or many)  # nothing is kept of the first, and no list of many
            assert (draws.nbytes > 0) == (number > 0)  # one mask alone has nothing to share
