"""The worked examples of ``spec/format.md`` are right, recomputed without MaskHub's own code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from pcodec import standalone

from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.masks.scores import Initial
from tests.spec.tools import load

SPEC = Path(__file__).parents[2] / "spec"
TEXT = (SPEC / "format.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


EXAMPLES = {title: lines for title, *lines in (part.strip().split("\n") for part in block("digests").split("\n\n"))}


@pytest.mark.parametrize("title", EXAMPLES)
def test_digest(title):
    hasher = blake3()
    *inputs, result = EXAMPLES[title]
    for line in inputs:
        kind, value = line.split(" ", 1)
        hasher.update(json.loads(value).encode() if kind == "text" else bytes.fromhex(value))
    digits = result.removeprefix("= ")
    assert len(digits) == (16 if title.startswith("# checksum") else 64)
    assert hasher.hexdigest()[: len(digits)] == digits


def parse_by_hand(content):
    """Header, manifest and payloads, as the text says."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    manifest = json.loads(header.pop("__metadata__")["maskhub"])
    payloads = {name: content[size:][slice(*entry["data_offsets"])] for name, entry in header.items()}
    return manifest, payloads


def test_the_file_is_the_example():
    manifest, payloads = parse_by_hand((SPEC / "example.msk").read_bytes())
    results = {title.removeprefix("# "): lines[-1].removeprefix("= ") for title, lines in EXAMPLES.items()}
    assert {
        "tensor proj.weight": manifest["base"]["tensors"]["proj.weight"],
        "tensor proj.bias": manifest["base"]["tensors"]["proj.bias"],
        "tensor head.bias": manifest["dense"]["head.bias"]["digest"],
        "mask proj.weight": manifest["masks"]["proj.weight"]["digest"],
        "base.root": manifest["base"]["root"],
        "id": manifest["id"],
        "checksum proj.weight": manifest["masks"]["proj.weight"]["checksum"],
        "checksum head.bias": manifest["dense"]["head.bias"]["checksum"],
    } == results
    assert f"hex {payloads['proj.weight'].hex()}" in EXAMPLES["# mask proj.weight"]
    assert f"hex {payloads['head.bias'].hex()}" in EXAMPLES["# tensor head.bias"]
    dropped = [i for i in range(10) if not payloads["proj.weight"][i // 8] >> i % 8 & 1]
    assert dropped == [2, 7]


def test_seal():
    content = (SPEC / "example.msk").read_bytes()
    (seal,) = re.findall(r"Its seal is `([0-9a-f]{64})`", TEXT)
    assert content.count(seal.encode()) == 1
    assert blake3(content.replace(seal.encode(), b"0" * 64)).hexdigest() == seal


def test_maskhub_reads_the_example():
    file = MaskFile(SPEC / "example.msk")
    file.verify()
    assert np.flatnonzero(~file.mask("proj.weight").to_bool()).tolist() == [2, 7]
    assert file.manifest.base.parameter("proj.weight") == "net.proj.weight"


def test_gaps():
    packed, kept, listed = re.search(
        r"packed bits `([0-9a-f]+)`, `kept` (\d+), .* distances ([\d, ]+)\.", TEXT
    ).groups()
    distances = standalone.simple_decompress(bytes.fromhex(block("gaps")))
    assert distances.dtype == np.uint16
    assert distances.tolist() == [int(number) for number in listed.split(",")]
    flags, position = [1] * 40, -1
    for distance in distances.tolist():
        position += 1 + distance
        flags[position] = 0
    assert sum(flags) == int(kept)
    assert bytes(sum(flags[i + j] << j for j in range(8)) for i in range(0, 40, 8)).hex() == packed


def test_drift():
    told = {name: values.split() for name, values in (line.split(maxsplit=1) for line in block("drift").splitlines())}
    numbers = {name: [int(value) for value in told[name]] for name in ("draws", "kept", "distances", "near", "changes")}
    draws, distances, near = numbers["draws"], numbers["distances"], numbers["near"]
    key = np.frombuffer(blake3(b"scores 1 w").digest(), "<u8", 2).tolist()
    assert told["key"] == [f"{word:016x}" for word in key]
    assert [int(told["word"][0], 16) >> shift & 0xFFFF for shift in (0, 16, 32, 48)] == draws[:4]
    assert load("reader").draws(1, "w", 0, 12).tolist() == draws
    assert [int(draw >= 20_000) for draw in draws] == numbers["kept"]
    assert [draw - 20_000 if draw >= 20_000 else 19_999 - draw for draw in draws] == distances
    assert sorted((i for i in range(12) if distances[i] < 10_000), key=lambda i: distances[i]) == near
    keep = [kept ^ (i in numbers["changes"]) for i, kept in enumerate(numbers["kept"])]
    assert [i for i in range(12) if not keep[i]] == [1, 3, 7, 8]

    payload = bytes.fromhex(told["payload"][0])
    assert np.frombuffer(payload, "<u4", 5).tolist() == [16, 10_000, 2, 1, 7]
    assert standalone.simple_decompress(payload[20:]).tolist() == [0, 2]
    assert sorted([near[0], near[3], 7]) == numbers["changes"]
    target = codecs.Target("w", (12,), sum(keep), Initial(seed=1, cut=20_000, low=0, high=1))
    bits = codecs.from_dict({"name": "drift"}).decode(np.frombuffer(payload, np.uint8), target)
    assert np.unpackbits(bits, count=12, bitorder="little").tolist() == keep


def test_nm():
    packed, first, second, low, high = re.search(
        r"has the packed bits `([0-9a-f]+)`, the words 0x(\w+) and 0x(\w+), and at 2:4 the symbols (\d+) and (\d+)\.",
        TEXT,
    ).groups()
    flags = [1, 1, 0, 0] * 5 + [0, 0, 1, 1]
    assert np.packbits(flags, bitorder="little").tobytes().hex() == packed
    filled = np.packbits([*flags, 1, 1, 0, 0, 1, 1, 0, 0], bitorder="little").view("<u2")
    assert filled.tolist() == [int(first, 16), int(second, 16)]
    groups = [bits for bits in range(16) if bits.bit_count() == 2]
    words = sorted(a | b << 4 | c << 8 | d << 12 for a in groups for b in groups for c in groups for d in groups)
    assert len(words) == int(re.search(r"For 2:4 there are (\d+), and 0x3333 is the first", TEXT)[1])
    assert words[0] == 0x3333
    assert [words.index(word) for word in filled] == [int(low), int(high)]
