"""The worked examples of ``spec/format.md`` are right, recomputed without MaskHub's own code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from pcodec import standalone

from maskhub.container import codecs
from maskhub.container.codecs import rice
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
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
    assert hasher.hexdigest() == result.removeprefix("= ")


FILE = (SPEC / "example.msk").read_bytes()
SIZE = 8 + int.from_bytes(FILE[:8], "little")
HEADER = json.loads(FILE[8:SIZE])
PAYLOADS = {n: FILE[SIZE:][slice(*e["data_offsets"])] for n, e in HEADER.items() if n != "__metadata__"}
MANIFEST = zstandard.decompress(PAYLOADS["maskhub.manifest"])


def test_the_file_is_the_example():
    manifest = json.loads(MANIFEST)
    results = {title.removeprefix("# "): lines[-1].removeprefix("= ") for title, lines in EXAMPLES.items()}
    full = {name: results.pop(f"tensor {name}") for name in ("proj.weight", "proj.bias")}
    assert {name: digits[:16] for name, digits in full.items()} == manifest["base"]["tensors"]
    assert {
        "tensor head.bias": manifest["dense"]["head.bias"],
        "mask proj.weight": manifest["masks"]["proj.weight"]["digest"],
        "base.root": manifest["base"]["root"],
        "id": HEADER["__metadata__"]["id"],
    } == results
    assert f"hex {PAYLOADS['maskhub.masks'].hex()}" in EXAMPLES["# mask proj.weight"]
    assert f"hex {PAYLOADS['head.bias'].hex()}" in EXAMPLES["# tensor head.bias"]
    dropped = [i for i in range(10) if not PAYLOADS["maskhub.masks"][i // 8] >> i % 8 & 1]
    assert dropped == [2, 7]


def test_seal():
    (seal,) = re.findall(r"Its seal is `([0-9a-f]{64})`", TEXT)
    assert FILE.count(seal.encode()) == 1
    assert blake3(FILE.replace(seal.encode(), b"0" * 64)).hexdigest() == seal
    assert HEADER["__metadata__"]["seal"] == seal


APPENDIX = TEXT.partition("\n## Appendix")[2]


def test_the_appendix_has_every_byte():
    at = 0
    for dump in re.findall(r"```bytes\n(.*?)```", APPENDIX, re.DOTALL):
        for line in dump.splitlines():
            place, digits = line.split()
            assert int(place, 16) == at
            assert FILE[at : at + len(digits) // 2].hex() == digits
            at += len(digits) // 2
    assert at == len(FILE)
    assert re.search(r"`\]\(example\.msk\), ([\d,]+) bytes", APPENDIX)[1] == f"{len(FILE)}"
    assert re.search(r"length of the header, (\d+) bytes", APPENDIX)[1] == f"{SIZE - 8}"
    assert re.search(r"Decompressed, (\d+) bytes", APPENDIX)[1] == f"{len(MANIFEST)}"


@pytest.mark.parametrize("language", ["header", "manifest"])
def test_the_appendix_shows_what_the_bytes_say(language):
    said = {"header": FILE[8:SIZE].rstrip(b" "), "manifest": MANIFEST}[language]
    assert json.dumps(json.loads(block(language)), separators=(",", ":")).encode() == said


def test_the_example_is_what_maskhub_writes(tmp_path):
    save(MaskFile(SPEC / "example.msk").maskset(), tmp_path / "again.msk")
    assert (tmp_path / "again.msk").read_bytes() == FILE


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


def unriced(data, count):
    """The values of a list in one chunk, bit by bit."""
    bits = "".join(f"{byte:08b}"[::-1] for byte in data)
    numbers, at = [], 0
    for _ in range(1 + count):
        end = bits.index("1", at)
        numbers.append(end - at)
        at = end + 1
    k, high = numbers[0] // 2, numbers[1:]
    assert not numbers[0] % 2
    start = -(-at // 8) * 8
    low = [bits[start + i * k : start + (i + 1) * k] for i in range(count)]
    used = start + count * k
    assert "1" not in bits[at:start] + bits[used:]
    assert len(data) == -(-used // 8)
    return [value * 2**k + int(digits[::-1] or "0", 2) for value, digits in zip(high, low, strict=True)]


def test_rice():
    first, second, third, k, *numbers = map(
        int,
        re.search(
            r"The values (\d+), (\d+) and (\d+) can be a list with the parameter (\d+): "
            r"the unary numbers (\d+), (\d+), (\d+) and (\d+), and the low parts (\d+), (\d+) and (\d+)\.",
            TEXT,
        ).groups(),
    )
    values, payload = [first, second, third], bytes.fromhex(block("rice"))
    assert numbers == [2 * k, *(v // 2**k for v in values), *(v % 2**k for v in values)]
    assert unriced(payload, 3) == values
    found, rest = rice.decompress(np.frombuffer(payload, np.uint8), 3)
    assert (found.tolist(), rest.size) == (values, 0)
    assert rice.compress(np.array(values)) == payload


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
    assert payload[:4] == bytes([10_000 % 128 | 128, 10_000 // 128, 2, 1])
    assert unriced(payload[4:5], 2) == [0, 2]
    assert unriced(payload[5:], 1) == [7]
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


def test_the_manifest_is_read_in_three_lines(tmp_path, monkeypatch):
    text = (SPEC / "one-minute.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.split("\n\n", 1)[-1].splitlines()) == 2  # below its imports
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.msk").write_bytes((SPEC / "example.msk").read_bytes())
    found = {}
    exec(code, found)
    assert found["manifest"] == json.loads(MaskFile(SPEC / "example.msk").manifest_text)
    assert all(f"`{key}`" in text for key in ("base", "masks", "dense", "task", "initial", "metrics", "lineage"))
