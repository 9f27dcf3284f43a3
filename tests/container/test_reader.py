from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors.numpy import load_file, save_file

import maskhub
from maskhub.container.codecs import rice
from maskhub.container.codecs.drift import Draws, Drift
from maskhub.container.manifest import MAX_WEIGHTS, MOST
from maskhub.container.reader import MaskFile, read_mask
from maskhub.container.writer import save
from maskhub.errors import CodecError, FormatError, IntegrityError, MaskhubError, MissingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial, draw
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from tests.tiny import read_parts, sealed, write_parts


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.msk`` file of about 2 kB with a payload of each codec and a dense tensor."""
    rng = np.random.default_rng(0)
    flags = {
        "a.gaps": rng.random((9, 7)) >= 0.1,
        "b.zstd": np.ones((40, 20), bool),
        "c.bits": rng.random(21) < 0.5,
    }
    masks = {name: Mask.from_bool(keep) for name, keep in flags.items()}
    digests = {name: digest.mask_digest((), name.encode()) for name in masks}
    base = BaseBinding.of("b", digests, {name: f"m.{name}" for name in masks}, None)
    maskset = MaskSet(base, masks, {"head": RawTensor.from_numpy(np.arange(3, dtype=np.float32))})
    folder = tmp_path_factory.mktemp("small")
    parts = {}
    for name in masks:  # one file has one codec, or the smallest: put one together from three
        save(maskset, folder / name, codec=name[2:])
        manifest, payloads = read_parts(folder / name)
        parts[name] = manifest["masks"][name], payloads[name]
    manifest["masks"] = {name: entry for name, (entry, _) in parts.items()}
    payloads |= {name: payload for name, (_, payload) in parts.items()}
    return write_parts(folder / "small.msk", manifest, payloads)


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def changed(path: Path, change: Change, target: Path, **plain: str) -> Path:
    """A copy of a mask file with its manifest and parts changed, and metadata and seal to match, but for ``plain``."""
    manifest, parts = read_parts(path)
    change(manifest, parts)
    return write_parts(target, manifest, parts, **plain)


def repayload(manifest: dict[str, Any], parts: dict[str, Any], name: str, payload: bytes) -> None:
    """Other bytes for a mask, and how many: what someone who wants to do harm would write."""
    parts[name] = payload
    manifest["masks"][name]["bytes"] = len(payload)


def test_the_small_file_is_right(small: Path) -> None:
    MaskFile(small).verify()
    assert {e.codec["name"] for e in MaskFile(small).manifest.masks.values()} == {"bits", "zstd", "gaps"}


@contextlib.contextmanager
def flipped(path: Path, place: int, bit: int) -> Iterator[None]:
    """One bit of a file changed, in place: writing whole files thousands of times is slow."""
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit]), place)
        yield
        os.pwrite(file.fileno(), byte, place)


@pytest.mark.parametrize("bit", range(8))
def test_a_change_of_any_byte_is_found(small: Path, tmp_path: Path, bit: int) -> None:
    path = Path(shutil.copy(small, tmp_path))
    for place in range(path.stat().st_size):
        with flipped(path, place, bit):
            with pytest.raises(MaskhubError) as caught:
                MaskFile(path).verify()
            assert str(caught.value).startswith(f"{path}: "), f"byte {place}"
            assert "\n" not in str(caught.value)
    MaskFile(path).verify()


def test_a_change_of_any_payload_bit_after_opening_is_found_or_changes_nothing(small: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(small, tmp_path))
    file = MaskFile(path)
    right = {name: mask.bits for name, mask in file.maskset().items()}
    silent = 0
    head, masks = (file._file.tensors[name] for name in ("head", "maskhub.masks"))
    places = {name: (masks.start + start, masks.start + stop) for name, (start, stop) in file._places.items()}
    assert sum(stop - start for start, stop in places.values()) == masks.nbytes
    for name, (start, stop) in {**places, "head": (head.start, head.stop)}.items():
        for place in range(start, stop):
            for bit in range(8):
                maskset = file.maskset()
                with flipped(path, place, bit):
                    try:
                        if name == "head":
                            maskset.dense[name].data  # noqa: B018
                            pytest.fail("a dense tensor has no bit that says nothing")
                        assert np.array_equal(maskset.masks[name].bits, right[name])
                        silent += 1
                    except (IntegrityError, CodecError, FormatError) as error:
                        assert f"{path.name}: {name}: " in str(error)  # noqa: PT017
                    for other in {*maskset.masks} - {name}:
                        assert maskset.masks[other].bits.size
    assert silent < 80  # in what a list of pcodec says of its size


def test_every_length_of_a_cut_file_is_refused(small: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(small, tmp_path))
    with path.open("ab") as file:
        file.write(b"\0")
    size = path.stat().st_size
    for length in (size, *reversed(range(size - 1))):
        os.truncate(path, length)
        with pytest.raises(FormatError, match="not a safetensors file, or cut short"):
            MaskFile(path)


def test_what_is_no_mask_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("maskhub maskhub maskhub")
    save_file({"a": np.zeros(3)}, tmp_path / "weights")
    save_file({"a": np.zeros(3)}, tmp_path / "other", metadata={"format": "pt"})
    save_file({"a": np.zeros(3)}, tmp_path / "old", metadata={"maskhub": '{"format":"maskhub","version":"1.0"}'})
    for path, reason in {
        tmp_path / "empty": "not a safetensors file, or cut short",
        tmp_path / "text": "not a safetensors file, or cut short",
        tmp_path / "weights": "a safetensors file, but no mask: its metadata's 'format' is not 'maskhub'",
        tmp_path / "other": "a safetensors file, but no mask",
        tmp_path / "old": "a mask file of MaskHub 0.1, whose layout is not read any more",
        tmp_path / "absent": "no such file",
        tmp_path: "a folder",
    }.items():
        with pytest.raises(MissingError if reason == "no such file" else FormatError, match=f"{path.name}: {reason}"):
            maskhub.open(path)


def set_in(path: str, value: Any) -> Change:
    *keys, last = path.split("/")

    def change(manifest: dict[str, Any], parts: dict[str, Any]) -> None:
        inner = manifest
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "mask missing": (lambda m, p: p.pop("a.gaps"), "masks of 47 bytes in a payload of 20"),
    "mask extra": (lambda m, p: p.update(stray=b"1"), "masks of 47 bytes in a payload of 48"),
    "bytes of a mask": (set_in("masks/a.gaps/bytes", 1 << 40), r"masks of [0-9]+ bytes in a payload of 47"),
    "dense missing": (lambda m, p: p.pop("head"), "the dense tensor head is missing from the file"),
    "dense extra": (lambda m, p: p.update(tail=np.zeros(1)), "the dense tensor tail is missing from the manifest"),
    "dense as masks": (set_in("dense/maskhub.masks", "0" * 64), r"the dense tensor maskhub\.masks is missing"),
    "dense huge": (lambda m, p: p.update(head=np.zeros([1] * 9)), r"head has an impossible shape \[1, 1"),
    "dense empty": (lambda m, p: p.update(head=np.zeros([0, 1 << 40, 1 << 9])), "head has an impossible shape"),
    "not of the base": (lambda m, p: m["base"]["tensors"].pop("a.gaps"), r"the base binding does not list: a\.gaps"),
    "two for one parameter": (
        set_in("base/parameters", {"a.gaps": "head"}),
        "two tensors for one parameter of the task model: head",
    ),
    "kept too large": (set_in("masks/a.gaps/kept", 64), r"a\.gaps keeps 64 weights, more than its shape has"),
    "kept of a huge shape": (set_in("masks/a.gaps/shape", [1 << 62] * 8), r"a\.gaps has an impossible shape"),
    "kept of an empty huge shape": (set_in("masks/a.gaps/shape", [0, 1 << 62]), r"a\.gaps has an impossible shape"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_manifest_that_contradicts_the_payloads_is_refused_on_open(small: Path, tmp_path: Path, what: str) -> None:
    change, reason = CONTRADICTIONS[what]
    path = changed(small, change, tmp_path / "x.msk")
    with pytest.raises(FormatError, match=f"x.msk: .*{reason}"):
        MaskFile(path)


@pytest.mark.parametrize("key", ["id", "base", "task", "version"])
def test_metadata_that_say_something_else_are_refused(small: Path, tmp_path: Path, key: str) -> None:
    value = {"id": "0" * 64, "version": "1.1"}.get(key, "other")
    path = changed(small, lambda m, p: None, tmp_path / "x.msk", **{key: value})
    with pytest.raises(IntegrityError, match=rf"x.msk: the metadata's '{key}' is '{value}', and by the manifest "):
        MaskFile(path)


@pytest.mark.parametrize("name", ["maskhub.manifest", "maskhub.masks"])
@pytest.mark.parametrize("kind", ["missing", "I8", "two dimensions"])
def test_manifest_and_masks_are_bytes(small: Path, tmp_path: Path, name: str, kind: str) -> None:
    tensors = load_file(small)
    match kind:
        case "missing":
            del tensors[name]
        case "I8":
            tensors[name] = tensors[name].view(np.int8)
        case _:
            tensors[name] = tensors[name][None]
    save_file(tensors, tmp_path / "x.msk", metadata=MaskFile(small)._file.metadata)
    sealed(tmp_path / "x.msk")
    reason = "is missing" if kind == "missing" else r"is [UI]8 \[.*\], not U8 \[n\]"
    with pytest.raises(FormatError, match=f"x.msk: the payload {name} {reason}"):
        MaskFile(tmp_path / "x.msk")


FRAMES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda text: b"", "does not begin with a frame"),
    "no frame": (lambda text: text, "does not begin with a frame"),
    "bytes behind": (lambda text: zstandard.compress(text) + b"x", "extra|unused|after"),
    "another frame behind": (lambda text: zstandard.compress(text) * 2, "extra|unused|after"),
    "a skippable frame before": (lambda text: b"\x50\x2a\x4d\x18\0\0\0\0" + zstandard.compress(text), "begin with a"),
    "no size": (
        lambda text: zstandard.ZstdCompressor(write_content_size=False).compress(text),
        "does not say how large its content is",
    ),
    "cut": (lambda text: zstandard.compress(text)[:-1], "manifest cannot be read"),
    "gigabytes": (lambda text: zstandard.compress(text + b" " * MOST), "long, and 67,108,864 are the most"),
    "gigabytes that are not there": (
        lambda text: zstandard.FRAME_HEADER + b"\xe0" + (1 << 40).to_bytes(8, "little") + b"\1\0\0",
        "cannot hold the 1099511627776 it declares",
    ),
    "a large window": (
        lambda text: zstandard.FRAME_HEADER + b"\x80\x70" + (1).to_bytes(4, "little") + b"\x09\0\0x",
        "a window of 16777216 bytes",
    ),
    "no text": (lambda text: zstandard.compress(b"\xff" + text), "invalid start byte"),
    "nothing": (lambda text: zstandard.compress(b""), "the manifest is not valid"),
    "a key twice": (lambda text: zstandard.compress(text[:-1] + b',"version":"1.0"}'), "'version' stands twice"),
    "too deep": (
        lambda text: zstandard.compress(text[:-1] + b',"x":' + b"[" * 9999 + b"]" * 9999 + b"}"),
        "deep|recur",
    ),
}


@pytest.mark.parametrize("what", FRAMES)
def test_what_is_no_manifest_is_refused(small: Path, tmp_path: Path, what: str) -> None:
    change, reason = FRAMES[what]
    tensors = load_file(small)
    frame = change(MaskFile(small).manifest_text.encode())
    tensors["maskhub.manifest"] = np.frombuffer(frame, np.uint8)
    save_file(tensors, tmp_path / "x.msk", metadata=MaskFile(small)._file.metadata)
    with pytest.raises(IntegrityError, match=r"changed or damaged after it was written \(seal\)"):
        MaskFile(tmp_path / "x.msk")
    sealed(tmp_path / "x.msk")
    with pytest.raises(FormatError, match=f"x.msk: .*({reason})") as caught:
        MaskFile(tmp_path / "x.msk")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        ({"name": "magic"}, "unknown codec 'magic'; this version knows bits"),
        ({}, "unknown codec ''"),
        ({"name": None}, "unknown codec 'None'"),
        ({"name": "gaps"}, "codec 'gaps': Object missing required field `width`"),
        ({"name": "gaps", "width": 1 << 70}, "codec 'gaps': "),
    ],
)
def test_an_unknown_codec_is_refused_on_open(small: Path, tmp_path: Path, codec: object, reason: str) -> None:
    path = changed(small, set_in("masks/a.gaps/codec", codec), tmp_path / "x.msk")
    with pytest.raises(CodecError, match=f"x.msk: a.gaps: {reason}"):
        MaskFile(path)


LIES: dict[str, tuple[Change, str]] = {
    "digest": (set_in("masks/a.gaps/digest", "0" * 64), r"a\.gaps: the decoded mask does not match its digest"),
    "kept": (set_in("masks/c.bits/kept", 3), r"c\.bits: the decoded mask does not match its digest"),
    "kept of gaps": (set_in("masks/a.gaps/kept", 40), r"a\.gaps: pcodec payload: it does not hold 23 values"),
    "shape": (set_in("masks/a.gaps/shape", [7, 9]), r"a\.gaps: the decoded mask does not match its digest"),
    "other codec": (set_in("masks/a.gaps/codec", {"name": "zstd"}), r"a\.gaps: codec 'zstd': "),
    "codec of other size": (set_in("masks/a.gaps/codec", {"name": "bits"}), "where the shape needs 8"),
    "dense digest": (set_in("dense/head", "0" * 64), "head: the tensor does not match its digest"),
    "dense dtype": (lambda m, p: p.update(head=p["head"].view(np.int32)), "head: the tensor does not match its digest"),
    "dense shape": (lambda m, p: p.update(head=p["head"][None]), "head: the tensor does not match its digest"),
    "no bytes": (lambda m, p: repayload(m, p, "a.gaps", b""), r"a\.gaps: pcodec payload: "),
    "empty frame": (lambda m, p: repayload(m, p, "b.zstd", b""), r"b\.zstd: codec 'zstd': "),
    "frame and more": (lambda m, p: repayload(m, p, "b.zstd", p["b.zstd"] + b"x"), r"b\.zstd: codec 'zstd': "),
    "huge mask in bits": (set_in("masks/c.bits/shape", [1 << 26]), "where the shape needs 8388608"),
    "huge mask in a frame": (set_in("masks/b.zstd/shape", [1 << 26]), "the shape needs 8388608"),
}


@pytest.mark.parametrize("what", LIES)
def test_verify_finds_what_a_right_seal_hides(small: Path, tmp_path: Path, what: str) -> None:
    change, reason = LIES[what]
    path = changed(small, change, tmp_path / "x.msk")
    with pytest.raises((IntegrityError, CodecError), match=f"x.msk: .*{reason}"):
        MaskFile(path).verify()


def test_ones_in_the_padding_are_refused(small: Path, tmp_path: Path) -> None:
    def pad(manifest: dict[str, Any], parts: dict[str, Any]) -> None:
        payload = parts["c.bits"]
        repayload(manifest, parts, "c.bits", payload[:-1] + bytes([payload[-1] | 0x80]))
        entry = manifest["masks"]["c.bits"]
        entry |= {"kept": entry["kept"] + 1, "digest": digest.mask_digest((21,), parts["c.bits"])}

    path = changed(small, pad, tmp_path / "x.msk")
    with pytest.raises(FormatError, match=r"x.msk: c\.bits: the padding of the last byte must be 0"):
        _ = maskhub.open(path).masks["c.bits"].bits


def test_a_payload_that_claims_too_much_is_refused(small: Path, tmp_path: Path) -> None:
    def claim(manifest: dict[str, Any], parts: dict[str, Any]) -> None:
        repayload(manifest, parts, "a.gaps", b"")
        manifest["masks"]["a.gaps"] |= {"shape": [MAX_WEIGHTS], "kept": MAX_WEIGHTS}

    path = changed(small, claim, tmp_path / "x.msk")
    with pytest.raises(FormatError, match=r"x.msk: [0-9,]+ bytes that claim masks of 35,184,372,088,935 bytes"):
        _ = maskhub.open(path).masks["a.gaps"].bits


def test_a_broken_seal_is_found(small: Path, tmp_path: Path) -> None:
    manifest, payloads = read_parts(small)
    path = write_parts(tmp_path / "x.msk", manifest | {"metrics": {"accuracy": 1.0}}, payloads, seal=digest.NONE)
    with pytest.raises(IntegrityError, match=r"changed or damaged after it was written \(seal\)"):
        maskhub.open(path)
    sealed(path)
    assert maskhub.open(path).metrics == {"accuracy": 1.0}
    MaskFile(path).verify()


def test_unknown_keys_survive_reading_and_saving(small: Path, tmp_path: Path) -> None:
    def add(manifest: dict[str, Any], parts: dict[str, Any]) -> None:
        manifest |= {"version": "1.9", "new": {"a": [1, None]}}
        manifest["base"]["licence"] = "mit"
        manifest["masks"]["a.gaps"]["threshold"] = 0.5

    path = changed(small, add, tmp_path / "x.msk")
    MaskFile(path).verify()
    read = maskhub.open(path)
    save(read, tmp_path / "y.msk")
    MaskFile(tmp_path / "y.msk").verify()
    manifest, _ = read_parts(tmp_path / "y.msk")
    assert manifest["new"] == {"a": [1, None]}
    assert manifest["base"]["licence"] == "mit"
    assert manifest["masks"]["a.gaps"]["threshold"] == 0.5
    assert manifest["version"] == "1.0"
    # One mask less: what belonged to it goes, the rest stays.
    masks = {name: read.masks[name] for name in ("b.zstd", "c.bits")}
    save(dataclasses.replace(read, masks=masks), tmp_path / "z.msk")
    manifest, _ = read_parts(tmp_path / "z.msk")
    assert manifest["masks"].keys() == masks.keys()
    assert manifest["new"] == {"a": [1, None]}


def test_another_major_is_refused_by_its_version(small: Path, tmp_path: Path) -> None:
    path = changed(small, set_in("version", "2.0"), tmp_path / "x.msk")
    with pytest.raises(FormatError, match=r"x.msk: format version 2\.0, and this MaskHub reads 1\.x"):
        maskhub.open(path)


def test_masks_are_decoded_when_asked_for(small: Path, tmp_path: Path) -> None:
    def damage(manifest: dict[str, Any], parts: dict[str, Any]) -> None:
        parts["a.gaps"] = bytes(len(parts["a.gaps"]))

    maskset = maskhub.open(changed(small, damage, tmp_path / "x.msk"))
    assert list(maskset.masks) == ["a.gaps", "b.zstd", "c.bits"]
    assert "a.gaps" in maskset.masks
    assert "head" not in maskset.masks
    assert len(maskset.masks) == 3
    assert maskset["b.zstd"].kept == 800
    with pytest.raises(KeyError):
        maskset["head"]
    with pytest.raises(CodecError):
        _ = maskset["a.gaps"].bits


def test_a_mask_file_says_its_sizes(small: Path) -> None:
    file = MaskFile(small)
    assert file.file_size == os.path.getsize(small)
    assert file.maskset().stored.sizes["c.bits"] == 3
    assert json.loads(file.maskset().stored.manifest) == read_parts(small)[0]


def test_a_change_that_is_coded_twice_is_no_place_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice it changes no bit, so that the digest is right; the list of places lacks it."""
    initial, size = Initial(seed=7, cut=6000, low=0, high=1), 1000
    drawn = draw(7, "w", size).astype(int)
    mask = Mask.from_bool(drawn >= initial.cut)
    twice = int(np.argmin(drawn))  # which starts dropped
    distance = np.where(drawn >= initial.cut, drawn - initial.cut, initial.cut - 1 - drawn)
    rank = int(np.flatnonzero(np.argsort(distance, kind="stable") == twice)[0])
    payload = b"\x80\x80\x04\x01\x01" + b"".join(rice.compress(np.array([number])) for number in (rank, twice))
    monkeypatch.setattr(Drift, "encode", lambda mask, target: (Drift(), payload))
    base = BaseBinding.of(
        "b", {"w": digest.tensor_digest("F32", (size,), np.zeros(4 * size, np.uint8))}, {"w": "w"}, None
    )
    save(MaskSet(base, {"w": mask}, initial=initial), tmp_path / "twice.msk", codec="drift")
    draws = Draws()
    read_mask(tmp_path / "twice.msk", draws=draws)["w"].dropped()
    again = read_mask(tmp_path / "twice.msk", draws=draws)["w"]
    assert np.array_equal(again.bits, mask.bits)
    with pytest.raises(IntegrityError, match="w: the decoded mask does not match its digest"):
        again.dropped()
