"""A second reader of ``.msk`` files, written from ``format.md`` and not from MaskHub's code, which it does not use.

It decodes and checks a whole file at once, and is for testing and for reading along, not for speed::

    python spec/reader.py FILE [--parent FILE ...]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pcodec.standalone
import safetensors
import zstandard
from blake3 import blake3
from numpy.typing import NDArray

Bits = NDArray[np.uint8]  # packed, or one byte a weight where it says flags
CHAIN = 64  # masks that are coded against one another
WEIGHTS = 1 << 32  # in one tensor: this reader's own limit, as it takes a byte for each
ITEM_SIZE = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"], 1),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 2),
    **dict.fromkeys(["I32", "U32", "F32"], 4),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 8),
}


class RefusedError(Exception):
    """The file is no mask, is damaged, or cannot be decoded. The message is one line."""


def need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RefusedError(otherwise)


# Digests


def digest(head: str, data: bytes | memoryview = b"") -> str:
    return blake3(head.encode() + data).hexdigest()


def tensor_digest(dtype: str, shape: Sequence[int], data: bytes) -> str:
    return digest(f"tensor {dtype} {','.join(map(str, shape))}\n", data)


def mask_digest(shape: Sequence[int], bits: bytes) -> str:
    return digest(f"mask {','.join(map(str, shape))}\n", bits)


def lines(kind: str, digests: dict[str, str]) -> str:
    return "".join(f"{kind} {digests[name]} {len(name.encode())} {name}\n" for name in sorted(digests))


# The manifest

Check = Callable[[Any], bool]


def is_integer(value: Any, low: int = 0, high: int = 1 << 62) -> bool:
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^\x00-\x1f\x7f]{1,1024}", value) is not None


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_checksum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in ITEM_SIZE


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_shape(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) <= 8 and all(map(is_integer, value))
    return whole and math.prod(max(d, 1) for d in value) <= 1 << 48


def either_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def each(key: Check, value: Check) -> Check:
    return lambda found: isinstance(found, dict) and all(key(k) and value(v) for k, v in found.items())


def fields(value: Any, where: str, required: dict[str, Check], optional: dict[str, Check] | None = None) -> None:
    need(isinstance(value, dict), f"{where} is no object")
    for key, check in required.items():
        need(key in value, f"{where}: the field {key} is missing")
        need(check(value[key]), f"{where}: the field {key} is not valid")
    for key, check in (optional or {}).items():
        need(key not in value or check(value[key]), f"{where}: the field {key} is not valid")


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len(dict(pairs)) == len(pairs), "an object holds a key twice")
    return dict(pairs)


def no_constant(name: str) -> NoReturn:
    raise RefusedError(f"{name} is no JSON")


def finite(digits: str) -> float:
    need(math.isfinite(float(digits)), f"the number {digits} is out of range")
    return float(digits)


def parse_json(text: str | bytes, what: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=no_key_twice, parse_float=finite, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{what} is no JSON: {error}") from error
    return value


def check_depth(value: Any, around: int = 0) -> None:
    need(around <= 63, "the manifest is nested too deep")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(inner, around + 1)


def parameter(base: dict[str, Any], name: str) -> str:
    """The task model's name for a base tensor."""
    return str(base.get("parameters", {}).get(name, base.get("parameter_prefix", "") + name))


def check_manifest(manifest: Any) -> None:
    need(is_object(manifest) and manifest.get("format") == "maskhub", "the manifest's format is not maskhub")
    version = manifest.get("version")
    need(is_text(version) and bool(re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", version)), "no version")
    need(version.startswith("1."), f"version {version}, and this reader knows 1.x")
    check_depth(manifest)
    fields(
        manifest,
        "manifest",
        {"id": is_digest, "seal": is_digest, "base": is_object, "masks": each(is_name, is_object)},
        {
            "dense": each(is_name, is_object),
            "task": either_null(is_object),
            "initial": either_null(is_object),
            "parent": either_null(is_digest),
            "metrics": each(is_text, is_number),
            "lineage": is_object,
        },
    )
    base = manifest["base"]
    fields(
        base,
        "base",
        {"name": is_text, "root": is_digest, "tensors": each(is_name, is_digest)},
        {
            "parameter_prefix": lambda value: value == "" or is_name(value),
            "parameters": each(is_name, is_name),
            "hub": either_null(is_object),
        },
    )
    if base.get("hub") is not None:
        fields(base["hub"], "base.hub", {"id": is_text, "commit": is_text}, {"files": each(is_text, is_digest)})
    for name, entry in manifest["masks"].items():
        fields(
            entry,
            name,
            {"shape": is_shape, "kept": is_integer, "codec": is_object, "digest": is_digest, "checksum": is_checksum},
        )
        need(entry["kept"] <= math.prod(entry["shape"]), f"{name}: more kept than there are weights")
        codec = entry["codec"]
        known = is_text(codec.get("name")) and codec["name"] in PARAMETERS
        need(known, f"{name}: unknown codec {codec.get('name')!r}")
        fields(codec, f"{name}: codec", PARAMETERS[codec["name"]])
        need(codec["name"] != "nm" or codec["n"] < codec["m"], f"{name}: nm: n is not below m")
        need(name in base["tensors"], f"{name} is not in base.tensors")
    dense = manifest.get("dense", {})
    for name, entry in dense.items():
        fields(
            entry,
            name,
            {"dtype": is_dtype, "shape": is_shape, "digest": is_digest, "checksum": is_checksum},
        )
    if manifest.get("task") is not None:
        fields(
            manifest["task"],
            "task",
            {"type": is_text, "architecture": is_text},
            {
                "config": is_object,
                "tokenizer": either_null(is_text),
                "max_length": either_null(lambda value: type(value) is int),
            },
        )
    if manifest.get("initial") is not None:
        fields(
            manifest["initial"],
            "initial",
            {
                "seed": lambda value: is_integer(value, 0, (1 << 32) - 1),
                "cut": lambda value: is_integer(value, 0, 1 << 16),
                "low": is_number,
                "high": is_number,
            },
            {"generator": lambda value: value == "philox4x64-10"},
        )
    filled = [parameter(base, name) for name in base["tensors"]] + list(dense)
    need(len(set(filled)) == len(filled), "two tensors fill one parameter")
    need(digest("base\n" + lines("tensor", base["tensors"])) == base["root"], "base.root does not follow")
    masks = lines("mask", {name: entry["digest"] for name, entry in manifest["masks"].items()})
    whole = lines("dense", {name: entry["digest"] for name, entry in dense.items()})
    need(digest(f"maskhub {base['root']}\n" + masks + whole) == manifest["id"], "the id does not follow")


# Codecs


@dataclass(frozen=True)
class Target:
    """What decoding a mask may need besides its payload. ``parent`` gives the packed bits and the shape there."""

    name: str
    shape: list[int]
    kept: int
    initial: dict[str, Any] | None
    parent: Callable[[], tuple[list[int], bytes]]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def pack(flags: NDArray[Any]) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()


def integers(payload: bytes, count: int, width: int) -> NDArray[np.int64]:
    if count == 0:
        need(not payload, "a payload for no integers")
        return np.empty(0, np.int64)
    values = np.empty(count, f"u{width // 8}")
    try:
        progress = pcodec.standalone.simple_decompress_into(payload, values)
    except (RuntimeError, TypeError) as error:
        raise RefusedError(f"pcodec: {error}") from error
    need(progress.finished and progress.n_processed == count, f"pcodec: there are not {count} integers")
    return values.astype(np.int64)


def positions(payload: bytes, count: int, width: int, end: int) -> NDArray[np.int64]:
    found = np.cumsum(integers(payload, count, width) + 1) - 1
    # No step is above 2**32, so a sum that wrapped around was negative at some place.
    need(not count or bool(found.min() >= 0 and found.max() < end), "a position past the end")
    return found


def decode_bits(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    need(len(payload) == (target.size + 7) // 8, "bits: wrong size")
    return payload


def decode_zstd(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    try:
        size = zstandard.frame_content_size(payload)
        need(size == (target.size + 7) // 8, f"zstd: the frame states the size {size}")
        stream = zstandard.ZstdDecompressor().decompressobj()
        bits = bytes(stream.decompress(payload))
    except zstandard.ZstdError as error:
        raise RefusedError(f"zstd: {error}") from error
    need(stream.eof and not stream.unused_data and len(bits) == size, "zstd: more or less than one frame")
    return bits


def decode_gaps(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    coded = int(target.kept <= target.size // 2)
    count = target.kept if coded else target.size - target.kept
    flags = np.full(target.size, 1 - coded, np.uint8)
    flags[positions(payload, count, codec["width"], target.size)] = coded
    return pack(flags)


def high(factor: int, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The upper 64 bits of the products of 64-bit numbers, from those of their halves."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    upper, lower = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    middle = upper * (words & mask) + (lower * (words & mask) >> half)
    other = lower * (words >> half) + (middle & mask)
    product: NDArray[np.uint64] = upper * (words >> half) + (middle >> half) + (other >> half)
    return product


def draws(seed: int, name: str, start: int, stop: int) -> NDArray[np.uint16]:
    """The draws of weights ``start`` (a multiple of 16) to ``stop``, by Philox4x64-10."""
    key = blake3(f"scores {seed} {name}".encode()).digest()
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    c0 = np.arange(start // 16 + 1, -(-stop // 16) + 1, dtype=np.uint64)
    c1, c2, c3 = np.zeros_like(c0), np.zeros_like(c0), np.zeros_like(c0)
    p, q = 0xD2E7470EE14C6C93, 0xCA5A826395121157
    for _ in range(10):
        c0, c1, c2, c3 = (
            high(q, c2) ^ c1 ^ np.uint64(k0),
            np.uint64(q) * c2,
            high(p, c0) ^ c3 ^ np.uint64(k1),
            np.uint64(p) * c0,
        )
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % (1 << 64), (k1 + 0xBB67AE8584CAA73B) % (1 << 64)
    words = np.stack([c0, c1, c2, c3], axis=1).reshape(-1, 1)
    parts = words >> np.array([0, 16, 32, 48], np.uint64) & np.uint64(0xFFFF)
    return parts.reshape(-1)[: stop - start].astype(np.uint16)


def decode_drift(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    need(target.initial is not None, "drift: the manifest has no initial mask")
    assert target.initial is not None
    need(target.size < 1 << 31, "drift: 2^31 weights or more")
    need(len(payload) >= 16, "drift: no head")
    width, window, near, far = np.frombuffer(payload, "<u4", 4).tolist()
    need(width in (16, 32) and window <= 1 << 16 and near + far <= target.size, "drift: a head that cannot be")
    need(len(payload) >= 16 + 4 * far, "drift: cut short")
    beyond = np.frombuffer(payload, "<u4", far, 16).astype(np.int64)
    need(bool((np.diff(beyond, prepend=-1) > 0).all()), "drift: far positions do not rise")
    need(bool((beyond < target.size).all()), "drift: a far position past the end")
    ranks = positions(payload[16 + 4 * far :], near, width, target.size)
    flags = np.empty(target.size, np.uint8)
    cut, before = target.initial["cut"], 0
    for start in range(0, target.size, 1 << 20):
        block = draws(target.initial["seed"], target.name, start, min(start + (1 << 20), target.size)).astype(np.int64)
        keep = block >= cut
        distance = np.where(keep, block - cut, cut - 1 - block)
        order = np.lexsort((np.arange(block.size), distance))  # by distance, then by index
        order = order[: np.count_nonzero(distance < window)]
        inside = ranks[(ranks >= before) & (ranks < before + order.size)] - before
        keep[order[inside]] ^= True
        flags[start : start + block.size] = keep
        before += order.size
    need(not near or bool(ranks[-1] < before), "drift: a rank that no weight has")
    flags[beyond] ^= 1
    return pack(flags)


def decode_nm(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    n, m = codec["n"], codec["m"]
    need(bool(target.shape) and target.shape[-1] % m == 0, f"nm: {m} does not divide the last dimension")
    symbols = integers(payload, -(-target.size // 16), 16)
    words = np.array(
        [w for w in range(1 << 16) if all((w >> s & ((1 << m) - 1)).bit_count() == n for s in range(0, 16, m))], "<u2"
    )
    need(bool((symbols < words.size).all()), "nm: a symbol that no word has")
    flags = np.unpackbits(words[symbols].view(np.uint8), count=target.size, bitorder="little")
    return pack(flags)


def decode_delta(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    need(codec["count"] <= target.size, "delta: more differences than weights")
    shape, bits = target.parent()
    need(shape == target.shape, f"delta: the parent's mask has the shape {shape}")
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=target.size, bitorder="little")
    flags[positions(payload, codec["count"], codec["width"], target.size)] ^= 1
    return pack(flags)


DECODE: dict[str, Callable[[bytes, dict[str, Any], Target], bytes]] = {
    "bits": decode_bits,
    "zstd": decode_zstd,
    "gaps": decode_gaps,
    "drift": decode_drift,
    "nm": decode_nm,
    "delta": decode_delta,
}


def is_width(value: Any) -> bool:
    return type(value) is int and value in (16, 32)


PARAMETERS: dict[str, dict[str, Check]] = {
    "bits": {},
    "zstd": {},
    "gaps": {"width": is_width},
    "drift": {},
    "nm": {
        "n": lambda value: is_integer(value, 1, 15),
        "m": lambda value: type(value) is int and value in (2, 4, 8, 16),
    },
    "delta": {"count": is_integer, "width": is_width},
}


# The file


class File:
    """A ``.msk`` file, read whole. The manifest is checked, and what is asked for by ``mask`` and ``dense`` then."""

    def __init__(self, path: str | Path, parents: Sequence[str | Path] = (), above: int = 0) -> None:
        self.content = Path(path).read_bytes()
        self.parents = list(parents)
        self.above = above  # masks in a chain that are coded against this one
        try:
            tensors = dict(safetensors.deserialize(self.content))  # type: ignore[no-untyped-call]
        except safetensors.SafetensorError as error:
            raise RefusedError(f"no safetensors file: {error}") from error
        self.head = self.content[: 8 + int.from_bytes(self.content[:8], "little")]
        metadata = parse_json(self.head[8:], "the header").get("__metadata__") or {}
        need("maskhub" in metadata, "no mask: the key maskhub is missing")
        self.manifest = parse_json(metadata["maskhub"], "the manifest")
        check_manifest(self.manifest)
        masks, dense = self.manifest["masks"], self.manifest.get("dense", {})
        need(not set(masks) & set(dense), "a name is both masked and dense")
        need(set(tensors) == set(masks) | set(dense), "payloads and entries are not the same names")
        need(all(t["dtype"] == "U8" and len(t["shape"]) == 1 for t in tensors.values()), "a payload is not U8 and flat")
        self.payloads = {name: bytes(tensor["data"]) for name, tensor in tensors.items()}
        for name, entry in dense.items():
            size = ITEM_SIZE[entry["dtype"]] * math.prod(entry["shape"])
            need(len(self.payloads[name]) == size, f"{name}: the payload has not the size of dtype and shape")

    def check_seal(self) -> None:
        seal = self.manifest["seal"].encode()
        place = self.head.find(seal)
        blank = self.content[:place] + b"0" * 64 + self.content[place + 64 :]
        need(place >= 0 and blake3(blank).hexdigest().encode() == seal, "the seal does not match the file")

    def payload(self, name: str, checksum: str) -> bytes:
        need(blake3(self.payloads[name]).hexdigest()[:16] == checksum, f"{name}: the payload is damaged (checksum)")
        return self.payloads[name]

    def mask(self, name: str) -> bytes:
        """The packed bits."""
        entry = self.manifest["masks"][name]
        target = Target(
            name, entry["shape"], entry["kept"], self.manifest.get("initial"), lambda: self.parent_mask(name)
        )
        need(target.size <= WEIGHTS, f"{name}: {target.size} weights, and this reader takes {WEIGHTS}")
        payload = self.payload(name, entry["checksum"])
        try:
            bits = DECODE[entry["codec"]["name"]](payload, entry["codec"], target)
        except (RefusedError, MemoryError) as error:
            raise RefusedError(f"{name}: {error or 'no memory'}") from error
        need(mask_digest(entry["shape"], bits) == entry["digest"], f"{name}: the bits do not match their digest")
        need(int.from_bytes(bits, "little").bit_count() == entry["kept"], f"{name}: not as many ones as kept")
        need(not target.size % 8 or bits[-1] >> target.size % 8 == 0, f"{name}: the padding is not 0")
        return bits

    def dense(self, name: str) -> bytes:
        """The elements, little-endian."""
        entry = self.manifest["dense"][name]
        data = self.payload(name, entry["checksum"])
        need(tensor_digest(entry["dtype"], entry["shape"], data) == entry["digest"], f"{name}: not its digest")
        return data

    def parent_mask(self, name: str) -> tuple[list[int], bytes]:
        """Shape and packed bits of the parent's mask. Its own parent is looked for among the other files."""
        wanted = self.manifest.get("parent")
        need(wanted is not None, "delta: the manifest names no parent")
        need(self.above < CHAIN, f"delta: a chain of more than {CHAIN}")
        for path in self.parents:
            parent = File(path, [other for other in self.parents if other != path], self.above + 1)
            if parent.manifest["id"] == wanted:
                need(name in parent.manifest["masks"], "delta: the parent has no such mask")
                return parent.manifest["masks"][name]["shape"], parent.mask(name)
        raise RefusedError(f"delta: the parent {wanted} is not at hand")


def describe(file: File) -> dict[str, Any]:
    """Check all of a file, and say what it holds."""
    file.check_seal()
    manifest = file.manifest
    masks = {
        name: {
            "shape": entry["shape"],
            "kept": int.from_bytes(file.mask(name), "little").bit_count(),
            "codec": entry["codec"]["name"],
            "digest": entry["digest"],
        }
        for name, entry in manifest["masks"].items()
    }
    dense = {}
    for name, entry in manifest.get("dense", {}).items():
        file.dense(name)
        dense[name] = {key: entry[key] for key in ("dtype", "shape", "digest")}
    base = {"name": manifest["base"]["name"], "root": manifest["base"]["root"]}
    head = {"version": manifest["version"], "id": manifest["id"], "parent": manifest.get("parent")}
    return {**head, "base": base, "masks": masks, "dense": dense}


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode and check a .msk file, and print what it holds as JSON.")
    parser.add_argument("file")
    parser.add_argument("--parent", action="append", default=[], help="a file that masks may be coded against")
    arguments = parser.parse_args()
    try:
        print(json.dumps(describe(File(arguments.file, arguments.parent)), indent=2))
    except (RefusedError, OSError, MemoryError) as error:
        print(f"{arguments.file!a}: {str(error) or 'no memory'!a}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
