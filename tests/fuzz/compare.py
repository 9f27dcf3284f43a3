"""MaskHub's reader and the one of ``spec/`` judge changed files alike: ``python -m tests.fuzz.compare [COUNT [SEED]]``.

Test vectors are changed inside the manifest, in coded masks, dense tensors, metadata, frames or the header, and get the
digests, metadata and seal that then belong to them, so that it is not these that both readers find. Prints each file on
which they disagree.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.errors import MaskhubError
from maskhub.masks.mask import count_ones
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from tests.fuzz.cases import drift_payload
from tests.spec.tools import SPEC, load

reader = load("reader")
make_vectors = load("make_vectors")

FOLDER = SPEC / "vectors"
LISTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))["files"]
GOOD = {
    name: said
    for name, said in LISTED.items()
    if "why" not in said and sum(math.prod(mask["shape"]) for mask in said["masks"].values()) < 1 << 16
}
DRIFT = [name for name, said in GOOD.items() if any(mask["codec"] == "drift" for mask in said["masks"].values())]
LEFT_OPEN = {"limit.file", "limit.list"}  # what the text leaves to each reader

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2.0, 0.5, 1e308, 2, 7, 8, 16, 32, 255, 65_536, 1 << 20, 1 << 32, 1 << 48, 1 << 62,
    1 << 63, 1 << 64, 10**30, 10**308, "", "x", "w", "1.0", "01.0", "1.00", "1.1", "2.0", "1.0\n", "0" * 64, "F" * 64,
    "0" * 63 + "\n", "0" * 16, "a" * 1024, "a" * 1025, "ü" * 1024, "\x00", "\x1b", "\x7f", "\x80", "\u2028", "\ud800",
    "\udc00", "\ud800\udc00", "__metadata__", "bits", "zstd", "gaps", "drift", "nm", "delta", "philox4x64-10", "F32",
    "U8", "BOOL", "F8_E8M0", "F4", [], [0], [1], [24], [24, 1], [1] * 8, [1] * 9, [2**24, 2**24], [2**24, 2**24, 0],
    [2**24, 2**24 + 1, 0], [True], [1.0], ["1"], {}, {"a": 1}, {"": 1}, {"name": "bits"},
    {"name": "gaps", "width": 16}, {"name": "nm", "n": 2, "m": 4}, {"name": "delta", "count": 0, "width": 32},
    {"w": "x"}, {"w": "0" * 64},
]  # fmt: skip
# JSON as text, also what is none: it stands where a value was.
RAW = [
    "NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999", "1e308", "1e-999", "1E2", "1e2", "1e0", "3.0", "-0",
    "-0.0", "00", "01", "+1", ".5", "1.", "0x1", "1" + "0" * 309, "-1" + "0" * 309, "1" + "0" * 308, "9" * 5000,
    "17" + "9" * 307, "1.7976931348623158e308", "1.7976931348623159e308", '"\\ud800"', '"\\udc00\\ud800"',
    '"\\ud83d\\ude00"', '"\\u0000"', '"\x01"', '"\\x"', '"\\u12"', "[" * 60 + "]" * 60, "[" * 61 + "]" * 61,
    "[" * 62 + "]" * 62, "[" * 63 + "]" * 63, '{"a":' * 61 + "{}" + "}" * 61, '{"a":' * 62 + "1" + "}" * 62,
    "[" * 2000 + "]" * 2000, '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', "{,}", "[1,]", "/**/1", "1 ", "\ufeff1", "tru",
    "None", "'a'", "",
]  # fmt: skip


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        if value:
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def change_value(value: Any, rng: random.Random, odd: Any) -> None:
    """Set, drop, add or copy something at a random place of a JSON value, in place."""
    places = list(containers(value))
    if not places:
        return
    place, odd = rng.choice(places), copy.deepcopy(odd)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = rng.choice(keys)
    match rng.randrange(8):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[rng.choice(("new", "", "w", "v", "__metadata__", "x" * 1025, "\x1b"))] = odd
        case 2 if isinstance(place, dict):
            place[rng.choice(("initial", "parent", "dense", "task", "metrics", "hub", "parameters", "width"))] = odd
        case 3:
            place[key] = copy.deepcopy(place[rng.choice(keys)])
        case 4 if isinstance(place[key], str) and place[key]:
            at = rng.randrange(len(place[key]))
            place[key] = place[key][:at] + rng.choice("0aAfgÄ\n.") + place[key][at + 1 :]
        case 5 if type(place[key]) is int:
            place[key] += rng.choice((-1, 1, 8, -8))
        case _:
            place[key] = odd


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(content))
        content[at : at + rng.randint(0, 2)] = rng.choice((b"", b"\0", b"\xff", rng.randbytes(1), rng.randbytes(2)))
    return bytes(content)


def follow(parts: Any, rng: random.Random, parents: list[Path]) -> None:
    """Make what can follow from the rest do so; digests and counts of masks and tensors, too, half of the time."""
    manifest = parts.manifest
    if rng.random() < 0.5:
        with contextlib.suppress(Exception):  # what cannot be decoded keeps its digest
            initial = msgspec.convert(manifest.get("initial"), Initial | None)
            above = MaskFile(parents[0], parents[1:]) if parents else None
            for name, entry in manifest["masks"].items():
                shape = tuple(entry["shape"])
                parent = above.mask(name) if above and entry["codec"]["name"] == "delta" else None
                target = codecs.Target(name, shape, entry["kept"], initial, parent)
                bits = codecs.from_dict(entry["codec"]).decode(np.frombuffer(parts.masks[name], np.uint8), target)
                entry |= {"digest": digest.mask_digest(shape, bits), "kept": count_ones(bits)}
        with contextlib.suppress(Exception):
            for name, tensor in parts.dense.items():
                manifest["dense"][name] = digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data)
    if rng.random() < 0.95:
        with contextlib.suppress(Exception):  # where the manifest cannot be followed any more
            make_vectors.follow(parts)


def change_mask(parts: Any, drifts: dict[str, int], rng: random.Random) -> None:
    """Change the bytes of a coded mask; those of ``drift`` often as it is built, its head and its Rice lists."""
    name = rng.choice(sorted(drifts.keys() & parts.masks.keys() or parts.masks))
    if name in drifts and rng.random() < 0.6:
        count = rng.choice((0, 1, 2, min(drifts[name] // 3, 127), min(drifts[name] // 3, 129)))
        parts.masks[name] = drift_payload(rng, [rng.choice((0, 0, 1, 2, rng.randrange(9))) for _ in range(count)])
        return
    parts.masks[name] = change_bytes(parts.masks[name], rng)


def change_dense(parts: Any, rng: random.Random) -> None:
    name = rng.choice(sorted(parts.dense))
    tensor = parts.dense[name]
    match rng.randrange(5):
        case 0:
            data = np.frombuffer(change_bytes(tensor.data.tobytes(), rng), np.uint8)
            parts.dense[name] = RawTensor(tensor.dtype, tensor.shape, data)
        case 1:
            dtype = rng.choice(("F4", "F6_E2M3", "F8_E8M0", "BOOL", "F32", "I8", "C64", "F7"))
            parts.dense[name] = RawTensor(dtype, tensor.shape, tensor.data)
        case 2:
            shape = rng.choice(((*tensor.shape, 1), (1, *tensor.shape), tensor.shape[::-1], (*tensor.shape, *[1] * 7)))
            parts.dense[name] = RawTensor(tensor.dtype, shape, tensor.data)
        case 3:
            parts.dense[rng.choice(("x", "", "\x1b", "w", "ü" * 1024))] = parts.dense.pop(name)
        case _:
            parts.dense[rng.choice(("x", "", "\x1b"))] = RawTensor("U8", (0, 1 << 49), np.empty(0, np.uint8))


def changed_frame(text: bytes, rng: random.Random) -> bytes:
    """The manifest's frame, or what is none."""
    packed = make_vectors.packed
    match rng.randrange(10):
        case 0:
            return change_bytes(packed(text, level=1), rng)
        case 1:
            return packed(text, level=1, write_content_size=False)  # type: ignore[no-any-return]
        case 2:
            return packed(text, level=rng.choice((-5, 1, 19)), write_checksum=True)  # type: ignore[no-any-return]
        case 3:
            behind = (b"\0", packed(b""), make_vectors.SKIPPABLE, packed(text))
            return packed(text) + rng.choice(behind)  # type: ignore[no-any-return]
        case 4:
            return make_vectors.SKIPPABLE + packed(text)  # type: ignore[no-any-return]
        case 5:
            window = make_vectors.LARGEST_WINDOW + rng.choice((-8, 0, 1, 8))
            size = len(text) + rng.choice((-1, 0, 0, 1))
            return make_vectors.framed(text, window, size)  # type: ignore[no-any-return]
        case 6:
            return rng.choice((text, b"", packed(b""), packed(b"\xef\xbb\xbf" + text), packed(text + b" \n")))
        case 7:
            return packed(
                rng.choice((text.decode(errors="replace").encode("utf-16"), text + b"{}", b" " + text, b"[]"))
            )  # type: ignore[no-any-return]
        case _:
            return packed(change_bytes(text, rng))  # type: ignore[no-any-return]


def changed(content: bytes, parents: list[Path], rng: random.Random) -> bytes:
    """The file with a change or two behind digests that agree."""
    parts = make_vectors.parts(content)
    entries = parts.manifest["masks"].items()
    drifts = {name: math.prod(entry["shape"]) for name, entry in entries if entry["codec"] == {"name": "drift"}}
    mark = None
    for _ in range(rng.choice((1, 1, 1, 2))):
        match rng.randrange(12):
            case 0 | 1 | 2 if parts.masks:
                change_mask(parts, drifts, rng)
            case 3 if parts.dense:
                change_dense(parts, rng)
            case 4 | 5:
                mark = "MARK"
                change_value(parts.manifest, rng, mark)
            case 6:
                continue  # something below, or nothing
            case _:
                change_value(parts.manifest, rng, rng.choice(ODD))
    follow(parts, rng, parents)
    if rng.random() < 0.1:
        change_value(parts.plain, rng, rng.choice(["", "maskhub", "1.0", "1.1", "2.0", "0" * 64, "\ud800", None, {}]))
    if rng.random() < 0.05:
        with contextlib.suppress(Exception):  # more or fewer bytes than all masks take together
            name = rng.choice(sorted(parts.masks))
            parts.masks[name] = rng.choice((parts.masks[name][:-1], parts.masks[name] + b"x"))
    text = json.dumps(parts.manifest, ensure_ascii=rng.random() < 0.5)
    if mark:
        text = text.replace(f'"{mark}"', rng.choice(RAW))
    raw = text.encode("utf-8", "surrogatepass")
    frame = changed_frame(raw, rng) if rng.random() < 0.15 else make_vectors.packed(raw, level=1)
    payloads = list(make_vectors.payloads(parts, frame).items())
    if rng.random() < 0.2:
        rng.shuffle(payloads)
    header, offset = {"__metadata__": parts.plain}, 0
    for name, tensor in payloads:
        stop = offset + tensor.data.size
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    head = changed_header(header, rng) if rng.random() < 0.2 else json.dumps(header).encode()
    data = b"".join(tensor.data.tobytes() for _, tensor in payloads)
    if rng.random() < 0.03:
        data = change_bytes(data, rng)
    return make_vectors.resealed(len(head).to_bytes(8, "little") + head + data)  # type: ignore[no-any-return]


def changed_header(header: dict[str, Any], rng: random.Random) -> bytes:
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    raw: Callable[[], bytes] = lambda: json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")  # noqa: E731
    match rng.randrange(10):
        case 0:
            return rng.choice((b" ", b"\n", b"\t", b"\xef\xbb\xbf")) + raw()
        case 1:
            return raw() + rng.choice((b" ", b"\n", b"\t\r", b"\0", b"x", b"{}"))
        case 2 if entries:
            name = rng.choice(list(entries))
            header[name] = list(entries[name].values())
        case 3 if entries:
            name = rng.choice(list(entries))
            again = json.dumps({rng.choice((name, "__metadata__")): entries[name]})[1:]
            return raw()[:-1] + b"," + again.encode()
        case 4:
            header["__metadata__"][rng.choice(("other", "", "maskhub"))] = rng.choice(("x", "\ud800", "", 1, None, {}))
        case 5:
            header["__metadata__"] = rng.choice((None, [], {}, "x", {"format": None}, {"format": "maskhub"}))
        case 6:
            header[rng.choice(("extra", "", "\x1b"))] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        case 7 if entries:
            entry = rng.choice(list(entries.values()))
            entry[rng.choice(("new", "dtype", "shape", "data_offsets"))] = copy.deepcopy(rng.choice(ODD))
        case 8:
            return raw().replace(b"}", b"}" + rng.choice((b" ", b"\n", b"")), 1)
        case _ if entries:
            change_value(entries, rng, rng.choice(ODD))
            return json.dumps({"__metadata__": header["__metadata__"], **entries}).encode("utf-8", "surrogatepass")
    return raw()


Verdict = tuple[str, str]  # of what was found, or why it was refused


def judged(read: Callable[[], dict[str, bytes]]) -> Verdict:
    try:
        return "accepted", blake3(repr(sorted(read().items())).encode()).hexdigest()
    except MaskhubError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except reader.RefusedError as error:
        return "refused", f"{error.rule}: {error}"


def judge(path: Path, parents: list[Path]) -> tuple[Verdict, Verdict]:
    """What MaskHub's reader says of a file, and the other one."""

    def ours() -> dict[str, bytes]:
        file = MaskFile(path, parents)
        file.verify()
        masks = {f"mask {name}": file.mask(name).bits.tobytes() for name in file.manifest.masks}
        found = masks | {name: file.dense(name).data.tobytes() for name in file.manifest.dense}
        return found | {"id": file.manifest.id.encode()}

    def theirs() -> dict[str, bytes]:
        file = reader.File(path, parents)
        reader.describe(file)
        masks = {f"mask {name}": file.mask(name) for name in file.manifest["masks"]}
        return masks | {name: file.dense(name) for name in file.tensors} | {"id": file.id.encode()}

    return judged(ours), judged(theirs)


def compare(count: int, seed: int, folder: Path) -> tuple[list[str], Counter[str]]:
    """Disagreements over so many changed files, and how often what was found."""
    rng = random.Random(seed)
    found: list[str] = []
    counts: Counter[str] = Counter()
    path = folder / "x.msk"
    for number in range(count):
        name = rng.choice(DRIFT if rng.random() < 0.2 else sorted(GOOD))
        parents = [FOLDER / other for other in GOOD[name].get("parents", [])]
        path.write_bytes(changed((FOLDER / name).read_bytes(), parents, rng))
        ours, theirs = judge(path, parents)
        rule = re.match("[a-z.*_]+", theirs[1]) if theirs[0] == "refused" else None
        counts["accepted by both" if ours[0] == theirs[0] == "accepted" else rule[0] if rule else "accepted"] += 1
        same = ours[0] == theirs[0] and (ours == theirs or ours[0] == "refused")
        if not same and not (rule and rule[0] in LEFT_OPEN):
            kept = folder / f"disagreement-{number}.msk"
            kept.write_bytes(path.read_bytes())
            found.append(f"{kept} ({name}): {ours} and {theirs}"[:1000])
            print(found[-1], flush=True)
    return found, counts


def main(count: int = 20_000, seed: int = 0) -> int:
    folder = Path(mkdtemp(prefix="maskhub-compare-"))
    found, counts = compare(count, seed, folder)
    print(f"{count} files, {len(found)} disagreements; {dict(counts.most_common())}")
    if not found:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
