"""A second reader of ``.msk`` files, written from ``format.md`` and not from MaskHub's code, which it does not use.

It decodes and checks a whole file at once, and is for testing and for reading along, not for speed::

    python spec/reader.py FILE [--parent FILE ...]

A file that it refuses breaks a rule, which has a name in ``format.md`` ("Rules"). With ``--skip RULE`` it goes on as a
reader would that does not check this rule. So a file can be shown to break one rule and no other.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pcodec.wrapped
import rfc8785
import safetensors
import zstandard
from blake3 import blake3
from numpy.typing import NDArray

Bits = NDArray[np.uint8]  # packed, or one byte a weight where it says flags
CHAIN = 64  # masks that are coded against one another
WINDOW = 1 << 23  # bytes that a Zstandard decoder has to look back
MANIFEST, MASKS = "maskhub.manifest", "maskhub.masks"  # the payloads that are no dense tensors
SKIPPED: set[str] = set()  # rules that are not checked
ITEM_SIZE = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"], 1),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 2),
    **dict.fromkeys(["I32", "U32", "F32"], 4),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 8),
}


class RefusedError(Exception):
    """The file is no mask, is damaged, or cannot be decoded: it breaks ``rule``. The message is one line."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def need(holds: bool, rule: str, otherwise: str) -> None:
    if not holds and rule not in SKIPPED:
        raise RefusedError(rule, otherwise)


@contextlib.contextmanager
def library(rule: str, *errors: type[Exception]) -> Iterator[None]:
    """What a library finds in bytes that it cannot read, as a broken rule."""
    try:
        yield
    except errors as error:
        raise RefusedError(rule, f"{rule}: {error}") from error


# Digests


def digest(head: str, data: bytes | memoryview = b"") -> str:
    return blake3(head.encode() + data).hexdigest()


def tensor_digest(dtype: str, shape: Sequence[int], data: bytes) -> str:
    return digest(f"tensor {dtype} {','.join(map(str, shape))}\n", data)


def mask_digest(shape: Sequence[int], bits: bytes) -> str:
    return digest(f"mask {','.join(map(str, shape))}\n", bits)


def lines(kind: str, digests: dict[str, str]) -> str:
    return "".join(f"{kind} {digests[name]} {len(name.encode())} {name}\n" for name in sorted(digests))


def base_root(digests: dict[str, str]) -> str:
    """``base.root``, from the digests of all tensors in ``base.tensors``."""
    return digest("base\n" + lines("tensor", digests))


def plain(value: Any) -> Any:
    """JSON with the integers that RFC 8785's library refuses as the floats that RFC 8785 takes them for."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return float(value) if type(value) is int and abs(value) >= 1 << 53 else value


def content_id(manifest: dict[str, Any]) -> str:
    base, task = manifest["base"], manifest.get("task")
    text = f"maskhub {base['root']}\n"
    for name in sorted(base["tensors"]):
        own = parameter(base, name)
        text += f"parameter {len(name.encode())} {name} {len(own.encode())} {own}\n"
    text += lines("mask", {name: entry["digest"] for name, entry in manifest["masks"].items()})
    text += lines("dense", dense_entries(manifest)) + "task\n"
    if task is None:
        return digest(text)
    keys = ("type", "architecture", "config", "tokenizer", "max_length")
    kept = {key: task[key] for key in keys if task.get(key) is not None and task[key] != {}}
    with library("number.range", rfc8785.CanonicalizationError, OverflowError):
        return digest(text, rfc8785.dumps(plain(kept)))


# The manifest

Check = Callable[[Any], bool]


def is_integer(low: int = 0, high: float = math.inf) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_shape(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) <= 8 and all(map(is_integer(), value))
    return whole and math.prod(max(d, 1) for d in value) <= 1 << 48


def is_one_of(*values: Any) -> Check:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def each(check: Check) -> Check:
    return lambda found: isinstance(found, dict) and all(map(check, found.values()))


is_name = matches(r"[^\x00-\x1f\x7f]{1,1024}")
is_digest = matches("[0-9a-f]{64}")
is_hint = matches("[0-9a-f]{16}")
is_version = matches(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")

# The manifest's table, row by row: the rule of a field has the field's name.
FIELDS: dict[str, tuple[bool, Check]] = {
    "format": (True, is_one_of("maskhub")),
    "version": (True, is_version),
    "base": (True, is_object),
    "base.name": (True, is_text),
    "base.root": (True, is_digest),
    "base.tensors": (True, each(is_hint)),
    "base.parameter_prefix": (False, lambda value: value == "" or is_name(value)),
    "base.parameters": (False, each(is_name)),
    "base.hub": (False, or_null(is_object)),
    "base.hub.id": (True, is_text),
    "base.hub.commit": (True, is_text),
    "base.hub.files": (False, each(is_digest)),
    "masks": (True, each(is_object)),
    "masks.*.shape": (True, is_shape),
    "masks.*.kept": (True, is_integer()),
    "masks.*.codec": (True, is_object),
    "masks.*.bytes": (True, is_integer()),
    "masks.*.digest": (True, is_digest),
    "dense": (False, each(is_digest)),
    "task": (False, or_null(is_object)),
    "task.type": (True, is_text),
    "task.architecture": (True, is_text),
    "task.config": (False, is_object),
    "task.tokenizer": (False, or_null(is_text)),
    "task.max_length": (False, or_null(lambda value: type(value) is int)),
    "initial": (False, or_null(is_object)),
    "initial.seed": (True, is_integer(0, (1 << 32) - 1)),
    "initial.cut": (True, is_integer(0, 1 << 16)),
    "initial.low": (True, is_number),
    "initial.high": (True, is_number),
    "initial.generator": (False, is_one_of("philox4x64-10")),
    "parent": (False, or_null(is_digest)),
    "metrics": (False, each(is_number)),
    "lineage": (False, is_object),
}
NAMED = ("base.tensors", "base.parameters", "masks", "dense")  # objects whose keys are names
INTEGERS = ("shape", "kept", "bytes", "max_length", "seed", "cut", "width", "count", "n", "m")
PARAMETERS: dict[str, dict[str, Check]] = {
    "bits": {},
    "zstd": {},
    "gaps": {"width": is_one_of(16, 32)},
    "drift": {},
    "nm": {"n": is_integer(1), "m": is_one_of(2, 4, 8, 16)},
    "delta": {"count": is_integer(), "width": is_one_of(16, 32)},
}


def places(value: Any, keys: Sequence[str]) -> list[Any]:
    """What stands in ``value`` at the path of ``keys``; ``*`` are all of an object."""
    if not keys:
        return [value]
    if not isinstance(value, dict):
        return []
    found = value.values() if keys[0] == "*" else [value[keys[0]]] if keys[0] in value else []
    return [place for inner in found for place in places(inner, keys[1:])]


def check_field(around: dict[str, Any], key: str, rule: str, required: bool, check: Check) -> None:
    if key not in around:
        need(not required, rule if rule in ("format", "version") else "required", f"the field {rule} is missing")
        return
    value = around[key]
    whole = not any(isinstance(number, float) for number in (value if isinstance(value, list) else [value]))
    need(whole or key not in INTEGERS, "integer", f"the field {rule} is not written as an integer")
    need(check(value), rule, f"the field {rule} is not valid")


# JSON


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len(dict(pairs)) == len(pairs), "key.twice", "an object holds a key twice")
    return dict(pairs)


def constant(name: str) -> float:
    need(False, "number.none", f"{name} is no JSON")
    return float(name.replace("Infinity", "inf"))


def integer(digits: str) -> int:
    finite(digits)
    return int(digits)


def finite(digits: str) -> float:
    value = float(digits)
    need(math.isfinite(value), "number.range", f"the number {digits[:20]} is out of range")
    return int(value) if "integer" in SKIPPED and value.is_integer() else value


def parse_json(text: bytes) -> Any:
    with library("json", ValueError), library("nesting", RecursionError):
        value = json.loads(
            text.decode(),
            object_pairs_hook=no_key_twice,
            parse_float=finite,
            parse_int=integer,
            parse_constant=constant,
        )
        whole = json.dumps(value, ensure_ascii=False)
    need(not re.search("[\ud800-\udfff]", whole), "surrogate", "a string holds half of a surrogate pair")
    return value


def check_depth(value: Any, around: int = 0) -> None:
    need(around <= 63, "nesting", "the manifest is nested too deep")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(inner, around + 1)


def parameter(base: dict[str, Any], name: str) -> str:
    """The task model's name for a base tensor."""
    return str((base.get("parameters") or {}).get(name, f"{base.get('parameter_prefix') or ''}{name}"))


def dense_entries(manifest: dict[str, Any]) -> dict[str, Any]:
    found = manifest.get("dense")
    return found if isinstance(found, dict) else {}


def check_version(version: Any) -> None:
    need(is_version(version), "version", "the field version is no version")
    major = re.match("[0-9]+", str(version))
    need(major is None or int(major[0]) == 1, "version.major", f"version {version}, and this reader knows 1.x")


def check_fields(manifest: Any) -> None:
    need(is_object(manifest), "json", "the manifest is no object")
    check_depth(manifest)
    for rule, (required, check) in FIELDS.items():
        *outer, key = rule.split(".")
        for around in places(manifest, outer):
            if isinstance(around, dict):
                check_field(around, key, rule, required, check)
    for path in NAMED:
        for named in places(manifest, path.split(".")):
            for name in named if isinstance(named, dict) else ():
                need(is_name(name), "name", f"{path}: {name[:100]!r} is no name")


def check_content(manifest: dict[str, Any]) -> None:
    """What the fields say of one another."""
    base = manifest["base"]
    for name, entry in manifest["masks"].items():
        need(name in base["tensors"], "masks.known", f"{name} is not in base.tensors")
        need(entry["kept"] <= math.prod(entry["shape"]), "kept.most", f"{name}: more kept than there are weights")
        codec = entry["codec"]
        known = is_text(codec.get("name")) and codec["name"] in PARAMETERS
        need(known, "codec", f"{name}: unknown codec {codec.get('name')!r}")
        for key, check in PARAMETERS[codec["name"]].items():
            check_field(codec, key, f"{codec['name']}.{key}", True, check)
        need(codec["name"] != "nm" or codec["n"] < codec["m"], "nm.below", f"{name}: nm: n is not below m")
    strange = set(base.get("parameters") or {}) - set(base["tensors"])
    need(not strange, "base.parameters.known", "base.parameters names what is not in base.tensors")
    filled = [parameter(base, name) for name in base["tensors"]] + list(dense_entries(manifest))
    need(len(set(filled)) == len(filled), "parameter.twice", "two tensors fill one parameter")


def check_plain(metadata: dict[str, str], manifest: dict[str, Any], found_id: str) -> None:
    """That the metadata says what the manifest says."""
    for key in ("id", "base", "seal"):
        need(key in metadata, "required", f"the metadata has no {key}")
    said = {"version": manifest.get("version"), "base": manifest["base"].get("name"), "id": found_id}
    for key, value in said.items():
        same = metadata.get(key, value) == value or not is_text(value)
        need(same, f"plain.{key}", f"the metadata's {key} is not the manifest's")
    task = manifest.get("task")
    value = None if task is None else task.get("type")
    same = metadata.get("task") == value or not (task is None or is_text(value))
    need(same, "plain.task", "the metadata's task is not the manifest's")


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


def most(stored: int) -> int:
    """Bytes that may come of so many stored ones: of a file its masks', of a payload a list's."""
    return (1 << 24) + (stored << 10)


def pack(flags: NDArray[Any]) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()


def chunks(payload: bytes, width: int) -> Iterator[NDArray[Any]]:
    """The numbers of a pcodec standalone file, chunk by chunk."""
    dtypes = {7: "u16", 1: "u32", 10: "u8"}
    wanted = next(kind for kind, dtype in dtypes.items() if dtype == f"u{width}")
    need(payload[:4] == b"pco!" and payload[4] == 3, "list.version", "pcodec: not standalone version 3")
    at = 5
    if payload[4] >= 3:
        need(payload[5] in (0, wanted), "list.type", f"pcodec: numbers of type {payload[5]}, not u{width}")
        at = 6
    at += (6 + payload[at] % 64 + 1 + 7) // 8
    need(payload[at] == 4, "list.version", f"pcodec: format version {payload[at]}, not 4")
    file, used = pcodec.wrapped.FileDecompressor.new(payload[at:])
    at += used
    while payload[at]:
        need(payload[at] == wanted, "list.type", f"pcodec: numbers of type {payload[at]}, not u{width}")
        dtype, count = dtypes[payload[at]], int.from_bytes(payload[at + 1 : at + 4], "little") + 1
        need(payload[at + 4] == 0, "list.subset", "pcodec: a mode other than classic, or a delta encoding")
        chunk, used = file.chunk_decompressor(payload[at + 4 :], dtype)
        at += 4 + used
        values = np.empty(count, dtype.replace("u", "uint"))
        progress, used = chunk.read_page_into(payload[at:], count, values)
        at += used
        need(progress.n_processed == count, "list.pcodec", "pcodec: a chunk is too short")
        yield values
    need(at + 1 == len(payload), "list.end", "pcodec: bytes follow the file")


def integers(payload: bytes, count: int, width: int) -> NDArray[np.int64]:
    need(count * width // 8 <= most(len(payload)), "limit.list", f"pcodec: {count} integers")
    if count == 0:
        need(not payload, "list.empty", "a payload for no integers")
        return np.empty(0, np.int64)
    found, total = [], 0
    with library("list.pcodec", RuntimeError, TypeError, IndexError, KeyError):
        for values in chunks(payload, width):
            found.append(values)
            total += values.size
            need(total <= count, "list.count", f"pcodec: more than {count} integers")
    need(total == count, "list.count", f"pcodec: {total} integers, not {count}")
    return np.concatenate([*found, np.empty(0, np.uint8)]).astype(np.int64)[:count]


def positions(distances: NDArray[np.int64], end: int, rule: str = "position") -> NDArray[np.int64]:
    found = np.cumsum(distances + 1) - 1  # too few for a sum to wrap around
    need(bool((found < end).all()), rule, "a position past the end")
    return found[found < end]


def decode_bits(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    need(len(payload) == (target.size + 7) // 8, "bits.size", "bits: wrong size")
    return payload


def decode_frame(payload: bytes, rule: str, check_size: Callable[[int], None]) -> bytes:
    """The content of one Zstandard frame; the size that it states (-1: none) is checked before."""
    need(payload[:4] == zstandard.FRAME_HEADER, f"{rule}.frame", f"{rule}: no frame at the start")
    with library(f"{rule}.library", zstandard.ZstdError):
        window = zstandard.get_frame_parameters(payload).window_size
        need(window <= WINDOW, f"{rule}.window", f"{rule}: a window of {window} bytes")
        check_size(zstandard.frame_content_size(payload))
        stream = zstandard.ZstdDecompressor().decompressobj()
        content = bytes(stream.decompress(payload))
    need(stream.eof and not stream.unused_data, f"{rule}.end", f"{rule}: more or less than one frame")
    return content


def decode_manifest(payload: bytes) -> Any:
    def check_size(size: int) -> None:
        need(size >= 0, "manifest.size", "manifest: the frame states no size")
        need(size <= 1 << 26, "manifest.most", f"manifest: {size} bytes")

    return parse_json(decode_frame(payload, "manifest", check_size))


def decode_zstd(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    def check_size(size: int) -> None:
        need(size == (target.size + 7) // 8, "zstd.size", f"zstd: the frame states the size {size}")

    return decode_frame(payload, "zstd", check_size)


def decode_gaps(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    coded = int(target.kept <= target.size // 2)
    count = target.kept if coded else target.size - target.kept
    flags = np.full(target.size, 1 - coded, np.uint8)
    flags[positions(integers(payload, count, codec["width"]), target.size)] = coded
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


def leb128(payload: bytes, at: int) -> tuple[int, int]:
    """An integer, and where the next one begins."""
    value, start = 0, at
    while True:
        need(at < len(payload), "drift.head", "drift: the head is cut short")
        need(at - start < 5, "drift.head", "drift: an integer of more than five bytes")
        byte = payload[at] if at < len(payload) else 0
        value |= (byte & 127) << 7 * (at - start)
        at += 1
        if byte < 128:
            break
    need(byte > 0 or at == start + 1, "drift.head", "drift: an integer of more bytes than it needs")
    return value, at


def rice(payload: bytes, count: int) -> tuple[NDArray[np.int64], bytes]:
    """The values of a Rice list, and what follows it."""
    if count == 0:
        return np.empty(0, np.int64), payload
    parts = -(-count // 128)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    ones = np.flatnonzero(bits)
    if ones.size < parts + count:
        raise RefusedError("rice.short", "drift: the first part of a Rice list is cut short")
    end = int(ones[parts + count - 1]) // 8 * 8 + 8
    need(ones.size == parts + count or ones[parts + count] >= end, "rice.padding", "drift: bits after the first part")
    numbers = np.diff(ones[: parts + count], prepend=-1) - 1
    folded, values = numbers[:parts], numbers[parts:]
    parameters = np.cumsum(np.where(folded % 2, -(folded + 1) // 2, folded // 2))
    right = bool((parameters >= 0).all() and (parameters <= 31).all())
    need(right, "rice.parameter", "drift: a Rice parameter that is not 0 to 31")
    if (parameters < 0).any():
        raise RefusedError("rice.parameter", "drift: a Rice parameter below 0")
    sizes = np.repeat(parameters, 128)[:count]
    need(bool((values >> 32 - sizes == 0).all()), "rice.value", "drift: a value of 2^32 or more")
    behind = end + int(sizes.sum())
    need(behind <= bits.size, "rice.short", "drift: the second part of a Rice list is cut short")
    bits = np.concatenate([bits, np.zeros(max(behind - bits.size, 0), np.uint8)])
    for start, k in zip(range(0, count, 128), parameters.tolist(), strict=True):
        chunk = values[start : start + 128]
        low = bits[end : end + k * chunk.size].reshape(chunk.size, k).astype(np.int64)
        chunk[:] = (chunk << k) + (low << np.arange(k)).sum(axis=1)
        end += low.size
    need(not bits[end : -(-end // 8) * 8].any(), "rice.padding", "drift: bits after the second part")
    return values, payload[-(-end // 8) :]


def decode_drift(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    if target.initial is None:
        raise RefusedError("drift.initial", "drift: the manifest has no initial mask")
    need(target.size < 1 << 31, "drift.weights", "drift: 2^31 weights or more")
    at, head = 0, []
    for _ in range(3):
        value, at = leb128(payload, at)
        head.append(value)
    window, near, far = head
    need(window <= 1 << 16, "drift.window", f"drift: a window of {window}")
    need(near + far <= target.size, "drift.count", "drift: more changes than weights")
    ranks, payload = rice(payload[at:], near)
    beyond, payload = rice(payload, far)
    need(not payload, "drift.end", "drift: bytes follow the second list")
    cut, starts = target.initial["cut"], range(0, target.size, 1 << 20)
    orders, flags = [np.empty(0, np.int64)], np.empty(target.size, np.uint8)
    for start in starts:
        block = draws(target.initial["seed"], target.name, start, min(start + (1 << 20), target.size)).astype(np.int64)
        keep = block >= cut
        distance = np.where(keep, block - cut, cut - 1 - block)
        order = np.lexsort((np.arange(block.size), distance))  # by distance, then by index
        orders.append(start + order[: np.count_nonzero(distance < window)])
        flags[start : start + block.size] = keep
    order = np.concatenate(orders)
    flags[order[positions(ranks, order.size, "drift.rank")]] ^= 1
    flags[positions(beyond, target.size)] ^= 1
    return pack(flags)


@functools.cache
def patterns(n: int, m: int) -> NDArray[np.uint16]:
    """All 16-bit integers of which each ``m`` bits have ``n`` ones, in rising order."""
    groups = [(shift, (1 << m) - 1) for shift in range(0, 16, m)]
    return np.array([w for w in range(1 << 16) if all((w >> s & mask).bit_count() == n for s, mask in groups)], "<u2")


def decode_nm(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    n, m = codec["n"], codec["m"]
    rows = bool(target.shape) and target.shape[-1] % m == 0
    need(rows, "nm.rows", f"nm: {m} does not divide the last dimension")
    symbols = integers(payload, -(-target.size // 16), 16)
    words = patterns(n, m)
    need(bool((symbols < words.size).all()), "nm.symbol", "nm: a symbol that no word has")
    found = words.take(symbols, mode="clip")
    return pack(np.unpackbits(found.view(np.uint8), count=target.size, bitorder="little"))


def decode_delta(payload: bytes, codec: dict[str, Any], target: Target) -> bytes:
    need(codec["count"] <= target.size, "delta.most", "delta: more differences than weights")
    shape, bits = target.parent()
    need(shape == target.shape, "parent.shape", f"delta: the parent's mask has the shape {shape}")
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=target.size, bitorder="little")
    flags[positions(integers(payload, codec["count"], codec["width"]), target.size)] ^= 1
    return pack(flags)


DECODE: dict[str, Callable[[bytes, dict[str, Any], Target], bytes]] = {
    "bits": decode_bits,
    "zstd": decode_zstd,
    "gaps": decode_gaps,
    "drift": decode_drift,
    "nm": decode_nm,
    "delta": decode_delta,
}


# The file


class File:
    """A ``.msk`` file, read whole. The manifest is checked, and what is asked for by ``mask`` and ``dense`` then."""

    def __init__(self, path: str | Path, parents: Sequence[str | Path] = (), above: int = 0) -> None:
        self.content = Path(path).read_bytes()
        self.parents = list(parents)
        self.above = above  # masks in a chain that are coded against this one
        if "safetensors" not in SKIPPED:
            with library("safetensors", safetensors.SafetensorError):
                safetensors.deserialize(self.content)  # type: ignore[no-untyped-call]
        end = 8 + int.from_bytes(self.content[:8], "little")
        self.head, data = self.content[:end], self.content[end:]
        need(self.head[8:9] == b"{", "header.start", "the header does not start with {")
        header = parse_json(self.head[8:])
        self.metadata = header.pop("__metadata__", None) or {}
        for name, entry in header.items():
            need(isinstance(entry, dict), "header.entry", f"the header's entry of {name[:100]!r} is no object")
            if isinstance(entry, list):
                header[name] = dict(zip(("dtype", "shape", "data_offsets"), entry, strict=False))
        need(self.metadata.get("format") == "maskhub", "format", "no mask: the metadata's format is not maskhub")
        check_version(self.metadata.get("version"))
        for name in (MANIFEST, MASKS):
            need(name in header, "payload.missing", f"the payload {name} is missing")
            entry = header.get(name, {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]})
            need(entry["dtype"] == "U8", "payload.dtype", f"{name} is not U8")
            need(len(entry["shape"]) == 1, "payload.shape", f"{name} is not flat")
        payloads = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
        self.manifest = decode_manifest(payloads.pop(MANIFEST, b""))
        self.masks = payloads.pop(MASKS, b"")
        self.tensors = {name: (header[name]["dtype"], header[name]["shape"], data) for name, data in payloads.items()}
        check_fields(self.manifest)
        masks = self.manifest["masks"]
        total = sum(entry["bytes"] for entry in masks.values())
        need(total == len(self.masks), "masks.total", f"the masks have {total} bytes, {MASKS} {len(self.masks)}")
        same = self.tensors.keys() == dense_entries(self.manifest).keys()
        need(same, "dense.names", "the dense tensors of manifest and file are not the same names")
        for name, (dtype, shape, _) in self.tensors.items():
            need(dtype in ITEM_SIZE, "dense.dtype", f"{name}: the dtype {dtype}")
            need(is_shape(shape), "dense.shape", f"{name}: the shape {shape}")
        check_content(self.manifest)
        self.id = content_id(self.manifest)
        check_plain(self.metadata, self.manifest, self.id)
        decoded = sum(math.prod(entry["shape"]) + 7 >> 3 for entry in masks.values())
        need(decoded <= most(len(self.content)), "limit.file", f"masks of {decoded} bytes in all")

    def check_seal(self) -> None:
        if "seal" not in self.metadata:
            return
        seal = self.metadata["seal"].encode()
        place = self.head.find(seal)
        blank = self.content[:place] + b"0" * 64 + self.content[place + 64 :]
        right = place >= 0 and blake3(blank).hexdigest().encode() == seal
        need(right, "seal.matches", "the seal does not match the file")

    def payload(self, name: str) -> bytes:
        """The coded mask."""
        masks = self.manifest["masks"]
        start = sum(entry["bytes"] for before, entry in masks.items() if before < name)
        return self.masks[start : start + masks[name]["bytes"]]

    def mask(self, name: str) -> bytes:
        """The packed bits."""
        entry = self.manifest["masks"][name]
        target = Target(
            name, entry["shape"], entry["kept"], self.manifest.get("initial"), lambda: self.parent_mask(entry, name)
        )
        try:
            bits = DECODE[entry["codec"]["name"]](self.payload(name), entry["codec"], target)
        except RefusedError as error:
            raise RefusedError(error.rule, f"{name}: {error}") from error
        right = mask_digest(entry["shape"], bits) == entry["digest"]
        need(right, "digest.matches", f"{name}: the bits do not match their digest")
        kept = int.from_bytes(bits, "little").bit_count() == entry["kept"]
        need(kept, "kept.matches", f"{name}: not as many ones as kept")
        padded = not target.size % 8 or bits[-1] >> target.size % 8 == 0
        need(padded, "padding", f"{name}: the padding is not 0")
        return bits

    def dense(self, name: str) -> bytes:
        """The elements, little-endian."""
        dtype, shape, data = self.tensors[name]
        found = tensor_digest(dtype, shape, data)
        right = found == dense_entries(self.manifest).get(name, found)
        need(right, "digest.matches", f"{name}: the tensor does not match its digest")
        return data

    def parent_mask(self, entry: dict[str, Any], name: str) -> tuple[list[int], bytes]:
        """Shape and packed bits of the parent's mask. Its own parent is looked for among the other files."""
        wanted = self.manifest.get("parent")
        need(wanted is not None, "parent.named", "delta: the manifest names no parent")
        need(self.above < CHAIN, "parent.chain", f"delta: a chain of more than {CHAIN}")
        for path in self.parents:
            parent = File(path, [other for other in self.parents if other != path], self.above + 1)
            parent.check_seal()
            if parent.id == wanted or SKIPPED & {"parent.named", "parent.id"}:
                break
        else:
            raise RefusedError("parent.id", f"delta: the parent {wanted} is not at hand")
        if name in parent.manifest["masks"]:
            return parent.manifest["masks"][name]["shape"], parent.mask(name)
        need(False, "parent.mask", "delta: the parent has no such mask")
        return entry["shape"], pack(np.ones(math.prod(entry["shape"]), np.uint8))


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
    for name, (dtype, shape, _) in file.tensors.items():
        file.dense(name)
        dense[name] = {"dtype": dtype, "shape": shape, "digest": dense_entries(manifest).get(name)}
    base = {"name": manifest["base"].get("name"), "root": manifest["base"]["root"]}
    head = {"version": manifest.get("version"), "id": file.id, "parent": manifest.get("parent")}
    return {**head, "base": base, "masks": masks, "dense": dense}


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode and check a .msk file, and print what it holds as JSON.")
    parser.add_argument("file")
    parser.add_argument("--parent", action="append", default=[], help="a file that masks may be coded against")
    parser.add_argument("--skip", action="append", default=[], metavar="RULE", help="a rule that is not checked")
    arguments = parser.parse_args()
    SKIPPED.update(arguments.skip)
    try:
        print(json.dumps(describe(File(arguments.file, arguments.parent)), indent=2))
    except RefusedError as error:
        print(f"{arguments.file!a}: {str(error)!a} (rule {error.rule})", file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        print(f"{arguments.file!a}: {str(error) or 'no memory'!a}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
