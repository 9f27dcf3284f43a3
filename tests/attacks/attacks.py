"""The attacks: each makes one hostile file. ``python -m tests.attacks.attacks FOLDER`` writes them all.

A name is ``KIND: what``; ``ATTACKS`` maps it to a maker and the reason that a reader must give.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskhub.container.codecs import pco, rice
from maskhub.storage.tensor import RawTensor
from tests.attacks.forge import (
    broken_seal,
    changed,
    claim,
    honest,
    make_vectors,
    parts,
    put,
    raw,
    with_frame,
    with_manifest,
)

Make = Callable[[], bytes]
ATTACKS: dict[str, tuple[Make, str]] = {}

HUGE = 1 << 40  # weights
DEEP = 100_000
MOST = 1 << 27  # weights of a mask that a file of any size may hold
MAX_WEIGHTS = 1 << 48  # that a shape may claim
LIMIT = "bytes that claim masks of"


def attack(name: str, make: Make, reason: str) -> None:
    ATTACKS[name] = (make, reason)


ENTRY = '{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'
NO_FILE = "not a safetensors file"


def header(name: str, text: str | bytes, body: bytes = b"ab", reason: str = NO_FILE) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    attack(f"header: {name}", lambda: raw(content, body), reason)


def entry(name: str, fields: str, body: bytes = b"ab", reason: str = NO_FILE) -> None:
    header(name, '{"a":{' + fields + "}}", body, reason)


for size in (0, 1, 99_999_999, 100_000_001, 1 << 32, 1 << 63, (1 << 64) - 1):
    attack(f"header: length {size}", lambda size=size: struct.pack("<Q", size) + b'{"a":' + b"x" * 30, NO_FILE)
header("empty", "")
header("an array", "[]")
header("text", "maskhub")
header("a space before it", ' {"a":' + ENTRY + "}")
header("deep arrays", '{"a":' + "[" * DEEP)
header("deep objects", '{"a":' * DEEP)
header("not UTF-8", b'{"\xff":' + ENTRY.encode() + b"}")
header("lone surrogate", '{"\\ud800":' + ENTRY + "}")
header("name twice", '{"a":' + ENTRY + ',"a":' + ENTRY + "}", reason="the key 'a' stands twice")
header("name twice, escaped", '{"a":' + ENTRY + ',"\\u0061":' + ENTRY + "}", reason="the key 'a' stands twice")
header("format twice", '{"__metadata__":{"format":"x","format":"maskhub"}}', b"", "the key 'format' stands twice")
header("metadata twice", '{"__metadata__":{},"__metadata__":{}}', b"")
header("metadata null", '{"__metadata__":null,"a":' + ENTRY + "}", reason="no mask")
header("format no string", '{"__metadata__":{"format":{}}}', b"")
header("MaskHub 0.1", '{"__metadata__":{"maskhub":"{}"}}', b"", "of MaskHub 0.1")
header("only a format", '{"__metadata__":{"format":"maskhub"}}', b"", "not a version")
header("no payloads", '{"__metadata__":{"format":"maskhub","version":"1.0"}}', b"", "the metadata has no 'base'")
header("entry as array", '{"a":["U8",[2],[0,2]]}')
header("entry null", '{"a":null}')
header("no mask", "{}", b"", "no mask")
entry("no dtype", '"shape":[2],"data_offsets":[0,2]')
entry("dtype twice", '"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]')
entry("unknown dtype", '"dtype":"U9","shape":[2],"data_offsets":[0,2]')
entry("dtype without bytes", '"dtype":"F4","shape":[4],"data_offsets":[0,2]', reason="dtype F4")
entry("NaN", '"x":NaN,"dtype":"U8","shape":[2],"data_offsets":[0,2]')
entry("1e999", '"x":1e999,"dtype":"U8","shape":[2],"data_offsets":[0,2]')
entry("long integer", '"x":' + "1" * 10_000 + ',"dtype":"U8","shape":[2],"data_offsets":[0,2]')
entry("shape of a float", '"dtype":"U8","shape":[2.0],"data_offsets":[0,2]')
entry("negative shape", '"dtype":"U8","shape":[-2],"data_offsets":[0,2]')
entry("shape overflows", '"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,2]')
entry("shape of another size", '"dtype":"U8","shape":[3],"data_offsets":[0,2]')
entry("terabytes", f'"dtype":"U8","shape":[{HUGE}],"data_offsets":[0,{HUGE}]')
entry("offsets overflow", '"dtype":"U8","shape":[2],"data_offsets":[18446744073709551615,1]')
entry("offsets beyond 64 bits", '"dtype":"U8","shape":[2],"data_offsets":[0,36893488147419103232]')
entry("offsets turned", '"dtype":"U8","shape":[2],"data_offsets":[2,0]')
entry("three offsets", '"dtype":"U8","shape":[2],"data_offsets":[0,2,2]')
entry("a hole", '"dtype":"U8","shape":[2],"data_offsets":[1,3]', b"abc")
entry("bytes at the end", '"dtype":"U8","shape":[2],"data_offsets":[0,2]', b"abc")
entry("cut short", '"dtype":"U8","shape":[2],"data_offsets":[0,2]', b"a")
header("overlap", '{"a":' + ENTRY + ',"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', b"abc")


def other_dtype() -> bytes:
    content = honest(parts())
    return bytes(make_vectors.resealed(content.replace(b'"dtype":"U8"', b'"dtype":"I8"')))


attack("header: payloads of I8", other_dtype, r"is I8 \[\d+\], not U8")
NONE = np.empty(0, np.uint8)
attack(
    "header: 200,000 payloads",
    lambda: changed(lambda c: c.dense.update({f"{i:x}": RawTensor("U8", (0,), NONE) for i in range(200_000)})),
    "the dense tensor .* is missing from the manifest",
)

NOT_VALID = "the manifest is not valid"
UNREAD = "the manifest cannot be read"
ACCEPTED = ""  # what is strange and does no harm


def manifest(name: str, make: Callable[[], str | bytes], reason: str = NOT_VALID) -> None:
    attack(f"manifest: {name}", lambda: with_manifest(make()), reason)


def with_text(fields: str) -> Callable[[], str]:
    """A manifest with JSON text put in as its first fields."""
    return lambda: "{" + fields + "," + json.dumps(parts().manifest)[1:]


def field(name: str, path: str, value: Any, reason: str = NOT_VALID) -> None:
    attack(f"manifest: {name}", lambda: changed(put(path, value)), reason)


manifest("empty", lambda: "")
manifest("null", lambda: "null", "'format' is not 'maskhub'")
manifest("an array", lambda: "[]", "'format' is not 'maskhub'")
manifest("BOM", lambda: "\ufeff" + json.dumps(parts().manifest))
manifest("UTF-16", lambda: json.dumps(parts().manifest).encode("utf-16"), UNREAD)
manifest("deep arrays", with_text('"x":' + "[" * DEEP + "]" * DEEP))
manifest("deep objects", with_text('"x":' + '{"x":' * DEEP + "0" + "}" * DEEP))
manifest("65 levels", with_text('"x":' + "[" * 64 + "]" * 64), "nested deeper than 63 objects and arrays")
MANY = "far more than manifests do"
manifest("1 MB of arrays", with_text('"x":{"x":[' + "[]," * 340_000 + "0]}"), ACCEPTED)
manifest("10 MB of arrays", with_text('"x":{"x":[' + "[]," * 3_500_000 + "0]}"), MANY)
manifest("50 MB string", with_text('"x":"' + "x" * 50_000_000 + '"'), MANY)
manifest("a million keys", with_text('"x":{' + ",".join(f'"{i:x}":0' for i in range(1_000_000)) + "}"), ACCEPTED)
manifest("1e999", with_text('"x":1e999'))
manifest("NaN", with_text('"x":NaN'))
manifest("-Infinity", with_text('"x":-Infinity'))
manifest("long integer", with_text('"x":' + "1" * 1_000_000))
manifest("long metric", with_text('"metrics":{"a":' + "1" * 400 + "}"))
manifest("lone surrogate", with_text('"x":"\\udc00"'))
manifest("surrogate at the end", with_text('"x":"\\ud800"'))
manifest("raw control character", with_text('"x":"\x01"'))
manifest("key twice", with_text('"masks":{}'), "the key 'masks' stands twice")
manifest("key twice, escaped", with_text('"\\u006dasks":{}'), "the key 'masks' stands twice")
manifest("unknown key twice", with_text('"x":{"y":{"z":1,"z":1}}'), "the key 'z' stands twice")
field("version of 1 MB", "version", "1." + "0" * 1_000_000, "not a version")
field("version with a line", "version", "1.0\n", "not a version")
field("major 2", "version", "2.0", "this MaskHub reads 1")
field("format", "format", "MaskHub", "'format' is not 'maskhub'")
manifest("a layout of old", lambda: json.dumps(parts().manifest | {"id": "0" * 64, "seal": "0" * 64}), ACCEPTED)
field("kept negative", "masks/gaps/kept", -1)
field("kept a float", "masks/gaps/kept", 500.0)
field("kept true", "masks/gaps/kept", True)
field("kept beyond 64 bits", "masks/gaps/kept", 1 << 70)
field("kept too large", "masks/gaps/kept", 631, "keeps 631 weights, more than its shape has")
field("shape negative", "masks/gaps/shape", [-1])
field("shape of 9 dimensions", "masks/gaps/shape", [1] * 9)
field("shape of 300,000 dimensions", "masks/gaps/shape", [1] * 300_000)
field("shape overflows", "masks/gaps/shape", [1 << 62] * 8, "impossible shape")
field("shape empty and huge", "masks/gaps/shape", [0, 1 << 62], "impossible shape")
field("dense an entry", "dense/head", {"dtype": "F32"})
field("dense reserved", "dense/maskhub.masks", "0" * 64, "maskhub.masks is missing from the file")
field("hint of 64 digits", "base/tensors/gaps", "0" * 64)
field("codec null", "masks/gaps/codec", None)
field("codec unknown", "masks/gaps/codec", {"name": "pickle"}, "unknown codec 'pickle'")
field("codec with a colon", "masks/nm/codec", {"name": "nm:2:4", "n": 2, "m": 4}, "unknown codec 'nm:2:4'")
field("codec of 1 MB", "masks/gaps/codec", {"name": "x" * 1_000_000}, "unknown codec")
field("codec deep", "masks/gaps/codec", {"name": [[[[0]]]]}, "unknown codec")
field("width 64", "masks/gaps/codec", {"name": "gaps", "width": 64}, "codec 'gaps'")
field("n of m", "masks/nm/codec", {"name": "nm", "n": 4, "m": 4}, "N is below M")
field("m unknown", "masks/nm/codec", {"name": "nm", "n": 1, "m": 1 << 30}, "codec 'nm'")
field("count negative", "masks/delta/codec", {"name": "delta", "count": -1, "width": 16}, "codec 'delta'")
field("cut out of range", "initial/cut", (1 << 16) + 1)
field("seed out of range", "initial/seed", 1 << 32)
field("another generator", "initial/generator", "os.urandom")
field("codec without its width", "masks/gaps/codec", {"name": "gaps"}, "missing required field `width`")
field("two parameters alike", "base/parameters", {"gaps": "head"}, "two tensors for one parameter")
field("long prefix", "base/parameter_prefix", "x" * 1_000_000)
field("prefix that steers", "base/parameter_prefix", "\x1b[2J")
for what, bad in {
    "empty": "", "NUL": "a\0b", "newline": "a\nb", "newline at the end": "a\n", "escape": "\x1b[2J", "DEL": "\x7f",
    "1025 characters": "x" * 1025, "400,000 characters": "x" * 400_000,
}.items():  # fmt: skip

    def renamed(c: Any, bad: str = bad) -> None:
        c.manifest["base"]["tensors"][bad] = c.manifest["base"]["tensors"]["gaps"]
        c.manifest["masks"][bad], c.masks[bad] = c.manifest["masks"].pop("gaps"), c.masks.pop("gaps")

    attack(f"manifest: name {what}", lambda renamed=renamed: changed(renamed), NOT_VALID)


def lie(name: str, key: str, value: Any, reason: str) -> None:
    """One that stands in the metadata alone."""

    def make() -> bytes:
        content = parts()
        make_vectors.follow(content)
        content.plain[key] = value
        return bytes(make_vectors.assembled(content))

    attack(f"lies: {name}", make, reason)


def sizes_of_masks(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The small file with other ``bytes`` of masks than they have."""
    content = parts()
    make_vectors.follow(content)
    change(content.manifest["masks"])
    return bytes(make_vectors.assembled(content))


def dense_of(dtype: str, shape: tuple[int, ...]) -> bytes:
    return changed(make_vectors.brings(RawTensor(dtype, shape, np.zeros(8, np.uint8)), "head"))


def many_dimensions() -> bytes:
    content = parts()
    make_vectors.follow(content)
    payloads = make_vectors.payloads(content)
    masks = payloads[make_vectors.MASKS]
    payloads[make_vectors.MASKS] = RawTensor("U8", (*[1] * 1_000_000, *masks.shape), masks.data)
    return bytes(make_vectors.laid_out(content.plain, payloads))


TOTAL = "masks of .* bytes in a payload of"
attack("lies: mask missing", lambda: sizes_of_masks(lambda m: m.pop("gaps")), TOTAL)
attack("lies: a byte more", lambda: sizes_of_masks(lambda m: m["zstd"].update(bytes=m["zstd"]["bytes"] + 1)), TOTAL)
attack("lies: terabytes of bytes", lambda: sizes_of_masks(lambda m: m["bits"].update(bytes=HUGE)), TOTAL)
attack("lies: bytes overflow", lambda: sizes_of_masks(lambda m: [e.update(bytes=1 << 62) for e in m.values()]), TOTAL)
attack("lies: negative bytes", lambda: sizes_of_masks(lambda m: m["bits"].update(bytes=-1)), NOT_VALID)
attack(
    "lies: bytes of the neighbour",
    lambda: sizes_of_masks(lambda m: (m["bits"].update(bytes=4), m["delta"].update(bytes=m["delta"]["bytes"] - 1))),
    "where the shape needs 3|does not match",
)
attack("lies: dense missing", lambda: changed(lambda c: c.dense.pop("head")), "head is missing from the file")
attack("lies: dense too many", lambda: changed(lambda c: c.manifest["dense"].pop("head")), "missing from the manifest")
attack("lies: dense of F4", lambda: dense_of("F4", (16,)), "dtype F4")
LONG = RawTensor("F4", (16,), np.zeros(8, np.uint8))
attack("lies: dense of F4, long name", lambda: changed(make_vectors.brings(LONG, "x" * 1_000_000)), "dtype F4")
DIMENSIONS = RawTensor("F32", (2, *[1] * 1_000_000), np.zeros(8, np.uint8))
attack(
    "lies: dense of a million dimensions", lambda: changed(make_vectors.brings(DIMENSIONS, "head")), "impossible shape"
)
attack("lies: masks of a million dimensions", many_dimensions, "is U8 .*, not U8")
attack("lies: dense of another size", lambda: dense_of("F32", (3,)), NO_FILE)
attack("lies: dense of terabytes", lambda: dense_of("F32", (HUGE,)), NO_FILE)
attack(
    "lies: dense empty and huge",
    lambda: changed(make_vectors.brings(RawTensor("U8", (0, 1 << 49), NONE), "head")),
    "impossible shape",
)
attack(
    "lies: not of the base",
    lambda: changed(lambda c: c.manifest["base"]["tensors"].pop("gaps")),
    "base binding does not list",
)
lie("id", "id", "0" * 64, "the metadata's 'id' is")
lie("id of megabytes", "id", "0" * 10_000_000, "the metadata's 'id' is")
lie("base", "base", "another", "the metadata's 'base' is 'another'")
lie("base that steers", "base", "\x1b[2J", "the metadata's 'base' is")
lie("task", "task", "token-classification", "the metadata's 'task' is")
lie("version", "version", "1.1", "the metadata's 'version' is '1.1'")
lie("major", "version", "2.0", "this MaskHub reads 1")
lie("seal of no digits", "seal", "", r"\(seal\)")
lie("seal of megabytes", "seal", "0" * 10_000_000, r"\(seal\)")
attack("lies: digest", lambda: changed(put("masks/gaps/digest", "0" * 64)), "does not match its digest")
attack("lies: dense digest", lambda: changed(put("dense/head", "0" * 64)), "does not match its digest")
attack("lies: kept of bits", lambda: changed(put("masks/bits/kept", 3)), "does not match its digest")
attack("lies: kept of gaps", lambda: changed(put("masks/gaps/kept", 400)), "does not hold 230 values")
attack("lies: shape turned", lambda: changed(put("masks/gaps/shape", [70, 9])), "does not match its digest")
attack("lies: another codec", lambda: changed(put("masks/gaps/codec", {"name": "zstd"})), "codec 'zstd'")
attack("lies: seal", lambda: broken_seal(honest(parts())), r"\(seal\)")


def payload(name: str, what: str, content: Callable[[], bytes], reason: str, **more: Any) -> None:
    attack(f"{name}: {what}", lambda: changed(claim(name, content(), **more)), reason)


def sizes(weights: int, kept: int = 0) -> dict[str, Any]:
    return {"shape": [weights], "kept": kept}


payload("bits", "empty", lambda: b"", "where the shape needs 3")
payload("bits", "too long", lambda: bytes(4), "where the shape needs 3")
payload("bits", "megabytes", lambda: bytes(4), "where the shape needs 8388608", **sizes(1 << 26))
payload("bits", "a gigabyte", lambda: bytes(4), LIMIT, **sizes(1 << 33))
payload("bits", "claims terabytes", lambda: bytes(4), LIMIT, **sizes(HUGE))


def rle(size: int, last: bool = False) -> bytes:
    """A Zstandard block of equal bytes."""
    return struct.pack("<I", size << 3 | 2 | last)[:3] + b"\0"


def zstd(declared: int, blocks: bytes, window: int | None = None) -> bytes:
    """A Zstandard frame; ``window`` is the logarithm of its window's size, else it is in one segment."""
    head = b"\xe0" if window is None else bytes([0xC0, window - 10 << 3])
    return b"\x28\xb5\x2f\xfd" + head + struct.pack("<Q", declared) + blocks


FULL = rle(1 << 17)
SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
FRAME = zstd(100, rle(100, True))
BITS = sizes(800)
payload("zstd", "empty", lambda: b"", "does not begin with a frame", **BITS)
payload("zstd", "no frame", lambda: bytes(100), "does not begin with a frame", **BITS)
payload("zstd", "holds more", lambda: zstd(100, rle(101, True)), "codec 'zstd'", **BITS)
payload("zstd", "holds far more", lambda: zstd(100, FULL * 16_000 + rle(1, True)), "codec 'zstd'", **BITS)
payload("zstd", "holds less", lambda: zstd(100, rle(99, True)), "codec 'zstd'", **BITS)
payload("zstd", "never ends", lambda: zstd(100, rle(100)), "codec 'zstd'", **BITS)
payload("zstd", "two frames", lambda: FRAME + FRAME, "codec 'zstd'", **BITS)
payload("zstd", "two frames, both counted", lambda: FRAME + FRAME, "declares 100 bytes", **sizes(1600))
payload("zstd", "skippable frame before", lambda: SKIPPABLE + FRAME, "codec 'zstd'", **BITS)
payload("zstd", "skippable frame behind", lambda: FRAME + SKIPPABLE, "codec 'zstd'", **BITS)
payload("zstd", "skippable frame alone", lambda: SKIPPABLE, "codec 'zstd'", **sizes(0))
payload("zstd", "empty frame and more", lambda: zstd(0, rle(0, True)) + b"x", "not an empty frame", **sizes(0))
payload("zstd", "empty frame of nonsense", lambda: zstd(0, b"\xff\xff"), "codec 'zstd'", **sizes(0))
payload("zstd", "no size", lambda: b"\x28\xb5\x2f\xfd\0\x38" + rle(100, True), "does not say how large", **BITS)
payload("zstd", "a window of 2**41", lambda: zstd(100, rle(100, True), 41), "codec 'zstd'", **BITS)
payload("zstd", "a window of 2 GB", lambda: zstd(100, rle(101, True), 31), "a window of 2147483648 bytes", **BITS)
payload("zstd", "2**64 - 1 bytes", lambda: zstd((1 << 64) - 1, rle(100, True)), "codec 'zstd'", **BITS)
payload(
    "zstd",
    "megabytes of nothing",
    lambda: zstd(1 << 24, rle(100, True), 23),
    "cannot hold the 16777216",
    **sizes(8 << 24),
)
payload(
    "zstd", "ends early", lambda: zstd(1 << 24, FULL * 16 + b"\0" * 512, 23), "codec 'zstd'", **sizes(8 << 24)
)  # enough bytes for what it declares
payload("zstd", "a gigabyte", lambda: zstd(1 << 30, FULL * 8192), LIMIT, **sizes(8 << 30))
payload("zstd", "claims terabytes", lambda: zstd(HUGE >> 3, rle(100, True)), LIMIT, **sizes(HUGE))
payload("zstd", "a dictionary", lambda: b"\x28\xb5\x2f\xfd\x21\x07\x64" + rle(100, True), "codec 'zstd'", **BITS)


def manifest_frame(what: str, content: bytes, reason: str) -> None:
    attack(f"frame: {what}", lambda: with_frame(content), f"{UNREAD}: .*{reason}")


MIB = 1 << 20
manifest_frame("empty", b"", "does not begin with a frame")
manifest_frame("JSON", b'{"format":"maskhub"}', "does not begin with a frame")
manifest_frame("skippable frame before", SKIPPABLE + FRAME, "does not begin with a frame")
manifest_frame("skippable frame behind", FRAME + SKIPPABLE, "unused data")
manifest_frame("two frames", FRAME + FRAME, "unused data")
manifest_frame("holds more", zstd(100, rle(101, True)), "")
manifest_frame("holds less", zstd(100, rle(99, True)), "")
manifest_frame("never ends", zstd(100, rle(100)), "")
manifest_frame("empty frame and more", zstd(0, rle(0, True)) + b"x", "not an empty frame")
manifest_frame("no size", b"\x28\xb5\x2f\xfd\0\x38" + rle(100, True), "does not say how large")
manifest_frame("a window of 2 GB", zstd(100, rle(101, True), 31), "a window of 2147483648 bytes")
manifest_frame("a dictionary", b"\x28\xb5\x2f\xfd\x21\x07\x64" + rle(100, True), "")
manifest_frame("64 MiB of nothing", zstd(64 * MIB, rle(100, True), 23), "cannot hold the 67108864")
manifest_frame("64 MiB and a byte", zstd(64 * MIB + 1, FULL * 512 + rle(1, True), 23), "67,108,864 are the most")
manifest_frame("a gigabyte", zstd(1 << 30, FULL * 8192, 23), "67,108,864 are the most")
manifest_frame("2**64 - 1 bytes", zstd((1 << 64) - 1, rle(100, True), 23), "")
manifest_frame("64 MiB of NUL", zstd(64 * MIB, FULL * 511 + rle(1 << 17, True), 23), MANY)
attack("frame: 1 MiB of NUL", lambda: with_frame(zstd(MIB, FULL * 7 + rle(1 << 17, True), 23)), NOT_VALID)


def values(numbers: Any, width: pco.Width = 16) -> bytes:
    return pco.compress(np.array(numbers, np.int64), width)


ZEROS = values(np.zeros(1 << 18), 32)  # one chunk, of 13 bytes
ZEROS_HEAD, CHUNK = ZEROS[:-14], ZEROS[-14:-1]


def zeros(chunks: int, size: int = 1 << 24) -> bytes:
    """A pcodec file of ``chunks`` times ``size`` zeros, of 32 bits each: 13 bytes a chunk."""
    return ZEROS_HEAD + (CHUNK[:1] + (size - 1).to_bytes(3, "little") + CHUNK[4:]) * chunks + b"\0"


WIDE = {"codec": {"name": "gaps", "width": 32}}
NARROW = {"codec": {"name": "gaps", "width": 16}}
payload("gaps", "empty", lambda: b"", "codec|pcodec", **sizes(1000, 10), **NARROW)
payload("gaps", "past the end", lambda: values([1000]), "past the end", **sizes(1000, 1), **NARROW)
payload(
    "gaps", "far past the end", lambda: values([(1 << 32) - 1] * 500, 32), "past the end", **sizes(1000, 500), **WIDE
)
payload("gaps", "fewer numbers", lambda: values([0] * 9), "does not hold 10", **sizes(1000, 10), **NARROW)
payload("gaps", "more numbers", lambda: values([0] * 11), "does not hold 10", **sizes(1000, 10), **NARROW)
payload("gaps", "millions more numbers", lambda: zeros(64), "does not hold 10", **sizes(1000, 10), **WIDE)
payload("gaps", "of another width", lambda: values([0] * 10, 32), "pcodec payload", **sizes(1000, 10), **NARROW)
payload("gaps", "numbers where none are", lambda: values([0]), "for no values", **sizes(1000, 1000), **NARROW)
payload("gaps", "a chunk that ends early", lambda: zeros(1)[:-6], "pcodec payload", **sizes(1 << 26, 1 << 24), **WIDE)
payload("gaps", "fewer chunks", lambda: zeros(2, 1 << 20), "does not hold", **sizes(1 << 26, 1 << 22), **WIDE)
payload("gaps", "256 MB of numbers", lambda: zeros(4), "bytes for 67108864 values", **sizes(1 << 27, 1 << 26), **WIDE)
payload("gaps", "4 GB of numbers", lambda: zeros(64), LIMIT, **sizes(1 << 31, 1 << 30), **WIDE)
payload("gaps", "claims terabytes", lambda: values([0]), LIMIT, **sizes(HUGE, 1), **NARROW)
payload("gaps", "claims terabytes, all kept", lambda: b"", LIMIT, **sizes(HUGE, HUGE), **NARROW)
payload("gaps", "claims all there can be", lambda: b"", LIMIT, **sizes(MAX_WEIGHTS, 1), **WIDE)
payload("gaps", "a gigabyte, all kept", lambda: b"", LIMIT, **sizes(1 << 33, 1 << 33), **NARROW)
payload("gaps", "all kept, as large as may be", lambda: b"", "does not match", **sizes(MOST, MOST), **NARROW)
payload("gaps", "as large as may be", lambda: zeros(1, 1 << 22), "does not match", **sizes(MOST, 1 << 22), **WIDE)


def drift(window: int, near: int, far: int, rest: bytes = b"") -> bytes:
    return b"".join(map(make_vectors.leb128, (window, near, far))) + rest


def riced(numbers: Any) -> bytes:
    return rice.compress(np.array(numbers, np.int64))


TOP = (1 << 32) - 1
HEAD, CANNOT, SHORT = "head is cut short, or not as LEB128 has it", "claims what cannot be", "is cut short"
ALL = 1 << 16
payload("drift", "empty", lambda: b"", HEAD)
payload("drift", "two integers", lambda: b"\0\0", HEAD)
payload("drift", "an integer cut short", lambda: b"\0\0\x80", HEAD)
payload("drift", "an integer that never ends", lambda: b"\x80" * 1_000_000, HEAD)
payload("drift", "an integer of six bytes", lambda: b"\xff" * 5 + b"\1\0\0", HEAD)
payload("drift", "a longer integer", lambda: b"\x80\0\0\0", HEAD)
payload("drift", "window", lambda: drift(ALL + 1, 0, 0), CANNOT)
payload("drift", "near", lambda: drift(1, 401, 0, b"\xff" * 60), CANNOT)
payload("drift", "near and far", lambda: drift(1, 400, 1, b"\xff" * 60), CANNOT)
payload("drift", "more than there are bits", lambda: drift(ALL, 9, 0, b"\xff"), CANNOT)
payload("drift", "all there can be", lambda: drift(ALL, TOP, TOP), CANNOT)
payload("drift", "near and far overflow", lambda: drift(ALL, (1 << 35) - 1, (1 << 35) - 1), CANNOT)
payload("drift", "far past the end", lambda: drift(1, 0, 1, riced([400])), "past the end")
payload("drift", "far far past the end", lambda: drift(1, 0, 2, riced([1, TOP])), "past the end")
payload("drift", "rank past the end", lambda: drift(ALL, 1, 0, riced([400])), "past the end")
payload("drift", "rank past the window", lambda: drift(0, 1, 0, riced([0])), "past the end")
payload("drift", "ranks far past", lambda: drift(ALL, 400, 0, riced([TOP] * 400)), "past the end")
payload("drift", "bytes behind", lambda: drift(ALL, 0, 0, b"x"), "1 bytes follow")
payload("drift", "megabytes behind", lambda: drift(ALL, 1, 0, riced([0]) + bytes(10_000_000)), "10000000 bytes follow")
payload("drift", "list without ones", lambda: drift(ALL, 300, 0, bytes(1_000_000)), SHORT)
payload("drift", "parameters and no values", lambda: drift(ALL, 129, 0, b"\3" + bytes(20)), SHORT)
payload("drift", "fewer high parts", lambda: drift(ALL, 9, 0, b"\xff\1"), SHORT)
payload("drift", "more high parts", lambda: drift(ALL, 6, 0, b"\xff"), "behind its last value")
payload("drift", "fewer low parts", lambda: drift(ALL, 2, 0, make_vectors.riced([1, 2], [31])[0]), SHORT)
payload("drift", "bits behind low parts", lambda: drift(ALL, 1, 0, b"\x0c\xff"), "behind its last value")
payload("drift", "parameter 32", lambda: drift(ALL, 1, 0, b"".join(make_vectors.riced([1], [32]))), "not below 32")
payload("drift", "parameter -1", lambda: drift(ALL, 1, 0, make_vectors.riced([0], [-1])[0]), "not below 32")
payload(
    "drift", "parameter of millions", lambda: drift(ALL, 1, 0, bytes(1_000_000) + b"\x81" + bytes(9)), "not below 32"
)
payload(
    "drift", "value of 2**32", lambda: drift(0, 0, 1, b"".join(make_vectors.riced([1 << 32], [31]))), "2..32 or more"
)
payload(
    "drift", "value of 2**54", lambda: drift(0, 0, 1, from_unary([62, 1 << 23]) + bytes(4)), "2..32 or more"
)  # a megabyte of zeros
payload("drift", "too many weights", lambda: drift(1, 0, 0), LIMIT, **sizes(1 << 31))
payload("drift", "8 GB of ranks", lambda: drift(ALL, TOP >> 1, 0, bytes(1000)), LIMIT, **sizes(TOP >> 1))
payload("drift", "16 M of ranks", lambda: drift(ALL, 1 << 24, 0, b"\xff" * MIB), CANNOT, **sizes(1 << 25))
# Every block has weights to put in order.
payload(
    "drift",
    "as large as may be",
    lambda: drift(ALL, MOST // 1000, 0, riced([999] * (MOST // 1000))),
    "does not match",
    **sizes(MOST),
)


def from_unary(numbers: list[int]) -> bytes:
    return bytes(make_vectors.from_bits("".join("0" * number + "1" for number in numbers)))


attack(
    "drift: no initial mask", lambda: changed(lambda c: c.manifest.pop("initial")), "initial scores are not recorded"
)

PAIRS = {"codec": {"name": "nm", "n": 2, "m": 4}, "shape": [4, 8], "kept": 16}
payload("nm", "empty", lambda: b"", "pcodec payload", **PAIRS)
payload("nm", "symbol past the end", lambda: values([1296, 0]), "a symbol is not below 1296", **PAIRS)
payload("nm", "symbol far past the end", lambda: values([65_535] * 2), "a symbol is not below 1296", **PAIRS)
payload("nm", "fewer symbols", lambda: values([0]), "does not hold 2", **PAIRS)
payload("nm", "more symbols", lambda: values([0] * 3), "does not hold 2", **PAIRS)
payload("nm", "indivisible", lambda: values([0] * 3), "does not divide", **PAIRS | {"shape": [8, 6]})
payload("nm", "gigabytes of symbols", lambda: zeros(64), LIMIT, **PAIRS | sizes(1 << 32, 1 << 31))

attack("delta: no parent named", lambda: changed(lambda c: c.manifest.pop("parent")), "the manifest names none")
attack("delta: parent not there", lambda: changed(put("parent", "0" * 64)), "which is not at hand")


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, (make, _) in enumerate(ATTACKS.values()):
        (folder / f"{number:03}.msk").write_bytes(make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
