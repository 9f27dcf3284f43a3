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

from maskhub.container.codecs import pco
from maskhub.container.codecs.drift import HEAD
from maskhub.container.reader import MAX_WEIGHTS
from tests.attacks.forge import changed, claim, container, honest, parts, put, raw

Make = Callable[[], bytes]
ATTACKS: dict[str, tuple[Make, str]] = {}

HUGE = 1 << 40  # weights
DEEP = 100_000


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
header("manifest twice", '{"__metadata__":{"maskhub":"","maskhub":""}}', b"", "the key 'maskhub' stands twice")
header("metadata twice", '{"__metadata__":{},"__metadata__":{}}', b"")
header("metadata null", '{"__metadata__":null,"a":' + ENTRY + "}", reason="no mask")
header("manifest no string", '{"__metadata__":{"maskhub":{}}}', b"")
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
    content = honest(*parts())
    return content.replace(b'"dtype": "U8"', b'"dtype": "I8"')


attack("header: payloads of I8", other_dtype, "has dtype I8, not U8")
attack(
    "header: 200,000 payloads",
    lambda: container(parts()[0], {f"{i:x}": b"" for i in range(200_000)}),
    "payload .* is missing from the manifest",
)

NOT_VALID = "the manifest is not valid"


def manifest(name: str, make: Callable[[], str], reason: str = NOT_VALID) -> None:
    attack(f"manifest: {name}", lambda: container(make(), parts()[1]), reason)


def with_text(fields: str) -> Callable[[], str]:
    """A manifest with JSON text put in as its first fields."""
    return lambda: "{" + fields + "," + json.dumps(parts()[0])[1:]


def field(name: str, path: str, value: Any, reason: str = NOT_VALID) -> None:
    attack(f"manifest: {name}", lambda: changed(put(path, value)), reason)


manifest("empty", lambda: "")
manifest("null", lambda: "null", "'format' is not 'maskhub'")
manifest("an array", lambda: "[]", "'format' is not 'maskhub'")
manifest("BOM", lambda: "\ufeff" + json.dumps(parts()[0]))
manifest("deep arrays", with_text('"x":' + "[" * DEEP + "]" * DEEP))
manifest("deep objects", with_text('"x":' + '{"x":' * DEEP + "0" + "}" * DEEP))
manifest("65 levels", with_text('"x":' + "[" * 64 + "]" * 64), "nested deeper than 63 objects and arrays")
manifest("10 MB of arrays", with_text('"x":{"x":[' + "[]," * 3_500_000 + "0]}"), "does not match")
manifest("50 MB string", with_text('"x":"' + "x" * 50_000_000 + '"'), "does not match")
manifest(
    "a million keys", with_text('"x":{' + ",".join(f'"{i:x}":0' for i in range(1_000_000)) + "}"), "does not match"
)
manifest("1e999", with_text('"x":1e999'))
manifest("NaN", with_text('"x":NaN'))
manifest("-Infinity", with_text('"x":-Infinity'))
manifest("long integer", with_text('"x":' + "1" * 1_000_000))
manifest("long metric", with_text('"metrics":{"a":' + "1" * 400 + "}"))
manifest("lone surrogate", with_text('"x":"\\udc00"'))
manifest("surrogate at the end", with_text('"x":"\\ud800"'))
manifest("raw control character", with_text('"x":"\x01"'))
manifest("key twice", with_text('"id":"' + "0" * 64 + '"'), "the key 'id' stands twice")
manifest("key twice, escaped", with_text('"\\u0069d":"' + "0" * 64 + '"'), "the key 'id' stands twice")
manifest("unknown key twice", with_text('"x":{"y":{"z":1,"z":1}}'), "the key 'z' stands twice")
field("version of 10 MB", "version", "1." + "0" * 10_000_000, "not a version")
field("version with a line", "version", "1.0\n", "not a version")
field("major 2", "version", "2.0", "this MaskHub reads 1")
field("format", "format", "MaskHub", "'format' is not 'maskhub'")
manifest("id of another length", lambda: json.dumps(parts()[0] | {"id": "0" * 63}))
manifest("id with a line", lambda: json.dumps(parts()[0] | {"id": "0" * 64 + "\n"}))
field("kept negative", "masks/gaps/kept", -1)
field("kept a float", "masks/gaps/kept", 500.0)
field("kept true", "masks/gaps/kept", True)
field("kept beyond 64 bits", "masks/gaps/kept", 1 << 70)
field("kept too large", "masks/gaps/kept", 631, "keeps 631 weights, more than its shape has")
field("shape negative", "masks/gaps/shape", [-1])
field("shape of 9 dimensions", "masks/gaps/shape", [1] * 9)
field("shape of a million dimensions", "masks/gaps/shape", [1] * 1_000_000)
field("shape overflows", "masks/gaps/shape", [1 << 62] * 8, "impossible shape")
field("shape empty and huge", "masks/gaps/shape", [0, 1 << 62], "impossible shape")
field("dense shape overflows", "dense/head/shape", [1 << 62] * 8, "impossible shape")
field("dense shape", "dense/head/shape", [HUGE], "another size than its dtype and shape")
field("dense dtype", "dense/head/dtype", "F33", "unknown dtype")
field("codec null", "masks/gaps/codec", None)
field("codec unknown", "masks/gaps/codec", {"name": "pickle"}, "unknown codec 'pickle'")
field("codec with a colon", "masks/nm/codec", {"name": "nm:2:4", "n": 2, "m": 4}, "unknown codec 'nm:2:4'")
field("codec of 10 MB", "masks/gaps/codec", {"name": "x" * 10_000_000}, "unknown codec")
field("dense dtype of 10 MB", "dense/head/dtype", "x" * 10_000_000, "unknown dtype")
field("codec deep", "masks/gaps/codec", {"name": [[[[0]]]]}, "unknown codec")
field("width 64", "masks/gaps/codec", {"name": "gaps", "width": 64}, "codec 'gaps'")
field("n of m", "masks/nm/codec", {"name": "nm", "n": 4, "m": 4}, "N is below M")
field("m unknown", "masks/nm/codec", {"name": "nm", "n": 1, "m": 1 << 30}, "codec 'nm'")
field("count negative", "masks/delta/codec", {"name": "delta", "count": -1, "width": 16}, "codec 'delta'")
field("cut out of range", "initial/cut", (1 << 16) + 1)
field("seed out of range", "initial/seed", 1 << 32)
field("another generator", "initial/generator", "os.urandom")
field("checksum short", "masks/gaps/codec", {"name": "gaps"}, "missing required field `width`")
field("two parameters alike", "base/parameters", {"gaps": "head"}, "two tensors for one parameter")
field("long prefix", "base/parameter_prefix", "x" * 10_000_000)
field("prefix that steers", "base/parameter_prefix", "\x1b[2J")
for what, bad in {
    "empty": "", "NUL": "a\0b", "newline": "a\nb", "newline at the end": "a\n", "escape": "\x1b[2J", "DEL": "\x7f",
    "1025 characters": "x" * 1025, "a million characters": "x" * 1_000_000,
}.items():  # fmt: skip

    def renamed(m: dict[str, Any], p: dict[str, bytes], bad: str = bad) -> None:
        m["base"]["tensors"][bad] = m["base"]["tensors"]["gaps"]
        m["masks"][bad], p[bad] = m["masks"].pop("gaps"), p.pop("gaps")

    attack(f"manifest: name {what}", lambda renamed=renamed: changed(renamed), NOT_VALID)

attack("lies: payload missing", lambda: changed(lambda m, p: p.pop("gaps")), "gaps is missing from the file")
attack("lies: dense missing", lambda: changed(lambda m, p: p.pop("head")), "head is missing from the file")
attack("lies: payload too many", lambda: changed(lambda m, p: p.update(x=b"1")), "x is missing from the manifest")
attack(
    "lies: masked and dense",
    lambda: changed(lambda m, p: m["dense"].update(gaps=m["dense"]["head"])),
    "gaps is both masked and dense",
)
attack(
    "lies: not of the base",
    lambda: changed(lambda m, p: m["base"]["tensors"].pop("gaps")),
    "base binding does not list",
)
attack("lies: id", lambda: honest(parts()[0] | {"id": "0" * 64}, parts()[1], id=False), "id does not match")
attack("lies: digest", lambda: changed(put("masks/gaps/digest", "0" * 64)), "does not match its digest")
attack("lies: dense digest", lambda: changed(put("dense/head/digest", "0" * 64)), "does not match its digest")
attack("lies: kept of bits", lambda: changed(put("masks/bits/kept", 3)), "does not match its digest")
attack("lies: kept of gaps", lambda: changed(put("masks/gaps/kept", 400)), "does not hold 230 values")
attack("lies: shape turned", lambda: changed(put("masks/gaps/shape", [70, 9])), "does not match its digest")
attack("lies: another codec", lambda: changed(put("masks/gaps/codec", {"name": "zstd"})), "codec 'zstd'")
attack(
    "lies: root", lambda: container(parts()[0] | {"base": parts()[0]["base"] | {"root": "0" * 64}}, parts()[1]), "root"
)
attack("lies: seal", lambda: container(parts()[0], parts()[1]), "seal|does not match")


def payload(name: str, what: str, content: Callable[[], bytes], reason: str, **more: Any) -> None:
    attack(f"{name}: {what}", lambda: changed(claim(name, content(), **more)), reason)


def sizes(weights: int, kept: int = 0) -> dict[str, Any]:
    return {"shape": [weights], "kept": kept}


payload("bits", "empty", lambda: b"", "where the shape needs 3")
payload("bits", "too long", lambda: bytes(4), "where the shape needs 3")
payload("bits", "a gigabyte", lambda: bytes(4), "where the shape needs 1073741824", **sizes(1 << 33))
payload("bits", "claims terabytes", lambda: bytes(4), "a payload of 4 bytes", **sizes(HUGE))


def rle(size: int, last: bool = False) -> bytes:
    """A Zstandard block of equal bytes."""
    return struct.pack("<I", size << 3 | 2 | last)[:3] + b"\0"


def frame(declared: int, blocks: bytes, window: int | None = None) -> bytes:
    """A Zstandard frame; ``window`` is the logarithm of its window's size, else it is in one segment."""
    head = b"\xe0" if window is None else bytes([0xC0, window - 10 << 3])
    return b"\x28\xb5\x2f\xfd" + head + struct.pack("<Q", declared) + blocks


FULL = rle(1 << 17)
SKIPPED = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
FRAME = frame(100, rle(100, True))
BITS = sizes(800)
payload("zstd", "empty", lambda: b"", "does not begin with a frame", **BITS)
payload("zstd", "no frame", lambda: bytes(100), "does not begin with a frame", **BITS)
payload("zstd", "holds more", lambda: frame(100, rle(101, True)), "codec 'zstd'", **BITS)
payload("zstd", "holds far more", lambda: frame(100, FULL * 16_000 + rle(1, True)), "codec 'zstd'", **BITS)
payload("zstd", "holds less", lambda: frame(100, rle(99, True)), "codec 'zstd'", **BITS)
payload("zstd", "never ends", lambda: frame(100, rle(100)), "codec 'zstd'", **BITS)
payload("zstd", "two frames", lambda: FRAME + FRAME, "codec 'zstd'", **BITS)
payload("zstd", "two frames, both counted", lambda: FRAME + FRAME, "declares 100 bytes", **sizes(1600))
payload("zstd", "skippable frame before", lambda: SKIPPED + FRAME, "codec 'zstd'", **BITS)
payload("zstd", "skippable frame behind", lambda: FRAME + SKIPPED, "codec 'zstd'", **BITS)
payload("zstd", "skippable frame alone", lambda: SKIPPED, "codec 'zstd'", **sizes(0))
payload("zstd", "empty frame and more", lambda: frame(0, rle(0, True)) + b"x", "not an empty frame", **sizes(0))
payload("zstd", "empty frame of nonsense", lambda: frame(0, b"\xff\xff"), "codec 'zstd'", **sizes(0))
payload("zstd", "no size", lambda: b"\x28\xb5\x2f\xfd\0\x38" + rle(100, True), "declares -1 bytes", **BITS)
payload("zstd", "a window of 2**41", lambda: frame(100, rle(100, True), 41), "codec 'zstd'", **BITS)
payload("zstd", "a window of 2 GB", lambda: frame(100, rle(101, True), 31), "a window of 2147483648 bytes", **BITS)
payload("zstd", "2**64 - 1 bytes", lambda: frame((1 << 64) - 1, rle(100, True)), "codec 'zstd'", **BITS)
payload(
    "zstd",
    "a gigabyte of nothing",
    lambda: frame(1 << 30, rle(100, True)),
    "cannot hold the 1073741824",
    **sizes(8 << 30),
)
payload(
    "zstd", "ends early", lambda: frame(1 << 30, FULL * 16 + b"\0" * 32_768), "codec 'zstd'", **sizes(8 << 30)
)  # enough bytes for what it declares
payload("zstd", "claims terabytes", lambda: frame(HUGE >> 3, rle(100, True)), "a payload of 17 bytes", **sizes(HUGE))
payload("zstd", "a dictionary", lambda: b"\x28\xb5\x2f\xfd\x21\x07\x64" + rle(100, True), "codec 'zstd'", **BITS)


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
payload("gaps", "4 GB of numbers", lambda: zeros(64), "bytes for 1073741824 values", **sizes(1 << 31, 1 << 30), **WIDE)
payload("gaps", "claims terabytes", lambda: values([0]), "a payload of", **sizes(HUGE, 1), **NARROW)
payload("gaps", "claims terabytes, all kept", lambda: b"", "a payload of 0 bytes", **sizes(HUGE, HUGE), **NARROW)
payload("gaps", "claims all there can be", lambda: b"", "a payload of 0 bytes", **sizes(MAX_WEIGHTS, 1), **WIDE)
payload("gaps", "no memory", lambda: b"", "no memory for a mask", **sizes(1 << 35, 1 << 35), **NARROW)


def drift(width: int, window: int, near: int, far: list[int], rest: bytes = b"", claimed: int | None = None) -> bytes:
    head = np.array((width, window, near, len(far) if claimed is None else claimed), HEAD)
    return head.tobytes() + np.array(far, "<u4").tobytes() + rest


TOP = (1 << 32) - 1
payload("drift", "empty", lambda: b"", "shorter than its head")
payload("drift", "width", lambda: drift(8, 1, 0, []), "claims what cannot be")
payload("drift", "window", lambda: drift(16, (1 << 16) + 1, 0, []), "claims what cannot be")
payload("drift", "near", lambda: drift(16, 1, 401, []), "claims what cannot be")
payload("drift", "near and far", lambda: drift(16, 1, 400, [0]), "claims what cannot be")
payload("drift", "all there can be", lambda: drift(32, 1 << 16, TOP, [], b"", TOP), "claims what cannot be")
payload("drift", "far cut short", lambda: drift(16, 1, 0, [1], b"", 2), "claims what cannot be")
payload("drift", "far past the end", lambda: drift(16, 1, 0, [400]), "past the end")
payload("drift", "far far past the end", lambda: drift(16, 1, 0, [1, TOP]), "past the end")
payload("drift", "far out of order", lambda: drift(16, 1, 0, [2, 1]), "out of order")
payload("drift", "far twice", lambda: drift(16, 1, 0, [1, 1]), "out of order")
payload("drift", "rank past the end", lambda: drift(16, 1 << 16, 1, [], values([400])), "past the end")
payload("drift", "rank past the window", lambda: drift(16, 0, 1, [], values([0])), "past the end")
payload("drift", "ranks far past", lambda: drift(32, 1 << 16, 400, [], values([TOP] * 400, 32)), "past the end")
payload("drift", "fewer ranks", lambda: drift(16, 1 << 16, 3, [], values([0, 0])), "does not hold 3")
payload("drift", "more ranks", lambda: drift(16, 1 << 16, 1, [], values([0, 0])), "does not hold 1")
payload("drift", "bytes for no ranks", lambda: drift(16, 1 << 16, 0, [], b"x"), "for no values")
payload("drift", "too many weights", lambda: drift(16, 1, 0, []), "is the limit", **sizes(1 << 31))
payload(
    "drift", "8 GB of ranks", lambda: drift(32, 1 << 16, TOP >> 1, [], zeros(128)), "claims|values", **sizes(TOP >> 1)
)
attack("drift: no initial mask", lambda: changed(lambda m, p: m.pop("initial")), "initial scores are not recorded")

PAIRS = {"codec": {"name": "nm", "n": 2, "m": 4}, "shape": [4, 8], "kept": 16}
payload("nm", "empty", lambda: b"", "pcodec payload", **PAIRS)
payload("nm", "symbol past the end", lambda: values([1296, 0]), "a symbol is not below 1296", **PAIRS)
payload("nm", "symbol far past the end", lambda: values([65_535] * 2), "a symbol is not below 1296", **PAIRS)
payload("nm", "fewer symbols", lambda: values([0]), "does not hold 2", **PAIRS)
payload("nm", "more symbols", lambda: values([0] * 3), "does not hold 2", **PAIRS)
payload("nm", "indivisible", lambda: values([0] * 3), "does not divide", **PAIRS | {"shape": [8, 6]})
payload("nm", "gigabytes of symbols", lambda: zeros(64), "codec|pcodec", **PAIRS | sizes(1 << 32, 1 << 31))

attack("delta: no parent named", lambda: changed(lambda m, p: m.pop("parent")), "the manifest names none")
attack("delta: parent not there", lambda: changed(put("parent", "0" * 64)), "which is not at hand")


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, (make, _) in enumerate(ATTACKS.values()):
        (folder / f"{number:03}.msk").write_bytes(make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
