from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskhub.container import codecs
from maskhub.container.codecs.gaps import compress, decompress, width_for
from maskhub.errors import CodecError
from maskhub.mask import Mask, count_ones

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks of any shape, with a share of kept weights from none to all, also in whole rows."""
    shape = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0, 0.01, 0.05, 0.5, 0.95, 0.99, 1]))
    rows = shape[:1] + (1,) * (len(shape) - 1) if draw(st.booleans()) else shape
    return Mask.from_bool(np.broadcast_to(rng.random(rows) < density, shape))


@pytest.mark.parametrize("name", codecs.NAMES)
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
    codec, payload = codecs.encode(mask, name)
    read = codecs.from_dict(codecs.to_dict(codec))
    assert read == codec
    bits = read.decode(np.frombuffer(payload, np.uint8), mask.shape, mask.kept)
    assert Mask(mask.shape, bits) == mask
    assert codecs.encode(mask, name) == (codec, payload)


@given(masks())
def test_auto_takes_the_smallest(mask: Mask) -> None:
    sizes = {name: len(codecs.encode(mask, name)[1]) for name in codecs.REGISTRY}
    chosen, payload = codecs.encode(mask)
    assert len(payload) == min(sizes.values()) == sizes[chosen.name]


def test_sizes_of_typical_masks() -> None:
    rng = np.random.default_rng(0)
    size = 1 << 18
    dropped = rng.random(size) >= 0.05
    bound = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95)) * size / 8
    codec, payload = codecs.encode(Mask.from_bool(dropped))
    assert codec.name == "gaps"
    assert len(payload) < 1.02 * bound
    rows = np.repeat(rng.random((512, 1)) < 0.5, 512, axis=1)
    assert codecs.encode(Mask.from_bool(rows))[0].name == "zstd"
    assert codecs.encode(Mask.from_bool(rng.random(size) < 0.5))[0].name == "bits"


def test_unknown_codecs_and_parameters_are_refused_by_name() -> None:
    with pytest.raises(CodecError, match="unknown codec 'magic'; this version knows bits, zstd, gaps"):
        codecs.find("magic")
    with pytest.raises(CodecError, match="unknown codec 'magic'"):
        codecs.encode(Mask.from_bool([True]), "magic")
    with pytest.raises(CodecError, match="unknown codec 'magic'"):
        codecs.from_dict({"name": "magic"})
    with pytest.raises(CodecError, match="unknown codec ''"):
        codecs.from_dict({})
    with pytest.raises(CodecError, match=re.escape("unknown codec '[1]'")):
        codecs.from_dict({"name": [1]})
    with pytest.raises(CodecError, match="codec 'gaps': Object missing required field `width`"):
        codecs.from_dict({"name": "gaps"})
    with pytest.raises(CodecError, match="codec 'gaps': Invalid enum value 64"):
        codecs.from_dict({"name": "gaps", "width": 64})


def test_a_codec_is_a_frozen_value() -> None:
    for codec in codecs.REGISTRY.values():
        one, _ = codec.encode(Mask.from_bool([True, False]))
        assert dataclasses.is_dataclass(one)
        assert hash(one) == hash(codecs.from_dict(codecs.to_dict(one)))


MASK = Mask.from_bool(np.random.default_rng(1).random((40, 25)) >= 0.05)


@pytest.mark.parametrize("name", codecs.REGISTRY)
@given(data=st.data())
def test_damaged_payloads_end_in_a_codec_error_or_in_other_bits(name: str, data: st.DataObject) -> None:
    codec, payload = codecs.encode(MASK, name)
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = damaged[: data.draw(st.integers(0, len(damaged)))] + data.draw(st.binary(max_size=8))
    for broken in (damaged, cut):
        try:
            bits = codec.decode(np.frombuffer(bytes(broken), np.uint8), MASK.shape, MASK.kept)
        except CodecError:
            continue
        assert bits.shape == MASK.bits.shape  # the reader compares digests


@pytest.mark.parametrize("name", codecs.REGISTRY)
def test_a_payload_for_another_size_is_refused(name: str) -> None:
    codec, payload = codecs.encode(MASK, name)
    data = np.frombuffer(payload, np.uint8)
    for shape, kept in (((40, 50), MASK.kept), ((5, 5), 24), ((40, 26), MASK.kept)):
        with pytest.raises(CodecError):
            codec.decode(data, shape, kept)
    with pytest.raises(CodecError):
        codec.decode(data[:0], MASK.shape, MASK.kept)


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
    codec, payload = codecs.encode(Mask.from_bool(keep), "gaps")
    assert codecs.to_dict(codec) == {"name": "gaps", "width": 16}
    assert decompress(np.frombuffer(payload, np.uint8), len(distances), 16).tolist() == distances


def test_gaps_refuses_positions_past_the_end() -> None:
    codec, payload = codecs.encode(Mask.from_bool(np.arange(1000) == 999), "gaps")
    with pytest.raises(CodecError, match="codec 'gaps': a position lies past the end of the tensor"):
        codec.decode(np.frombuffer(payload, np.uint8), (999,), 1)


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


def test_decoded_bits_have_no_ones_in_the_padding() -> None:
    for size in range(1, 20):
        mask = Mask.from_bool(np.ones(size, bool))
        for name in codecs.REGISTRY:
            codec, payload = codecs.encode(mask, name)
            assert count_ones(codec.decode(np.frombuffer(payload, np.uint8), mask.shape, size)) == size
