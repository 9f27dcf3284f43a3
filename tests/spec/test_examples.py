"""The worked examples of ``spec/format.md`` are right, recomputed without MaskHub's own code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from pcodec import standalone

from maskhub.container.reader import MaskFile

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
