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
from safetensors.numpy import save_file

import maskhub
from maskhub.container.reader import MAX_WEIGHTS, MaskFile
from maskhub.container.writer import save
from maskhub.errors import CodecError, FormatError, IntegrityError, MaskhubError, MissingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
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
    base = BaseBinding.of("b", {n: digest.checksum(n.encode()) * 4 for n in masks}, {n: f"m.{n}" for n in masks}, None)
    maskset = MaskSet(base, masks, {"head": RawTensor.from_numpy(np.arange(3, dtype=np.float32))})
    folder = tmp_path_factory.mktemp("small")
    parts = {}
    for name in masks:  # one file has one codec, or the smallest: put one together from three
        save(maskset, folder / name, codec=name[2:])
        manifest, payloads = read_parts(folder / name)
        parts[name] = manifest["masks"][name], payloads[name]
    manifest["masks"] = {name: entry for name, (entry, _) in parts.items()}
    payloads |= {name: payload for name, (_, payload) in parts.items()}
    return sealed(write_parts(folder / "small.msk", manifest, payloads))


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None], target: Path) -> Path:
    """A copy of a mask file with its manifest and payloads changed, and sealed again, with an id to match."""
    manifest, payloads = read_parts(path)
    before = manifest["id"]
    change(manifest, payloads)
    if manifest["id"] == before:
        masks, dense = ({n: e["digest"] for n, e in manifest[kind].items()} for kind in ("masks", "dense"))
        manifest["id"] = digest.mask_id(manifest["base"]["root"], masks, dense)
    return sealed(write_parts(target, manifest, payloads))


def repayload(manifest: dict[str, Any], payloads: dict[str, bytes], name: str, payload: bytes) -> None:
    """Another payload with its right checksum: what someone who wants to do harm would write."""
    payloads[name] = payload
    manifest["masks"][name]["checksum"] = digest.checksum(payload)


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


def test_a_change_of_any_payload_bit_after_opening_is_found(small: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(small, tmp_path))
    file = MaskFile(path)
    infos = file._file.tensors
    assert sum(info.stop - info.start for info in infos.values()) == file.file_size - len(file._file.header)
    for name, info in infos.items():
        for place in range(info.start, info.stop):
            for bit in range(8):
                maskset = file.maskset()
                with flipped(path, place, bit):
                    with pytest.raises(IntegrityError, match=f"the payload of {name} is damaged"):
                        maskset.dense[name].data if name == "head" else maskset.masks[name].bits
                    for other in {*maskset.masks} - {name}:
                        assert maskset.masks[other].bits.size


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
    for path, reason in {
        tmp_path / "empty": "not a safetensors file, or cut short",
        tmp_path / "text": "not a safetensors file, or cut short",
        tmp_path / "weights": "a safetensors file, but no mask: its metadata has no key 'maskhub'",
        tmp_path / "other": "a safetensors file, but no mask",
        tmp_path / "absent": "no such file",
        tmp_path: "a folder",
    }.items():
        with pytest.raises(MissingError if reason == "no such file" else FormatError, match=f"{path.name}: {reason}"):
            maskhub.open(path)


def set_in(path: str, value: Any) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    *keys, last = path.split("/")

    def change(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        inner = manifest
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], object], str]] = {
    "payload missing": (lambda m, p: p.pop("a.gaps"), r"payload a\.gaps is missing from the file"),
    "dense missing": (lambda m, p: p.pop("head"), "payload head is missing from the file"),
    "payload extra": (lambda m, p: p.update(stray=b"1"), "payload stray is missing from the manifest"),
    "masked and dense": (
        lambda m, p: m["dense"].update({"a.gaps": m["dense"]["head"]}),
        r"a\.gaps is both masked and dense",
    ),
    "not of the base": (lambda m, p: m["base"]["tensors"].pop("a.gaps"), r"the base binding does not list: a\.gaps"),
    "two for one parameter": (
        set_in("base/parameters", {"a.gaps": "head"}),
        "two tensors for one parameter of the task model: head",
    ),
    "kept too large": (set_in("masks/a.gaps/kept", 64), r"a\.gaps keeps 64 weights, more than its shape has"),
    "kept of a huge shape": (set_in("masks/a.gaps/shape", [1 << 62] * 8), r"a\.gaps has an impossible shape"),
    "kept of an empty huge shape": (set_in("masks/a.gaps/shape", [0, 1 << 62]), r"a\.gaps has an impossible shape"),
    "dense huge": (set_in("dense/head/shape", [1 << 62, 1 << 62]), "head has an impossible shape"),
    "dense size": (set_in("dense/head/shape", [4]), "the payload of head has another size than its dtype and shape"),
    "dense dtype": (set_in("dense/head/dtype", "F64"), "the payload of head has another size"),
    "dense dtype unknown": (set_in("dense/head/dtype", "F33"), "head has an unknown dtype 'F33'"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_manifest_that_contradicts_the_payloads_is_refused_on_open(small: Path, tmp_path: Path, what: str) -> None:
    change, reason = CONTRADICTIONS[what]
    path = changed(small, change, tmp_path / "x.msk")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=f"x.msk: .*{reason}"):
        MaskFile(path)


def test_payloads_of_another_dtype_are_refused(small: Path, tmp_path: Path) -> None:
    manifest, payloads = read_parts(small)
    tensors = {name: np.frombuffer(payload, np.int8) for name, payload in payloads.items()}
    save_file(tensors, tmp_path / "x.msk", metadata={"maskhub": json.dumps(manifest)})
    with pytest.raises(FormatError, match=r"payload \S+ has dtype I8, not U8"):
        MaskFile(tmp_path / "x.msk")


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


LIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], object], str]] = {
    "digest": (set_in("masks/a.gaps/digest", "0" * 64), r"a\.gaps: the decoded mask does not match its digest"),
    "checksum": (set_in("masks/a.gaps/checksum", "0" * 16), r"the payload of a\.gaps is damaged"),
    "kept": (set_in("masks/c.bits/kept", 3), r"c\.bits: the decoded mask does not match its digest"),
    "kept of gaps": (set_in("masks/a.gaps/kept", 40), r"a\.gaps: pcodec payload: it does not hold 23 values"),
    "shape": (set_in("masks/a.gaps/shape", [7, 9]), r"a\.gaps: the decoded mask does not match its digest"),
    "other codec": (set_in("masks/a.gaps/codec", {"name": "zstd"}), r"a\.gaps: codec 'zstd': "),
    "codec of other size": (set_in("masks/a.gaps/codec", {"name": "bits"}), "where the shape needs 8"),
    "dense digest": (set_in("dense/head/digest", "0" * 64), "head: the tensor does not match its digest"),
    "dense dtype": (set_in("dense/head/dtype", "I32"), "head: the tensor does not match its digest"),
    "root": (set_in("base/root", "0" * 64), r"base\.root does not match base\.tensors"),
    "base tensor": (set_in("base/tensors/a.gaps", "0" * 64), r"base\.root does not match base\.tensors"),
    "id": (set_in("id", "0" * 64), "id does not match the masks and dense tensors"),
    "empty payload": (lambda m, p: repayload(m, p, "a.gaps", b""), r"a\.gaps: pcodec payload: "),
    "empty frame": (lambda m, p: repayload(m, p, "b.zstd", b""), r"b\.zstd: codec 'zstd': "),
    "frame and more": (lambda m, p: repayload(m, p, "b.zstd", p["b.zstd"] + b"x"), r"b\.zstd: codec 'zstd': "),
    "huge mask in bits": (set_in("masks/c.bits/shape", [1 << 26]), "where the shape needs 8388608"),
    "huge mask in a frame": (set_in("masks/b.zstd/shape", [1 << 26]), "the shape needs 8388608"),
}


@pytest.mark.parametrize("what", LIES)
def test_verify_finds_what_a_right_seal_hides(small: Path, tmp_path: Path, what: str) -> None:
    change, reason = LIES[what]
    path = changed(small, change, tmp_path / "x.msk")  # type: ignore[arg-type]
    with pytest.raises((IntegrityError, CodecError), match=f"x.msk: .*{reason}"):
        MaskFile(path).verify()


def test_ones_in_the_padding_are_refused(small: Path, tmp_path: Path) -> None:
    def pad(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        payload = payloads["c.bits"]
        repayload(manifest, payloads, "c.bits", payload[:-1] + bytes([payload[-1] | 0x80]))
        entry = manifest["masks"]["c.bits"]
        entry |= {"kept": entry["kept"] + 1, "digest": digest.mask_digest((21,), payloads["c.bits"])}

    path = changed(small, pad, tmp_path / "x.msk")
    with pytest.raises(FormatError, match=r"x.msk: c\.bits: the padding of the last byte must be 0"):
        _ = maskhub.open(path).masks["c.bits"].bits


def test_a_payload_that_claims_too_much_is_refused(small: Path, tmp_path: Path) -> None:
    def claim(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        repayload(manifest, payloads, "a.gaps", b"")
        manifest["masks"]["a.gaps"] |= {"shape": [MAX_WEIGHTS], "kept": MAX_WEIGHTS}

    path = changed(small, claim, tmp_path / "x.msk")
    with pytest.raises(FormatError, match=r"x.msk: [0-9,]+ bytes that claim masks of 35,184,372,088,935 bytes"):
        _ = maskhub.open(path).masks["a.gaps"].bits


def test_a_broken_seal_is_found(small: Path, tmp_path: Path) -> None:
    manifest, payloads = read_parts(small)
    path = write_parts(tmp_path / "x.msk", manifest | {"metrics": {"accuracy": 1.0}}, payloads)
    with pytest.raises(IntegrityError, match=r"changed or damaged after it was written \(seal\)"):
        maskhub.open(path)
    sealed(path)
    assert maskhub.open(path).metrics == {"accuracy": 1.0}
    MaskFile(path).verify()


def test_unknown_keys_survive_reading_and_saving(small: Path, tmp_path: Path) -> None:
    def add(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        manifest |= {"version": "1.9", "new": {"a": [1, None]}}
        manifest["base"]["licence"] = "mit"
        manifest["masks"]["a.gaps"]["threshold"] = 0.5
        manifest["dense"]["head"]["trained"] = True

    path = changed(small, add, tmp_path / "x.msk")
    MaskFile(path).verify()
    read = maskhub.open(path)
    save(read, tmp_path / "y.msk")
    MaskFile(tmp_path / "y.msk").verify()
    manifest, _ = read_parts(tmp_path / "y.msk")
    assert manifest["new"] == {"a": [1, None]}
    assert manifest["base"]["licence"] == "mit"
    assert manifest["masks"]["a.gaps"]["threshold"] == 0.5
    assert manifest["dense"]["head"]["trained"] is True
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
    def damage(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        payloads["a.gaps"] = bytes(len(payloads["a.gaps"]))

    maskset = maskhub.open(changed(small, damage, tmp_path / "x.msk"))
    assert list(maskset.masks) == ["a.gaps", "b.zstd", "c.bits"]
    assert "a.gaps" in maskset.masks
    assert "head" not in maskset.masks
    assert len(maskset.masks) == 3
    assert maskset["b.zstd"].kept == 800
    with pytest.raises(KeyError):
        maskset["head"]
    with pytest.raises(IntegrityError):
        _ = maskset["a.gaps"].bits


def test_a_mask_file_says_its_sizes(small: Path) -> None:
    file = MaskFile(small)
    assert file.file_size == os.path.getsize(small)
    assert file.maskset().stored.sizes["head"] == 12
    assert file.maskset().stored.sizes["c.bits"] == 3
