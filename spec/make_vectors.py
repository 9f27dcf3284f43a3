"""Write the test vectors: small ``.msk`` files, with what a reader must find in each, or why it must refuse it.

``vectors/vectors.json`` lists them. Files that are there stay as they are, for a vector of a released version never
changes; new ones are added by name::

    python spec/make_vectors.py                    # says how what it would write differs from what is there
    python spec/make_vectors.py --new NAME ...     # adds files
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import rfc8785
import zstandard
from blake3 import blake3
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from maskhub.checkpoints.apply import drop
from maskhub.container.codecs import pco, rice
from maskhub.container.manifest import MANIFEST, MASKS, MOST, VERSION
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, HubRevision, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial, draw
from maskhub.storage import digest
from maskhub.storage.tensor import ITEM_SIZE, RawTensor

FOLDER = Path(__file__).parent / "vectors"
LONG = 512  # packed bytes; longer masks are listed by their digest only
INITIAL = Initial(seed=11, cut=3000, low=-0.02, high=0.58)
LEVEL = 22

Flags = NDArray[np.bool_]
Vector = tuple[bytes, dict[str, Any]]  # content, and what vectors.json says of it


@dataclasses.dataclass
class Parts:
    """All that a file holds: a change may change any of it."""

    manifest: dict[str, Any]
    plain: dict[str, Any]  # the metadata
    masks: dict[str, bytes]  # coded
    dense: dict[str, RawTensor]


Change = Callable[[Parts], object]


def random(name: str, shape: tuple[int, ...], dropped: int = 6554) -> Flags:
    """About ``dropped`` of 65536 weights dropped, at random; the same for ever."""
    return (draw(2024, name, math.prod(shape)) >= dropped).reshape(shape)


def pattern(name: str, shape: tuple[int, ...], n: int, m: int) -> Flags:
    """``n`` of ``m`` kept, at random."""
    groups = draw(2024, name, math.prod(shape)).reshape(-1, m)
    ranks = groups.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (ranks < n).reshape(shape)


def started(name: str, shape: tuple[int, ...], initial: Initial = INITIAL) -> tuple[Flags, NDArray[np.int64]]:
    """The initial mask, and each weight's distance from the cut."""
    draws = draw(initial.seed, name, math.prod(shape)).astype(np.int64).reshape(shape)
    keep = draws >= initial.cut
    return keep, np.where(keep, draws - initial.cut, initial.cut - 1 - draws)


def drifted(name: str, shape: tuple[int, ...], initial: Initial = INITIAL) -> Flags:
    """The initial mask after changes, most of them near the cut. Integers only, so the same everywhere."""
    keep, distance = started(name, shape, initial)
    chance = draw(2025, name, keep.size).astype(np.int64).reshape(shape)
    return keep ^ (chance * (500 + distance) ** 2 < 10_000 * 500**2)


EDGES: dict[str, Flags] = {
    "empty": np.ones((0,), bool),
    "hollow": np.ones((3, 0, 2), bool),
    "scalar.kept": np.ones((), bool),
    "scalar.dropped": np.zeros((), bool),
    "one.kept": np.ones((1,), bool),
    "one.dropped": np.zeros((1,), bool),
    "all.kept": np.ones((5, 7), bool),
    "all.dropped": np.zeros((5, 7), bool),
    "byte": np.arange(8) % 3 > 0,
    "nine": np.arange(9) != 8,
    "half": np.arange(16).reshape(4, 4) % 2 > 0,
    "odd": random("odd", (3, 7)),
    "four.dimensions": random("four.dimensions", (2, 3, 4, 5)),
}

OPPOSITE = {name: ~keep if keep.ndim < 4 else keep for name, keep in EDGES.items()}
SMALL = random("w", (3, 8), 16_384)  # the mask of refused files


def maskset(flags: dict[str, Flags], **others: Any) -> MaskSet:
    """Masks on a base of zeros."""
    digests = {name: digest.tensor_digest("U8", keep.shape, bytes(keep.size)) for name, keep in flags.items()}
    base = BaseBinding.of("user/base", digests, {name: name for name in flags}, None)
    return MaskSet(base, {name: Mask.from_bool(keep) for name, keep in flags.items()}, **others)


def saved(content: MaskSet, codec: str = "auto", parent: MaskSet | None = None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(content, Path(folder) / "mask.msk", codec=codec, parent=parent)
        return (Path(folder) / "mask.msk").read_bytes()


def parts(content: bytes) -> Parts:
    header, data = split(content)
    plain = header.pop("__metadata__")
    found = {name: RawTensor(e["dtype"], tuple(e["shape"]), cut(data, e)) for name, e in header.items()}
    manifest = json.loads(zstandard.decompress(found.pop(MANIFEST).data.tobytes()))
    coded = found.pop(MASKS).data.tobytes()
    masks, place = {}, 0
    for name, entry in sorted(manifest["masks"].items()):
        masks[name] = coded[place : place + entry["bytes"]]
        place += entry["bytes"]
    return Parts(manifest, plain, masks, found)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, and what follows it."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def cut(data: bytes, entry: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(data[slice(*entry["data_offsets"])], np.uint8)


def flat(data: bytes) -> RawTensor:
    return RawTensor("U8", (len(data),), np.frombuffer(data, np.uint8))


def written(manifest: Any) -> bytes:
    return json.dumps(manifest, ensure_ascii=False).encode()


def packed(content: bytes, **options: Any) -> bytes:
    """A Zstandard frame of this content."""
    return zstandard.ZstdCompressor(**{"level": LEVEL} | options).compress(content)


def payloads(parts: Parts, frame: bytes | None = None) -> dict[str, RawTensor]:
    """The payloads, in an order; with ``frame`` as that of the manifest."""
    first = packed(written(parts.manifest)) if frame is None else frame
    coded = b"".join(parts.masks[name] for name in sorted(parts.masks))
    return {MANIFEST: flat(first), **parts.dense, MASKS: flat(coded)}


def laid_out(plain: Any, tensors: dict[str, RawTensor], **style: Any) -> bytes:
    """A safetensors file of these payloads in this order, with a right seal."""
    header: dict[str, Any] = {"__metadata__": plain}
    place = 0
    for name, tensor in tensors.items():
        stop = place + tensor.data.size
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [place, stop]}
        place = stop
    return with_header(header, b"".join(tensor.data.tobytes() for tensor in tensors.values()), **style)


def assembled(parts: Parts, frame: bytes | None = None) -> bytes:
    return laid_out(parts.plain, payloads(parts, frame))


def with_header(header: dict[str, Any], data: bytes, **style: Any) -> bytes:
    options: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
    raw = json.dumps(header, **options | style).encode()
    raw += b" " * (-len(raw) % 8)
    return resealed(len(raw).to_bytes(8, "little") + raw + data)


def resealed(content: bytes) -> bytes:
    """With a right seal, if there is a place for one."""
    found = re.search(rb'"seal": ?"([0-9a-f]{64})"', content)
    place = found.start(1) if found else -1
    return content if place < 0 else content[:place] + digest.seal(content, place).encode() + content[place + 64 :]


def follow(parts: Parts) -> None:
    """Make the bytes of masks and the metadata follow from the rest."""
    manifest = parts.manifest
    for name in manifest["masks"].keys() & parts.masks.keys():
        manifest["masks"][name]["bytes"] = len(parts.masks[name])
    base, task = manifest["base"].get("name"), manifest.get("task")
    parts.plain |= {"id": content_id(manifest), "version": manifest["version"]}
    parts.plain["base"] = base if isinstance(base, str) else ""
    parts.plain.pop("task", None)
    if isinstance(task, dict) and isinstance(task.get("type"), str):
        parts.plain["task"] = task["type"]


def content_id(
    manifest: dict[str, Any], order: Callable[[str], Any] = str, told: Callable[[bytes], bytes] = bytes
) -> str:
    """The id that the text gives a manifest; or that of names in another order, and of a task ``told`` otherwise."""
    base, task = manifest["base"], manifest.get("task")

    def sized(name: str) -> str:
        return f"{len(name.encode())} {name}"

    def lines(kind: str, digests: dict[str, str]) -> str:
        return "".join(f"{kind} {digests[name]} {sized(name)}\n" for name in sorted(digests, key=order))

    text = f"maskhub {base['root']}\n"
    for name in sorted(base["tensors"], key=order):
        own = base.get("parameters", {}).get(name, f"{base.get('parameter_prefix', '')}{name}")
        text += f"parameter {sized(name)} {sized(own)}\n"
    text += lines("mask", {name: entry["digest"] for name, entry in manifest["masks"].items()})
    text += lines("dense", manifest.get("dense") or {}) + "task\n"
    if not isinstance(task, dict):
        return blake3(text.encode()).hexdigest()
    keys = ("type", "architecture", "config", "tokenizer", "max_length")
    kept = {key: task[key] for key in keys if key in task and task[key] is not None and task[key] != {}}
    return blake3(text.encode() + told(rfc8785.dumps(floats(kept)))).hexdigest()


def floats(value: Any) -> Any:
    """JSON with the integers that the library of RFC 8785 refuses as floats."""
    if isinstance(value, dict):
        return {key: floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [floats(inner) for inner in value]
    return float(value) if type(value) is int and abs(value) >= 2**53 else value


def changed(content: bytes, change: Change, afterwards: Change | None = None) -> bytes:
    """The file with a change, all else following; what is changed ``afterwards`` is followed by the seal alone."""
    found = parts(content)
    change(found)
    follow(found)
    if afterwards:
        afterwards(found)
    return assembled(found)


def expected(content: MaskSet, data: bytes, **more: Any) -> dict[str, Any]:
    """What vectors.json says of a good file, from the mask set in memory."""
    coded = parts(data).manifest["masks"]
    masks = {}
    for name, mask in sorted(content.masks.items()):
        masks[name] = {"shape": list(mask.shape), "kept": mask.kept, "codec": coded[name]["codec"]["name"]}
        masks[name] |= {"bits": mask.bits.tobytes().hex()} if mask.bits.size <= LONG else {"digest": mask.digest}
    dense = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "bytes": tensor.data.tobytes().hex()}
        for name, tensor in sorted(content.dense.items())
    }
    return {"id": content.id, "masks": masks, "dense": dense, **more}


def small() -> MaskSet:
    head = {"head.bias": RawTensor.from_numpy(np.array([0.25, -0.25], np.float32))}
    return maskset({"w": SMALL}, dense=head, initial=msgspec.structs.replace(INITIAL, cut=20_000))


def codec_vectors() -> Iterable[tuple[str, Vector]]:
    """Each codec on the same edges, and what is special about it."""
    edges = maskset(EDGES, initial=INITIAL)
    opposite = maskset(OPPOSITE)
    for codec in ("bits", "zstd", "gaps", "drift"):
        data = saved(edges, codec)
        yield f"{codec}.msk", (data, expected(edges, data))
    yield "opposite.msk", (data := saved(opposite), expected(opposite, data))
    yield "delta.msk", (data := saved(edges, "delta", opposite), expected(edges, data, parents=["opposite.msk"]))

    for n, m in ((1, 2), (2, 4), (1, 4), (4, 8), (8, 16), (5, 16)):
        shapes = {"empty": (0, m), "one": (m,), "rows": (3, m), "long": (5, 3 * m), "four.dimensions": (3, 1, 3, m)}
        patterns = maskset({name: pattern(name, shape, n, m) for name, shape in shapes.items()})
        data = saved(patterns, f"nm:{n}:{m}")
        yield f"nm-{n}-{m}.msk", (data, expected(patterns, data))

    rare = np.zeros(140_000, bool)
    rare[[70_000, 139_999]] = True
    wide = maskset({"kept": rare, "dropped": ~rare})
    yield "gaps-wide.msk", (data := saved(wide, "gaps"), expected(wide, data))
    other = maskset({"kept": rare[::-1].copy(), "dropped": np.ones_like(rare)})
    yield "wide-parent.msk", (data := saved(other), expected(other, data))
    yield "delta-wide.msk", (data := saved(wide, "delta", other), expected(wide, data, parents=["wide-parent.msk"]))

    blocks = {"two.blocks": ((1 << 20) + 13,), "one.block": (1 << 10, 1 << 10)}
    drifts = maskset({name: drifted(name, shape) for name, shape in blocks.items()}, initial=INITIAL)
    yield "drift-blocks.msk", (data := saved(drifts, "drift"), expected(drifts, data))
    name, shape = "two.changes", (1 << 17,)
    keep, distance = started(name, shape)
    keep[np.argsort(distance, kind="stable")[[5, 100_000]]] ^= True
    apart = maskset({name: keep}, initial=INITIAL)
    yield "drift-apart.msk", (data := saved(apart, "drift"), expected(apart, data))
    yield "rice-counts.msk", rice_counts()
    yield "rice-parameters.msk", rice_parameters()
    for cut in (0, 1, 65_535, 65_536):
        initial = msgspec.structs.replace(INITIAL, cut=cut)
        names = {"w": (40, 50), "gewicht/ü": (17,)}
        cuts = maskset({name: drifted(name, shape, initial) for name, shape in names.items()}, initial=initial)
        yield f"drift-cut-{cut}.msk", (data := saved(cuts, "drift"), expected(cuts, data))

    changes = [~random(f"change {i}", (60, 70), 600) for i in range(2)]
    keep = random("w", (60, 70))
    versions = [keep, keep ^ changes[0], keep ^ changes[0] ^ changes[1]]
    first, second, third = (maskset({"w": version, "v": keep}) for version in versions)
    yield "chain-1.msk", (data := saved(first, "gaps"), expected(first, data))
    yield "chain-2.msk", (data := saved(second, "delta", first), expected(second, data, parents=["chain-1.msk"]))
    both = ["chain-2.msk", "chain-1.msk"]
    yield "chain-3.msk", (data := saved(third, "delta", second), expected(third, data, parents=both))
    yield "small.msk", (data := saved(small(), "bits"), expected(small(), data))
    yield "delta-same.msk", (data := saved(first, "delta", first), expected(first, data, parents=["chain-1.msk"]))


def rice_counts() -> Vector:
    """Rice lists of as many values as chunks may have, and one more or less; near ones, and far ones."""
    flags: dict[str, Flags] = {}
    coded: dict[str, bytes] = {}
    for count in (0, 1, 127, 128, 129, 256, 257):
        for kind, window in (("near", 65_536), ("far", 0)):
            name = f"{kind}.{count}"
            flags[name], distance = started(name, (1000,))
            order = np.argsort(distance, kind="stable") if window else np.arange(1000)
            chosen = np.sort(np.argsort(draw(2026, name, 1000), kind="stable")[:count])
            flags[name][order[chosen]] ^= True
            gaps = pco.distances(chosen).tolist()
            chunks = [(3, 0, 5)[i % 3] for i in range(-(-count // 128))]
            coded[name] = drift_payload(window, *((gaps, []) if window else ([], gaps)), chunks)
    content = maskset(flags, initial=INITIAL)
    data = changed(saved(content, "drift"), lambda c: c.masks.update(coded))
    return data, expected(content, data)


def rice_parameters() -> Vector:
    """The largest parameter, and changes between it and the smallest; values of all sizes."""
    flags: dict[str, Flags] = {}
    coded: dict[str, bytes] = {}
    for name, parameters in (("always.31", [31, 31, 31]), ("to.and.fro", [31, 0, 31]), ("down", [31, 30, 1])):
        gaps = draw(2027, name, 300).astype(np.int64) % 4
        gaps[[3, 290]] = 100_000, 20_000
        flags[name], _ = started(name, (1 << 17,))
        flags[name][np.cumsum(gaps + 1) - 1] ^= True
        coded[name] = drift_payload(0, [], gaps.tolist(), parameters)
    content = maskset(flags, initial=INITIAL)
    data = changed(saved(content, "drift"), lambda c: c.masks.update(coded))
    return data, expected(content, data)


def leb128(number: int, size: int = 1) -> bytes:
    """An integer in LEB128, in this many bytes at least."""
    found: list[int] = []
    while number > 127 or len(found) + 1 < size:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def riced(values: list[int], parameters: list[int]) -> tuple[bytes, bytes]:
    """The two parts of a Rice list, with one of ``parameters`` for each 128 values, also of ones that there are not."""
    changes = np.diff(parameters, prepend=0).tolist()
    of = [max(parameters[i // 128], 0) for i in range(len(values))]
    unary = [2 * d if d >= 0 else -2 * d - 1 for d in changes] + [v >> k for v, k in zip(values, of, strict=True)]
    low = [f"{v % (1 << k):0{k}b}"[::-1] if k else "" for v, k in zip(values, of, strict=True)]
    first, second = "".join("0" * number + "1" for number in unary), "".join(low)
    return from_bits(first), from_bits(second)


def from_bits(text: str) -> bytes:
    return int(text[::-1] or "0", 2).to_bytes(-(-len(text) // 8), "little")


def drift_payload(window: int, near: list[int], far: list[int], parameters: list[int]) -> bytes:
    """The payload of these distances, one of the lists being empty."""
    head = b"".join(map(leb128, (window, len(near), len(far))))
    return head + b"".join(riced(near + far, parameters))


def elements(dtype: str, shape: tuple[int, ...]) -> RawTensor:
    """Random elements, the last third of them all ones: NaN of most floats, with the sign set."""
    data: NDArray[np.uint8] = np.packbits(random(dtype, (*shape, ITEM_SIZE[dtype], 8), 32_768), axis=None)
    data[-(data.size // 3) :] = 255
    return RawTensor(dtype, shape, np.minimum(data, 1) if dtype == "BOOL" else data)


def manifest_vectors() -> Iterable[tuple[str, Vector]]:
    """Base bindings, dense tensors, names, versions, and files of other writers."""
    none = maskset({})
    yield "no-masks.msk", (data := saved(none), expected(none, data))

    tensors, masks = {}, {}
    for dtype in sorted(ITEM_SIZE.keys() - {"F8_E8M0"}):
        keep = random(dtype, (3, 5), 30_000)
        keep[2, 3:] = True, False  # a NaN is kept, and one dropped
        tensors[dtype] = elements(dtype, keep.shape)
        masks[dtype] = Mask.from_bool(keep)
    digests = {name: digest.tensor_digest(t.dtype, t.shape, t.data) for name, t in tensors.items()}
    bound = MaskSet(BaseBinding.of("user/base", digests, {n: f"net.{n}" for n in digests}, None), masks)
    base = {
        name: {
            "dtype": t.dtype,
            "shape": list(t.shape),
            "bytes": t.data.tobytes().hex(),
            "selected": drop(t, masks[name]).tobytes().hex(),
        }
        for name, t in tensors.items()
    }
    yield "base-dtypes.msk", (data := saved(bound), expected(bound, data, base=base))

    dense = {f"head.{dtype}": elements(dtype, (2, 3)) for dtype in ITEM_SIZE}
    dense["scalar"] = RawTensor.from_numpy(np.array(0.25, np.float32))
    dense["empty"] = RawTensor.from_numpy(np.zeros((0, 3), np.float16))
    whole = maskset({"w": EDGES["odd"]}, dense=dense)
    yield "dense-dtypes.msk", (data := saved(whole), expected(whole, data))

    # The two last names sort otherwise in UTF-16 than in UTF-8.
    parameters = {
        name: f"bert.{name}" for name in ("layer.0.weight", "layer.1.weight", "größe", "\uff5e", "\U0001f600")
    }
    parameters["layer.1.weight"] = "elsewhere.weight"
    digests = {name: digest.tensor_digest("U8", (9,), bytes(9)) for name in parameters}
    binding = BaseBinding.of("user/base", digests, parameters, None)
    named = MaskSet(binding, {name: Mask.from_bool(random(name, (9,))) for name in parameters if name != "größe"})
    heads = {name: RawTensor.from_numpy(np.arange(2, dtype=np.int8)) for name in ("größe", "\uff5e", "\U0001f600")}
    named = dataclasses.replace(named, dense=heads)
    yield "names.msk", (data := saved(named), expected(named, data, parameters=parameters))

    full = maskset(
        {"w": EDGES["odd"], "v": EDGES["nine"]},
        dense={"head.bias": RawTensor.from_numpy(np.array([0.25, -0.25], np.float32))},
        task=Task("text-classification", "BertForSequenceClassification", {"num_labels": 2}, "user/tokenizer", 128),
        initial=INITIAL,
        metrics={"accuracy": 0.5},
        lineage={"operation": "train", "settings": {"seed": 1}},
    )
    hub = HubRevision("user/base", "0" * 40, {"model.safetensors": "d" * 64})
    full = dataclasses.replace(full, base=BaseBinding.of("user/base", full.base.tensors, {"w": "w", "v": "v"}, hub))
    every = saved(full, "delta", full)
    yield "full.msk", (data := saved(full), expected(full, data))
    yield "every-field.msk", (every, expected(full, every, parents=["full.msk"]))

    def unknown(c: Parts) -> None:
        manifest = c.manifest
        inner = [manifest, manifest["base"], manifest["base"]["hub"], manifest["task"], manifest["initial"]]
        for place in [*inner, *manifest["masks"].values()]:
            place["new"] = {"any": [1, None, "x"]}
        for entry in manifest["masks"].values():
            entry["codec"]["new"] = 1

    def newer(c: Parts) -> None:
        unknown(c)
        c.manifest["version"] = "1.23"

    yield "unknown-keys.msk", (data := changed(saved(full), unknown), expected(full, data))
    yield "newer-minor.msk", (data := changed(saved(full), newer), expected(full, data))

    def null(c: Parts) -> None:
        c.manifest.update(task=None, initial=None, parent=None)
        c.manifest["base"]["hub"] = None

    yield "null-fields.msk", (data := changed(saved(none), null), expected(none, data))

    # What a mask is called is no matter of payloads.
    parameters = {name: f"net.{name}" for name in (MANIFEST, MASKS, "__metadata__", "head.bias")}
    digests = {name: digest.tensor_digest("U8", (9,), bytes(9)) for name in parameters}
    same = MaskSet(
        BaseBinding.of("user/base", digests, parameters, None),
        {name: Mask.from_bool(random(name, (9,))) for name in parameters},
        dense={"head.bias": RawTensor.from_numpy(np.array([0.25, -0.25], np.float32))},
    )
    yield "same-names.msk", (data := saved(same), expected(same, data, parameters=parameters))

    # Spaces, escapes and another order everywhere; payloads that MaskHub would not write so.
    keep = random("w", (60, 70))
    heads = {name: elements(name, (3,)) for name in ("U8", "F64", "F16")}
    foreign = maskset({"g\u00e4ps": keep, "zstd": keep, "bits": EDGES["odd"]}, dense=heads)
    found = parts(saved(foreign, "bits"))
    gaps = pco.distances(np.flatnonzero(~keep)).astype(np.uint32)
    paging = PagingSpec.exact_page_sizes([100, 1, gaps.size - 101])
    config = ChunkConfig(compression_level=4, paging_spec=paging)
    found.masks["g\u00e4ps"] = bytes(standalone.simple_compress(gaps, config))
    found.manifest["masks"]["g\u00e4ps"]["codec"] = {"width": 32, "name": "gaps"}
    compressor = zstandard.ZstdCompressor(level=19, write_checksum=True)
    found.masks["zstd"] = compressor.compress(found.masks["zstd"])
    found.manifest["masks"]["zstd"]["codec"] = {"name": "zstd"}
    follow(found)
    frame = compressor.compress(json.dumps(dict(reversed(found.manifest.items())), indent=1).encode())
    order = dict(sorted(payloads(found, frame).items()))
    assert list(order) == ["F16", "F64", "U8", MANIFEST, MASKS]
    order = dict(reversed(order.items()))
    plain = {"maskhub": "", "other": "meta\u00e4\n", **dict(reversed(found.plain.items()))}
    data = laid_out(plain, order, indent=2, ensure_ascii=True)
    yield "other-writer.msk", (data, expected(foreign, data))


def task_vectors() -> Iterable[tuple[str, Vector]]:
    """What a task adds to the id."""
    config = {
        "id2label": {"0": "Gr\u00f6\u00dfe", "1": '\u2028\u0007"\\'},
        "\uff5e": 1,  # sorts otherwise in UTF-16 than in UTF-8
        "\U0001f600": 2,
        "floats": [0.1, 1.0, -0.0, 1e16, 1e20, 1e21, 1e-6, 1e-7, 5e-324, 1.7976931348623157e308, 0.1 + 0.2],
        "integers": [0, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**64, 10**21, 10**308],
        "others": [True, None, [], {}],
    }
    full = maskset({"w": SMALL}, task=Task("text-classification", "Net", config, "user/t\u00f6kenizer", 2**53 + 1))
    yield "task.msk", (data := saved(full, "bits"), expected(full, data))
    short = maskset({"w": SMALL}, task=Task("text-classification", "Net"))
    yield "task-short.msk", (data := saved(short, "bits"), expected(short, data))
    null: dict[str, Any] = {
        "type": "text-classification",
        "architecture": "Net",
        "config": {},
        "tokenizer": None,
        "max_length": None,
    }
    data = changed(saved(short, "bits"), put("task", {"new": 1, **null}))
    yield "task-null.msk", (data, expected(short, data))
    numbers = [1, 1, 1, 0.1, 2**53, "A"]
    said = maskset({"w": SMALL}, task=Task("text-classification", "Net", {"a": numbers}))
    text = '[1.0, 1e0, 10e-1, 0.10, 9007199254740993, "\\u0041"]'
    data = texted(text, saved(said, "bits"), put("task/config/a", HERE), said.id)
    yield "task-written.msk", (data, expected(said, data))


HERE = "HERE"  # what stands where a text is put


def texted(text: str, content: bytes, change: Change, id: str | None = None) -> bytes:
    """The file with a change, and ``text`` as JSON where it put ``HERE``; ``id`` where it follows from the text."""
    found = parts(content)
    change(found)
    follow(found)
    found.plain |= {"id": id} if id else {}
    return assembled(found, packed(written(found.manifest).replace(b'"HERE"', text.encode())))


def put(path: str, value: Any) -> Change:
    """A change that sets (or with ``...`` removes) what is at ``path`` in the manifest."""
    return lambda c: put_in(c.manifest, path, value)


def plain(path: str, value: Any) -> Change:
    """The same in the metadata."""
    return lambda c: put_in(c.plain, path, value)


def put_in(inner: Any, path: str, value: Any) -> None:
    *outer, last = path.split("/")
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value


def together(*changes: Change) -> Change:
    return lambda c: [change(c) for change in changes]


def coded_as(value: bytes) -> Change:
    """A change of the mask's coded bytes alone."""
    return lambda c: c.masks.update(w=value)


def decodes(value: bytes, flags: Flags, **entry: Any) -> Change:
    """A change that replaces the coded mask by one that decodes to ``flags``, with shape, kept and digest of it."""

    def change(c: Parts) -> None:
        mask = Mask.from_bool(flags)
        c.masks["w"] = value
        c.manifest["masks"]["w"] |= {"shape": list(mask.shape), "kept": mask.kept, "digest": mask.digest} | entry

    return change


def shaped(shape: list[Any], said: str | None = None) -> Change:
    """A change of the mask's shape, and of its digest, in which it may be ``said`` otherwise."""
    said = ",".join(map(str, shape)) if said is None else said

    def change(c: Parts) -> None:
        found = blake3(f"mask {said}\n".encode() + c.masks["w"]).hexdigest()
        c.manifest["masks"]["w"] |= {"shape": shape, "digest": found}

    return change


def brings(tensor: RawTensor, name: str = "head.bias") -> Change:
    """A change of a dense tensor, and of its digest."""

    def change(c: Parts) -> None:
        c.dense[name] = tensor
        c.manifest["dense"][name] = digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data)

    return change


def listed(values: list[int], width: pco.Width = 16) -> bytes:
    return pco.compress(np.array(values), width)


def coded(values: list[int], dtype: str, **config: Any) -> bytes:
    """The same by pcodec with other settings."""
    said = {"mode_spec": ModeSpec.classic(), "delta_spec": DeltaSpec.no_op()} | config
    return bytes(standalone.simple_compress(np.array(values, dtype), ChunkConfig(**said)))


def framed(data: bytes, window: int, size: int | None = None) -> bytes:
    """A Zstandard frame of one raw block, with this byte for its window, and maybe another ``size`` than it has."""
    block = (len(data) << 3 | 1).to_bytes(3, "little") + data
    said = len(data) if size is None else size
    return zstandard.FRAME_HEADER + bytes([0x80, window]) + said.to_bytes(4, "little") + block


def padded(size: int) -> bytes:
    """A frame of the small file's manifest, and spaces up to ``size`` bytes."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=23)
    text = written(parts(saved(small(), "bits")).manifest)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(text.ljust(size))


SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0abcd"  # a frame that Zstandard's decoders pass over
LARGEST_WINDOW = 0x68  # 2^23
WRONG = "0123456789abcdef" * 4


def nested(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = [innermost]
    return innermost


def limit_vectors() -> Iterable[tuple[str, Vector]]:
    """Good files that go as far as the text lets them."""
    least = small()
    bits = saved(least, "bits")
    numbers = {"metrics": {"steps": 3}, "lineage": {"a": 10**308, "b": -(10**308), "c": 1e-400, "d": -0}}
    flags = parts(bits).masks["w"]
    good: dict[str, tuple[bytes, Change]] = {
        "nested": (bits, put("lineage", {"a": nested(61, {}), "b": nested(61, [])})),
        "numbers": (bits, lambda c: c.manifest.update(numbers)),
        "zstd-window": (saved(least, "zstd"), coded_as(framed(flags, LARGEST_WINDOW))),
    }
    for name, (content, change) in good.items():
        yield f"{name}.msk", (data := changed(content, change), expected(least, data))
    found = parts(bits)
    for name, frame in (("window", framed(written(found.manifest), LARGEST_WINDOW)), ("spaces", padded(1 << 20))):
        yield f"manifest-{name}.msk", (data := assembled(found, frame), expected(least, data))

    gaps = saved(least, "gaps")
    later = changed(gaps, lambda c: c.masks.update(w=c.masks["w"].replace(b"\4\1", b"\4\xc8", 1)))
    yield "list-later.msk", (later, expected(least, later))

    # The groups that fill the last word keep others than the first two.
    patterns = maskset({"w": pattern("w", (3, 8), 2, 4)})
    content = saved(patterns, "nm:2:4")
    symbols = standalone.simple_decompress(parts(content).masks["w"]).tolist()
    data = changed(content, coded_as(listed([symbols[0], symbols[1] + 36 * 20])))
    yield "nm-filled.msk", (data, expected(patterns, data))

    # Weight 5 is near the cut, and is listed among the far ones, too: it is inverted twice.
    keep, distance = started("w", (3, 8), least.initial or INITIAL)
    order = np.lexsort((np.arange(24), distance.reshape(-1)))
    data = drifting(saved(least, "drift"), [int(np.flatnonzero(order == 5)[0])], [5], keep)
    yield "drift-both.msk", (data, expected(dataclasses.replace(least, masks={"w": Mask.from_bool(keep)}), data))

    # Of two files with the parent's id the first is taken: the other one's own parent is nowhere.
    keep = random("w", (6, 7))
    first, second, third = (maskset({"w": keep ^ (np.arange(42).reshape(6, 7) % 9 == i)}) for i in range(3))
    yield "twin-plain.msk", (data := saved(second, "gaps"), expected(second, data))
    yield "twin-first.msk", (data := saved(first, "gaps"), expected(first, data))
    yield "twin-delta.msk", (data := saved(second, "delta", first), expected(second, data, parents=["twin-first.msk"]))
    data = saved(third, "delta", second)
    yield "twin.msk", (data, expected(third, data, parents=["twin-plain.msk", "twin-delta.msk"]))

    # The parent is of another base.
    digests = {"w": "a" * 64}
    elsewhere = MaskSet(BaseBinding.of("user/other", digests, {"w": "w"}, None), {"w": Mask.from_bool(keep)})
    yield "other-base.msk", (data := saved(elsewhere, "gaps"), expected(elsewhere, data))
    data = saved(first, "delta", elsewhere)
    yield "delta-other-base.msk", (data, expected(first, data, parents=["other-base.msk"]))


def drifting(
    content: bytes,
    near: list[int],
    far: list[int],
    flags: Flags,
    *,
    window: int = 65_536,
    head: bytes | None = None,
    lists: bytes | None = None,
) -> bytes:
    """The file with a ``drift`` payload of these ranks and far positions, or with another ``head`` or ``lists``."""
    if head is None:
        head = b"".join(map(leb128, (window, len(near), len(far))))
    if lists is None:
        lists = b"".join(rice.compress(pco.distances(np.array(places, np.int64))) for places in (near, far) if places)
    return changed(content, decodes(head + lists, flags))


def made(
    name: str,
    rule: str,
    why: str,
    data: bytes,
    parents: Iterable[str] = (),
    also: Iterable[str] = (),
    because: str | None = None,
) -> tuple[str, Vector]:
    """A file to be refused, and what vectors.json says of it."""
    said = {"why": why, "rule": rule, "parents": list(parents), "also": list(also), "because": because}
    return f"refused/{name}.msk", (data, {key: value for key, value in said.items() if value})


def refused_vectors() -> Iterable[tuple[str, Vector]]:
    """Files that break one rule each. All that they hold besides is right, also digests, kept and seal.

    A reader that does not check the rule accepts the file. Where others refuse it, too, ``also`` says which; where no
    reader could go on, ``because`` says why.
    """
    least = small()
    files = {codec: saved(least, codec) for codec in ("bits", "zstd", "gaps", "drift")}
    files["nm"] = saved(maskset({"w": pattern("w", (3, 8), 2, 4)}), "nm:2:4")
    bits, gaps, drift, nm = files["bits"], files["gaps"], files["drift"], files["nm"]
    flags = parts(bits).masks["w"]
    full = decodes(b"", np.ones((3, 8), bool))
    yield from refused_files(bits, changed(gaps, full))
    yield from refused_manifests(bits)
    yield from refused_metadata(bits)
    yield from refused_dense(bits)

    # Digests.
    seal = parts(bits).plain["seal"].encode()
    yield made("seal-wrong", "seal.matches", "the seal is wrong", bits.replace(seal, WRONG.encode()))
    yield made("seal-upper-case", "seal.matches", "the seal has upper-case digits", bits.replace(seal, seal.upper()))
    yield made("seal-escaped", "seal.matches", "a digit of the seal is escaped", escaped(bits))
    yield made(
        "seal-short", "seal.matches", "the seal has 63 digits and a space", bits.replace(seal, seal[1:] + b" ", 1)
    )
    yield made("seal-missing", "required", "there is no seal", changed(bits, nothing, plain("seal", ...)))
    wrong = changed(bits, put("masks/w/digest", WRONG))
    yield made("digest-wrong", "digest.matches", "the mask's digest is another's", wrong)
    wrong = changed(bits, put("dense/head.bias", WRONG))
    yield made("dense-digest-wrong", "digest.matches", "the tensor's digest is another's", wrong)
    kept = parts(bits).manifest["masks"]["w"]["kept"]
    fewer = changed(bits, put("masks/w/kept", kept - 1))
    yield made("kept-wrong", "kept.matches", "kept is one less than the bits have", fewer)
    behind = decodes(b"\1\1\x20", np.zeros((3, 7), bool), kept=3, digest=digest.mask_digest((3, 7), b"\1\1\x20"))
    why = "a bit after the last weight is 1, in bits, kept and digest"
    yield made("padding", "padding", why, changed(bits, behind))

    # Where masks lie.
    yield made(
        "masks-few", "masks.total", "a byte follows the last mask", changed(bits, nothing, with_masks(flags + b"x"))
    )
    many = changed(bits, nothing, put("masks/w/bytes", 4))
    yield made("masks-many", "masks.total", "the masks have a byte more than the payload", many)
    two = saved(maskset({"a": SMALL, "b": ~SMALL}), "bits")
    turned = changed(two, nothing, with_masks(parts(two).masks["b"] + parts(two).masks["a"]))
    yield made("masks-order", "digest.matches", "the masks do not lie by name", turned, also=["kept.matches"])
    first = changed(
        saved(maskset({"\uff5e": SMALL, "\U0001f600": ~SMALL}), "bits"),
        nothing,
        with_masks(parts(two).masks["b"] + parts(two).masks["a"]),
    )
    yield made("masks-utf16", "digest.matches", "the masks lie in the order of UTF-16", first, also=["kept.matches"])

    # The manifest.
    for name, version in (("none", "1"), ("zeros", "01.0"), ("minor-zeros", "1.00"), ("long", "1." + "1" * 10)):
        yield made(f"version-{name}", "version", f"the version {version}", changed(bits, put("version", version)))
    yield made("version-major", "version.major", "a newer major version", changed(bits, put("version", "2.0")))
    for field in ("base/name", "base/hub/id", "task/type", "initial/low"):
        hub, task = put("base/hub", {"id": "a/b", "commit": "c"}), put("task", {"type": "t", "architecture": "a"})
        data = changed(bits, together(hub, task, put(field, ...)))
        name = field.replace("/", "-") + "-missing"
        yield made(name, "required", "a required field is missing", data)
    data = changed(bits, nothing, put("masks/w/bytes", ...))
    why = "where masks begin and end is told nowhere"
    yield made("mask-bytes-missing", "required", "a required field is missing", data, because=why)
    yield from wrong_fields(bits)

    # Codecs.
    more = decodes(flags + b"\0", SMALL, digest=digest.mask_digest((3, 8), flags + b"\0"))
    yield made("bits-size", "bits.size", "bits: a byte too many", changed(bits, more))

    zstd = files["zstd"]
    compressor = zstandard.ZstdCompressor()
    frame = compressor.compress(flags)
    for name, rule, why, value in (
        ("longer", "zstd.end", "a byte follows the frame", frame + b"\0"),
        ("two", "zstd.end", "a second frame follows, of nothing", frame + compressor.compress(b"")),
        ("skippable-behind", "zstd.end", "a skippable frame follows", frame + SKIPPABLE),
        (
            "no-size",
            "zstd.size",
            "the frame does not state its size",
            zstandard.ZstdCompressor(write_content_size=False).compress(flags),
        ),
        ("window", "zstd.window", "the window has 2^23 + 2^20 bytes", framed(flags, LARGEST_WINDOW + 1)),
    ):
        yield made(f"zstd-{name}", rule, f"zstd: {why}", changed(zstd, decodes(value, SMALL)))
    data = changed(
        zstd, decodes(compressor.compress(flags + b"\0"), SMALL, digest=digest.mask_digest((3, 8), flags + b"\0"))
    )
    yield made("zstd-size", "zstd.size", "zstd: the frame holds a byte too many", data)
    data = changed(zstd, decodes(SKIPPABLE + frame, SMALL))
    yield made(
        "zstd-skippable-before",
        "zstd.frame",
        "zstd: a skippable frame stands before",
        data,
        because="a reader looks for the frame's head where it is not",
    )
    empty = saved(maskset({"w": EDGES["empty"]}), "zstd")
    yield made(
        "zstd-empty",
        "zstd.end",
        "zstd: the frame of an empty tensor is cut short",
        changed(empty, decodes(compressor.compress(b"")[:-1], EDGES["empty"])),
    )
    yield made(
        "zstd-skippable",
        "zstd.frame",
        "zstd: a skippable frame for an empty tensor",
        changed(empty, decodes(SKIPPABLE, EDGES["empty"])),
    )
    damaged = "the library cannot read it"
    dictionary = zstandard.FRAME_HEADER + b"\x21\x07\x03" + frame[-6:]
    yield made(
        "zstd-damaged",
        "zstd.library",
        "zstd: a block of a kind that there is not",
        changed(zstd, decodes(frame[:6] + b"\x07" + frame[7:], SMALL)),
        because=damaged,
    )
    yield made(
        "zstd-dictionary",
        "zstd.library",
        "zstd: the frame needs a dictionary",
        changed(zstd, decodes(dictionary, SMALL)),
        because=damaged,
    )

    cut = changed(zstd, decodes(frame[:5], SMALL))
    yield made("zstd-cut-in-header", "zstd.library", "zstd: the frame ends inside its header", cut, because=damaged)

    dropped = pco.distances(np.flatnonzero(~SMALL)).tolist()

    def listing_of(name: str, rule: str, why: str, value: bytes, **more: Any) -> tuple[str, Vector]:
        entry = more.pop("entry", {})
        return made(f"list-{name}", rule, why, changed(gaps, decodes(value, SMALL, **entry)), **more)

    whole = listed(dropped)
    older = b"pco!\2" + whole[6:]
    yield listing_of("older", "list.version", "pcodec's standalone version 2", older)
    yield listing_of("newer", "list.version", "pcodec's standalone version 4", b"pco!\4" + whole[5:])
    yield listing_of("major-3", "list.version", "pcodec's format version 3", whole.replace(b"\4\1\7", b"\3\7", 1))
    yield listing_of(
        "major-5", "list.version", "pcodec's format version 5", whole.replace(b"\4\1\7", b"\5\1\7", 1), because=damaged
    )
    keep = random("w", (20, 40), 16_384)
    many = pco.distances(np.flatnonzero(~keep)).tolist()
    for name, said, config in (
        ("int-mult", "mode IntMult", {"mode_spec": ModeSpec.try_int_mult(3)}),
        ("consecutive", "consecutive deltas", {"delta_spec": DeltaSpec.try_consecutive(1)}),
        ("lookback", "lookback deltas", {"delta_spec": DeltaSpec.try_lookback()}),
        ("conv1", "conv1 deltas", {"delta_spec": DeltaSpec.try_conv1(1)}),
    ):
        data = changed(gaps, decodes(coded(many, "u2", **config), keep))
        yield made(f"list-{name}", "list.subset", f"pcodec's {said}", data)
    second = joined(listed(dropped[:2]), coded(dropped[2:], "u2", delta_spec=DeltaSpec.try_consecutive(1)))
    yield listing_of("second-chunk", "list.subset", "the second chunk has deltas", second)
    yield listing_of("width", "list.type", "integers of 32 bits, and width 16", listed(dropped, 32))
    yield listing_of(
        "uniform",
        "list.type",
        "the head says 32 bits, the chunk has 16",
        whole[:5] + b"\1" + whole[6:],
    )
    byte = coded(dropped, "u1", enable_8_bit=True)
    yield listing_of("width-8", "gaps.width", "no width 8", byte, entry={"codec": {"name": "gaps", "width": 8}})
    yield listing_of("longer", "list.end", "a byte follows the list", whole + b"\0")
    yield listing_of("many", "list.count", "a position too many", listed([*dropped, 0]))
    yield listing_of("cut-short", "list.pcodec", "the list is cut short", whole[:-3], because=damaged)
    yield listing_of("terminator", "list.pcodec", "the list has no end", whole[:-1], because=damaged)
    nothing_listed = coded([], "u2")
    yield made(
        "list-none",
        "list.empty",
        "a file without numbers for an empty list",
        changed(gaps, decodes(nothing_listed, np.ones((3, 8), bool))),
    )
    past = decodes(listed([*dropped[:-1], 24]), SMALL)
    yield made(
        "gaps-past-end",
        "position",
        "gaps: a position past the end",
        changed(gaps, past),
        also=["kept.matches", "digest.matches"],
    )

    yield from refused_drifts(drift, least.initial or INITIAL)

    pairs = np.tile([True, True, False, False], 6).reshape(3, 8)
    last = np.array([True] * 8 + [False] * 8).reshape(2, 8)  # clipped to the last word: the last two of each four
    clipped = np.concatenate([np.tile([False, False, True, True], 4), pairs.reshape(-1)[16:]]).reshape(3, 8)
    yield made(
        "nm-symbol", "nm.symbol", "nm: a symbol that no word has", changed(nm, decodes(listed([1296, 0]), clipped))
    )
    yield made(
        "nm-rows",
        "nm.rows",
        "nm: groups of four in rows of six",
        changed(nm, decodes(listed([0, 0]), pairs.reshape(4, 6))),
    )
    few_words = np.concatenate([pairs.reshape(-1)[:16], np.zeros(8, bool)]).reshape(3, 8)
    yield made("nm-few", "list.count", "nm: a symbol too few", changed(nm, decodes(listed([0]), few_words)))
    every = {"codec": {"name": "nm", "n": 4, "m": 4}}
    yield made(
        "nm-4-4",
        "nm.below",
        "nm: n is not below m",
        changed(nm, decodes(listed([0, 0]), np.ones((3, 8), bool), **every)),
    )
    nothing_kept = {"codec": {"name": "nm", "n": 0, "m": 4}}
    yield made(
        "nm-0-4", "nm.n", "nm: n is 0", changed(nm, decodes(listed([0, 0]), np.zeros((3, 8), bool), **nothing_kept))
    )
    single = {"codec": {"name": "nm", "n": 1, "m": 3}}
    # The first word of which each three bits, and the one that is left, hold a one.
    thirds = np.array([int(c) for c in f"{0b1001001001001001:016b}"[::-1]], bool)
    yield made("nm-m-3", "nm.m", "nm: m is 3", changed(nm, decodes(listed([0]), thirds[:15].reshape(5, 3), **single)))
    del last

    # Parents.
    delta = saved(least, "delta", least)
    one_change = {"codec": {"name": "delta", "count": 1, "width": 16}}

    def against(parent: MaskSet, value: bytes, flags: Flags, named: str | None = None, **entry: Any) -> bytes:
        codec = {"name": "delta", "count": 0, "width": 16} if not value else one_change["codec"]
        return changed(delta, together(put("parent", named or parent.id), decodes(value, flags, codec=codec, **entry)))

    other = maskset({"v": SMALL})
    transposed = maskset({"w": SMALL.reshape(4, 6)})
    yield "parent-lacks.msk", (data := saved(other), expected(other, data))
    yield "parent-shape.msk", (data := saved(transposed), expected(transposed, data))
    unnamed = changed(delta, put("parent", ...))
    yield made("delta-no-parent", "parent.named", "delta: parent is missing", unnamed, ["small.msk"])
    wrong = ["refused/seal-wrong.msk"]
    yield made("delta-parent-seal", "seal.matches", "delta: the seal of the parent is wrong", delta, wrong)
    before = ["refused/dense-f4.msk", "small.msk"]
    yield made("delta-parent-before", "dense.dtype", "delta: a file before the parent is refused", delta, before)
    absent = changed(delta, put("parent", WRONG))
    yield made("delta-parent-absent", "parent.id", "delta: the parent is not at hand", absent, ["small.msk"])
    data = against(transposed, b"", SMALL)
    yield made(
        "delta-parent-shape", "parent.shape", "delta: the parent's mask has another shape", data, ["parent-shape.msk"]
    )
    data = against(other, b"", np.ones((3, 8), bool))
    yield made("delta-parent-lacks", "parent.mask", "delta: the parent has no such mask", data, ["parent-lacks.msk"])
    data = against(least, listed([24]), SMALL)
    yield made("delta-past-end", "position", "delta: a position past the end", data, ["small.msk"])
    many = changed(delta, decodes(listed([0] * 25), ~SMALL, codec={"name": "delta", "count": 25, "width": 16}))
    yield made(
        "delta-many", "delta.most", "delta: more differences than weights", many, ["small.msk"], also=["position"]
    )
    few_listed = ~SMALL.reshape(-1) ^ (np.arange(24) > 0)
    data = changed(
        delta, decodes(listed([0]), few_listed.reshape(3, 8), codec={"name": "delta", "count": 2, "width": 16})
    )
    yield made("delta-few", "list.count", "delta: a difference too few", data, ["small.msk"])
    no_width = put("masks/w/codec", {"name": "delta", "count": 0, "width": 8})
    yield made("delta-width", "delta.width", "delta: no width 8", changed(delta, no_width), ["small.msk"])
    data = changed(delta, decodes(listed([0]), SMALL, codec={"name": "delta", "count": -1, "width": 16}))
    yield made("delta-count", "delta.count", "delta: count is negative", data, ["small.msk"], also=["list.count"])
    one_set, other_set = maskset({"w": SMALL}), maskset({"w": ~SMALL})
    loop = {"a": saved(one_set, "delta", other_set), "b": saved(other_set, "delta", one_set)}
    ends = "each file is used once, and no other is left"
    for name, others in (("a", "b"), ("b", "a")):
        why = "delta: two files are each other's parents"
        yield made(
            f"delta-loop-{name}", "parent.id", why, loop[name], [f"refused/delta-loop-{others}.msk"], because=ends
        )
    own = saved(one_set, "delta", one_set)
    yield made(
        "delta-self", "parent.id", "delta: the parent is the file itself", own, ["refused/delta-self.msk"], because=ends
    )
    keep = random("w", (6, 7))
    second_set, third_set = (maskset({"w": keep ^ (np.arange(42).reshape(6, 7) % 9 == i)}) for i in (1, 2))
    yield made(
        "delta-twin", "parent.id", "delta: the first file with the parent's id lacks its own, and no other is taken",
        saved(third_set, "delta", second_set), ["twin-delta.msk", "twin-plain.msk"],
        because="the parent's own parent is not there to count from",
    )  # fmt: skip


def nothing(c: Parts) -> None:
    pass


def with_masks(payload: bytes) -> Change:
    """A change of the masks' payload as a whole."""
    return lambda c: setattr(c, "masks", {"w": payload})


def escaped(content: bytes) -> bytes:
    """The file with the seal's first digit as an escape, and sealed at the place of the rest."""
    header, data = split(content)
    seal = header["__metadata__"]["seal"]
    raw = json.dumps(header, separators=(",", ":")).replace(seal, f"\\u{ord(seal[0]):04x}{seal[1:]}").encode()
    return len(raw).to_bytes(8, "little") + raw + data


def refused_files(bits: bytes, whole: bytes) -> Iterable[tuple[str, Vector]]:
    """What safetensors refuses, and what it lets pass; of ``bits``, or of a file whose masks take no bytes."""
    found = parts(bits)
    bias, flags = found.dense["head.bias"], found.masks["w"]
    manifest, masks = payloads(found)[MANIFEST], flat(flags)
    header, data = split(bits)

    def entered(change: Callable[[dict[str, Any]], object], body: bytes = data) -> bytes:
        entries = json.loads(json.dumps(header))
        change(entries)
        return with_header(entries, body)

    def place(name: str, **entry: Any) -> Callable[[dict[str, Any]], object]:
        return lambda entries: entries[name].update(entry)

    start, stop = header[MASKS]["data_offsets"]
    claimed = place(MASKS, shape=[4], data_offsets=[start, stop + 1])
    yield made("cut-short", "safetensors", "the last byte is missing", entered(claimed))
    none = saved(maskset({}))
    longer = (int.from_bytes(none[:8], "little") + 400).to_bytes(8, "little") + none[8:]
    short = "the manifest is cut short, too"
    yield made("cut-in-header", "safetensors", "the file ends inside the header", resealed(longer), because=short)
    yield made("longer", "safetensors", "a byte follows the last payload", entered(nothing_entered, data + b"\0"))
    hole = place(MASKS, data_offsets=[start + 1, stop + 1])
    behind = data[:start] + b"\0" + data[start:]
    yield made("hole", "safetensors", "a hole lies between two payloads", entered(hole, behind))
    tensor = RawTensor("U8", (8,), np.frombuffer(bytes(5) + flags, np.uint8))
    shared = changed(bits, brings(tensor))
    entries, data_shared = split(shared)
    entries[MASKS]["data_offsets"] = [offset - 3 for offset in entries[MASKS]["data_offsets"]]
    overlap = with_header(entries, data_shared[:-3])
    yield made("overlap", "safetensors", "two payloads overlap", overlap)
    small_shape = brings(RawTensor("F32", (3,), bias.data))
    yield made("dense-size", "safetensors", "a payload is smaller than its shape", changed(bits, small_shape))
    unknown = brings(RawTensor("F7", (8,), bias.data))
    data_unknown = changed(bits, unknown)
    yield made("dtype-unknown", "safetensors", "a dtype is unknown", data_unknown, also=["dense.dtype"])
    listed_entry = entered(lambda entries: entries.update({MASKS: list(header[MASKS].values())}))
    yield made("entry-array", "header.entry", "a tensor's entry is an array", listed_entry)
    space = (int.from_bytes(bits[:8], "little") + 1).to_bytes(8, "little") + b" " + bits[8:]
    yield made("space-before", "header.start", "a space stands before the header", resealed(space))
    raw = json.dumps(header, separators=(",", ":"))
    for name, why, again in (
        ("header-key-twice", "the header holds an entry twice", raw[:-1] + f',"{MASKS}":{json.dumps(header[MASKS])}}}'),
        (
            "metadata-key-twice",
            "the metadata holds a key twice",
            raw.replace('"version"', '"format":"maskhub","version"'),
        ),
    ):
        sized = len(again.encode()).to_bytes(8, "little") + again.encode()
        yield made(name, "key.twice", why, resealed(sized + data))

    for name, payload in (("manifest", manifest), ("masks", masks)):
        reserved = f"maskhub.{name}"
        signed = laid_out(found.plain, payloads(found) | {reserved: RawTensor("I8", payload.shape, payload.data)})
        yield made(f"{name}-i8", "payload.dtype", f"{reserved} has the dtype I8", signed)
        square = laid_out(found.plain, payloads(found) | {reserved: RawTensor("U8", (1, *payload.shape), payload.data)})
        yield made(f"{name}-2d", "payload.shape", f"{reserved} has two dimensions", square)
        content = parts(whole)
        left = {key: value for key, value in payloads(content).items() if key != reserved}
        because = "there is nothing to read" if payload is manifest else None
        data = laid_out(content.plain, left)
        yield made(f"{name}-missing", "payload.missing", f"{reserved} is missing", data, because=because)


def nothing_entered(entries: dict[str, Any]) -> None:
    pass


def refused_manifests(bits: bytes) -> Iterable[tuple[str, Vector]]:
    """Frames that are none, and JSON that is none."""
    found = parts(bits)
    text = written(found.manifest)
    frame = packed(text)
    unread, parsed = "the library cannot read it", "a parser of JSON takes no part"
    summed = packed(text, write_checksum=True)
    dictionary = bytearray(framed(text, LARGEST_WINDOW))
    dictionary[4:6] = bytes([dictionary[4] | 1, dictionary[5], 7])
    for name, rule, why, payload, because in (
        ("longer", "end", "a byte follows the frame", frame + b"\0", None),
        ("two", "end", "a second frame follows, of nothing", frame + packed(b""), None),
        ("skippable-behind", "end", "a skippable frame follows", frame + SKIPPABLE, None),
        ("cut", "end", "the frame's last byte is missing", frame[:-1], "some of it is not there"),
        ("skippable-before", "frame", "a skippable frame stands before", SKIPPABLE + frame, unread),
        ("plain", "frame", "it is not compressed", text, unread),
        ("empty", "frame", "it has no bytes", b"", "there is nothing to read"),
        ("no-size", "size", "the frame does not state its size", packed(text, write_content_size=False), None),
        ("window", "window", "the window has 2^23 + 2^20 bytes", framed(text, LARGEST_WINDOW + 1), None),
        ("large", "most", "it has 2^26 + 1 bytes", padded(MOST + 1), None),
        ("cut-in-header", "library", "the frame ends inside its header", frame[:6], unread),
        ("damaged", "library", "a block of a kind that there is not", frame[:7] + b"\7" * 9, unread),
        ("checksum", "library", "the frame's checksum is wrong", summed[:-1] + bytes([summed[-1] ^ 1]), unread),
        ("size", "library", "the frame states a byte more", framed(text, LARGEST_WINDOW, len(text) + 1), unread),
        ("dictionary", "library", "the frame needs a dictionary", bytes(dictionary), unread),
    ):
        why = f"manifest: {why}"
        yield made(f"manifest-{name}", f"manifest.{rule}", why, assembled(found, payload), because=because)

    for name, why, content in (
        ("of-nothing", "no text at all", b""),
        ("bom", "a byte order mark before the text", b"\xef\xbb\xbf" + text),
        ("utf16", "UTF-16", text.decode().encode("utf-16")),
        ("latin1", "a byte that is no UTF-8", text.replace(b'"user/base"', b'"user/bas\xe9"')),
        ("two-values", "a second value", text + b"{}"),
        ("array", "an array", b"[]"),
        ("comma", "a comma at an object's end", text[:-1] + b",}"),
        ("control", "a control character in a string", text.replace(b'"user/base"', b'"user/bas\x01"')),
    ):
        data = assembled(found, packed(content))
        yield made(f"json-{name}", "json", f"manifest: {why}", data, because=parsed)

    def noted(text: str) -> bytes:
        return texted(text, bits, put("lineage", {"a": HERE}))

    yield made("metric-nan", "number.none", "a number is NaN", noted("NaN"))
    yield made("infinity", "number.none", "a number is -Infinity", noted("-Infinity"))
    yield made("number-huge", "number.range", "the number 1e309", noted("1e309"))
    yield made("integer-huge", "number.range", "the integer 10^309", noted("1" + "0" * 309))
    low = texted("-1" + "0" * 309, bits, put("metrics", {"a": HERE}))
    yield made("integer-low", "number.range", "the integer -10^309 as a metric", low)
    yield made("key-twice", "key.twice", "an object holds a key twice, with one value", noted('1,"a":1'))
    yield made("key-twice-escaped", "key.twice", "the same, once by an escape", noted('1,"\\u0061":1'))
    yield made("surrogate", "surrogate", "a string holds half of a surrogate pair", noted('"\\ud800"'))
    yield made("surrogate-low", "surrogate", "a key holds the other half", noted('{"x\\udc00":1}'))
    for name, inner, why in (("deep", 1, "a value"), ("empty", {}, "an empty object")):
        data = changed(bits, put("lineage", {"a": nested(62, inner)}))
        yield made(f"nested-{name}", "nesting", f"{why} stands inside 64 objects and arrays", data)
    fraction = changed(bits, shaped([3.0, 8], "3,8"))
    yield made("dimension-fraction", "integer", "a dimension is written with a fraction", fraction)
    one = decodes(b"\1", np.array([True]))
    exponent = texted("1e0", bits, together(one, put("masks/w/kept", HERE)))
    yield made("kept-exponent", "integer", "kept is written with an exponent", exponent)
    three = changed(bits, nothing, put("masks/w/bytes", 3.0))
    yield made("bytes-fraction", "integer", "bytes is written with a fraction", three)


def refused_metadata(bits: bytes) -> Iterable[tuple[str, Vector]]:
    """Metadata that says something else than the manifest, or not enough."""
    task = changed(bits, put("task", {"type": "text-classification", "architecture": "Net"}))
    alone = parts(task)
    alone.manifest["task"] = None

    def said(
        name: str, rule: str, why: str, key: str, value: Any, content: bytes = bits, **more: Any
    ) -> tuple[str, Vector]:
        return made(name, rule, why, changed(content, nothing, plain(key, value)), **more)

    yield said("format-plain", "format", "the metadata's format is not maskhub", "format", "masks")
    yield said("format-missing", "format", "the metadata has no format", "format", ...)
    yield made("format-other", "format", "the manifest's format is not maskhub", changed(bits, put("format", "masks")))
    none = with_header({**split(bits)[0], "__metadata__": None}, split(bits)[1])
    yield made("metadata-null", "format", "there are no metadata", none, because="they say nothing")
    why = "the metadata's version is no version"
    yield said("version-plain", "version", why, "version", "1", also=["plain.version"])
    inner = changed(bits, nothing, put("version", "1"))
    yield made("version-manifest", "version", "the manifest's is none", inner, also=["plain.version"])
    yield said("version-missing", "version", "the metadata has no version", "version", ...)
    garbage = laid_out({**alone.plain, "version": "2.0"}, {MANIFEST: flat(b"what the next major version has")})
    because = "it is not of this page"
    yield made("version-2", "version.major", "a newer major version of another layout", garbage, because=because)
    yield said("plain-version", "plain.version", "the metadata's version is another", "version", "1.1")
    yield said("plain-id", "plain.id", "the metadata's id is another's", "id", WRONG)
    yield said("plain-id-upper", "plain.id", "the metadata's id has upper-case digits", "id", alone.plain["id"].upper())
    why = "the id does not cover the task"
    yield said("plain-id-task", "plain.id", why, "id", content_id(alone.manifest), task)
    yield said("plain-id-missing", "required", "the metadata has no id", "id", ...)
    yield said("plain-base", "plain.base", "the metadata's base is another", "base", "user/other")
    yield said("plain-base-missing", "required", "the metadata has no base", "base", ...)
    yield said("plain-task", "plain.task", "the metadata's task is another", "task", "token-classification", task)
    yield said("plain-task-missing", "plain.task", "the metadata has no task", "task", ..., task)
    yield said("plain-task-none", "plain.task", "the manifest has no task", "task", "text-classification")
    none = changed(bits, put("task", None))
    yield said("plain-task-null", "plain.task", "the manifest's task is null", "task", "text-classification", none)

    # What the id covers, and how.
    renamed = parts(changed(bits, put("base/parameter_prefix", "net.")))
    yield said("plain-id-parameters", "plain.id", "the id is of other parameters", "id", renamed.plain["id"])
    names = {"\uff5e": SMALL, "\U0001f600": SMALL}
    content = saved(maskset(names), "bits")
    id = content_id(parts(content).manifest, lambda name: name.encode("utf-16-be"))
    yield said("plain-id-utf16", "plain.id", "the id takes names in the order of UTF-16", "id", id, content)
    large = changed(task, put("task/max_length", 2**53 + 1))
    id = content_id(parts(large).manifest, told=lambda text: text.replace(b"9007199254740992", b"9007199254740993"))
    yield said("plain-id-integer", "plain.id", "the id takes a large integer as it is", "id", id, large)
    empty = changed(task, together(put("task/config", {}), put("task/tokenizer", None)))
    null = b',"config":{},"tokenizer":null,"type"'
    id = content_id(parts(empty).manifest, told=lambda text: text.replace(b',"type"', null))
    yield said("plain-id-null", "plain.id", "the id takes null and an empty config as there", "id", id, empty)


def refused_dense(bits: bytes) -> Iterable[tuple[str, Vector]]:
    """Dense tensors that manifest and file do not agree on, or that no reader knows."""
    unsaid = changed(bits, put("dense", {}))
    yield made("dense-in-file", "dense.names", "a dense tensor is missing from the manifest", unsaid)
    absent = changed(bits, put("dense/x", WRONG))
    why = "a dense tensor is missing from the file"
    yield made("dense-in-manifest", "dense.names", why, absent)
    flags = parts(bits).masks["w"]
    own = changed(bits, put(f"dense/{MASKS}", digest.tensor_digest("U8", (3,), flags)))
    why = f"the manifest names {MASKS} as a dense tensor"
    yield made("dense-masks", "dense.names", why, own)
    metadata = changed(bits, put("dense/__metadata__", WRONG))
    why = "the manifest names __metadata__ as a dense tensor"
    yield made("dense-metadata", "dense.names", why, metadata)
    for dtype, size in (("F4", 2), ("F6_E2M3", 3), ("F6_E3M2", 3)):
        tensor = RawTensor(dtype, (4,), np.arange(size, dtype=np.uint8))
        yield made(f"dense-{dtype.lower()}", "dense.dtype", f"a dense tensor is {dtype}", changed(bits, brings(tensor)))
    for name, why, shape in (
        ("dense-dimensions-nine", "a tensor has nine dimensions", (2, *[1] * 8)),
        ("dense-huge", "dimensions of a tensor multiply to 2^48 + 2^24 beside a 0", (1 << 24, (1 << 24) + 1, 0)),
    ):
        data = parts(bits).dense["head.bias"].data[: 4 * math.prod(shape)]
        yield made(name, "dense.shape", why, changed(bits, brings(RawTensor("F32", shape, data))))


def refused_drifts(drift: bytes, initial: Initial) -> Iterable[tuple[str, Vector]]:
    """Heads of ``drift``, and its two Rice lists."""
    start, _ = started("w", (3, 8), initial)

    def but(*weights: int) -> Flags:
        found: Flags = start.reshape(-1) ^ np.isin(np.arange(24), weights)
        return found.reshape(3, 8)

    def far(first: bytes, second: bytes = b"", flags: Flags = start) -> bytes:
        """With a list of one far position, in these parts."""
        return drifting(drift, [], [], flags, head=b"\0\0\1", lists=first + second)

    first, second = riced([5], [2])
    missing = "values are not there"
    yield made("drift-no-head", "drift.head", "drift: there is no head", drifting(drift, [], [], start, head=b""))
    for name, why, head in (
        ("cut", "the head ends before its third integer", b"\0\0"),
        ("cut-inside", "the head ends inside an integer", b"\0\0\x80"),
        ("long", "an integer takes a byte more than it needs", b"\x80\0\0\0"),
        ("long-near", "the second one does", b"\0\x80\0\0"),
        ("five", "an integer takes five bytes, and needs one", b"\x81\x80\x80\x80\0\0\0"),
    ):
        data = drifting(drift, [], [], start, head=head)
        yield made(f"drift-head-{name}", "drift.head", f"drift: {why}", data)
    six = drifting(drift, [], [], start, head=leb128(1 << 35) + b"\0\0")
    yield made("drift-head-six", "drift.head", "drift: an integer of six bytes", six, also=["drift.window"])
    for name, rule, why, data in (
        ("window", "drift.window", "a window above 65536", drifting(drift, [], [], start, window=65_537)),
        ("many", "drift.count", "more changes than weights", drifting(drift, list(range(24)), [3], ~but(3))),
        ("far-past-end", "position", "a far position past the end", drifting(drift, [], [24], start)),
        ("rank-past-end", "drift.rank", "a rank that no weight has", drifting(drift, [24], [], start)),
        ("rank-past-window", "drift.rank", "no weight is near", drifting(drift, [0], [], start, window=0)),
        ("longer", "drift.end", "a byte follows empty lists", drifting(drift, [], [], start, lists=b"\0")),
        ("longer-far", "drift.end", "a byte follows the second list", far(first, second + b"\0", but(5))),
    ):
        yield made(f"drift-{name}", rule, f"drift: {why}", data)
    none = changed(drift, put("initial", ...))
    because = "there is no mask to begin with"
    yield made("drift-no-initial", "drift.initial", "drift: initial is missing", none, because=because)

    for name, why, data in (
        ("nothing", "a list of one value has no bytes", far(b"")),
        ("parameters", "the parameters are cut short", far(b"\0")),
        ("high", "the high parts are cut short", far(from_bits("001"), b"")),
        ("low", "the low parts are cut short", far(first)),
        ("near", "the first list is cut short", drifting(drift, [], [], start, head=b"\1\1\0", lists=first)),
    ):
        yield made(f"rice-short-{name}", "rice.short", f"drift: {why}", data, because=missing)
    wide = from_bits("0" * 64 + "11")
    yield made("rice-parameter-32", "rice.parameter", "drift: a parameter of 32", far(wide, b"\5\0\0\0", but(5)))
    below = "values have no bits below the lowest"
    negative = from_bits("01" + "000001")
    data = far(negative, flags=but(5))
    yield made("rice-parameter-negative", "rice.parameter", "drift: a parameter of -1", data, because=below)
    keep, _ = started("w", (20, 20), initial)
    keep.reshape(-1)[[*range(128), 129]] ^= True
    for name, change, reason in (("later-32", 32, None), ("later-negative", -1, below)):
        lists = riced([0] * 128 + [1], [0, change])
        head = leb128(0) + leb128(0) + leb128(129)
        data = drifting(drift, [], [], keep, head=head, lists=lists[0] + lists[1])
        why = f"drift: the second parameter is {change}"
        yield made(f"rice-parameter-{name}", "rice.parameter", why, data, because=reason)
    huge = far(*riced([1 << 32], [31]))
    yield made("rice-value", "rice.value", "drift: a value of 2^32", huge, also=["position"])
    head = b"\1\1\0"
    huge = drifting(drift, [], [], start, head=head, lists=b"".join(riced([1 << 32], [31])))
    yield made("rice-value-near", "rice.value", "drift: a first value of 2^32", huge, also=["drift.rank"])
    spoilt = [first[:-1] + bytes([first[-1] | 128]), second[:-1] + bytes([second[-1] | 128])]
    assert spoilt[0] != first
    assert spoilt[1] != second
    data = far(spoilt[0], second, but(5))
    yield made("rice-padding-first", "rice.padding", "drift: a bit follows the high parts", data)
    data = far(first, spoilt[1], but(5))
    yield made("rice-padding-second", "rice.padding", "drift: a bit follows the low parts", data)


def joined(first: bytes, second: bytes) -> bytes:
    """Two pcodec files as one of two chunks; their heads have the same size."""
    head = 9
    assert first[7:9] == second[7:9] == b"\4\1"
    return first[:head] + first[head:-1] + second[head:]


def wrong_fields(bits: bytes) -> Iterable[tuple[str, Vector]]:
    """A wrong value for each field of the manifest."""
    hub = {"id": "a/b", "commit": "c"}
    task = {"type": "t", "architecture": "a"}
    hint = WRONG[:16]
    root = {"name": "user/base", "root": WRONG}
    twice = {**root, "tensors": {"w": hint, "v": hint}, "parameters": {"v": "w"}}
    unbound = {**root, "tensors": {"w": hint}, "parameters": {"v": "x"}}

    def field(
        name: str, rule: str, why: str, change: Change = nothing, then: Change = nothing, **more: Any
    ) -> tuple[str, Vector]:
        return made(name, rule, why, changed(bits, change, then), **more)

    def no_dense(c: Parts) -> None:
        c.dense.clear()
        c.manifest["dense"] = {}

    def hollow(*shape: int) -> Change:
        return decodes(b"", np.ones(0, bool), shape=list(shape), digest=digest.mask_digest(shape, b""))

    def upper(path: str) -> Change:
        *outer, last = path.split("/")

        def change(c: Parts) -> None:
            inner: Any = c.manifest
            for key in outer:
                inner = inner[key]
            inner[last] = inner[last].upper()

        return change

    def two(c: Parts) -> None:
        """A second mask of no bytes, which the first one's claim of four undoes."""
        c.manifest["base"]["tensors"]["x"] = hint
        everything = Mask.from_bool(np.ones(8, bool))
        entry = {"shape": [8], "kept": 8, "digest": everything.digest, "codec": {"name": "gaps", "width": 16}}
        c.manifest["masks"]["x"] = entry
        c.masks["x"] = b""

    yield field("digest-upper-case", "parent", "a digest has upper-case digits", put("parent", WRONG.upper()))
    why = "base.root has upper-case digits"
    yield field("root-upper-case", "base.root", why, upper("base/root"))
    why = "a hint has upper-case digits"
    yield field("hint-upper-case", "base.tensors", why, put("base/tensors/w", "0123456789ABCDEF"))
    why = "a mask's digest has upper-case digits"
    yield field("mask-digest-upper-case", "masks.*.digest", why, upper("masks/w/digest"), also=["digest.matches"])
    why = "a tensor's digest has upper-case digits"
    yield field("dense-digest-upper-case", "dense", why, upper("dense/head.bias"), also=["digest.matches"])
    negative = together(put("masks/w/bytes", 4), put("masks/x/bytes", -1))
    yield field("mask-bytes-negative", "masks.*.bytes", "bytes is negative", two, negative)
    one = decodes(b"\1", np.array([True]))
    yield field("mask-bytes-true", "masks.*.bytes", "bytes is true", one, put("masks/w/bytes", True))
    yield field("kept-true", "masks.*.kept", "kept is true", one, put("masks/w/kept", True))
    yield field("base-none", "base", "base is no object", then=put("base", []), because="nothing is bound to anything")
    yield field("base-name", "base.name", "base.name is null", put("base/name", None))
    yield field("hint-short", "base.tensors", "a hint has 15 digits", put("base/tensors/w", hint[1:]))
    yield field("hint-long", "base.tensors", "a hint has 64 digits", put("base/tensors/w", WRONG))
    for name, why, bad in (
        ("of-control-character", "a name has a control character", "a\x1bb"),
        ("of-delete", "a name has U+007F", "a\x7f"),
        ("long", "a name has 1025 characters", "n" * 1025),
        ("empty", "a name is empty", ""),
    ):
        yield field(f"name-{name}", "name", why, put(f"base/tensors/{bad}", hint))
    why = "a dense tensor's name has a line's end"
    yield field("name-dense", "name", why, brings(RawTensor.from_numpy(np.zeros(2, np.float32)), "a\n"))
    yield field(
        "prefix", "base.parameter_prefix", "the prefix has a control character", put("base/parameter_prefix", "a\nb")
    )
    yield field("parameter-empty", "base.parameters", "a parameter's name is empty", put("base/parameters", {"w": ""}))
    yield field(
        "parameter-unbound",
        "base.parameters.known",
        "base.parameters names what is not in base.tensors",
        put("base", unbound),
    )
    yield field("parameter-twice", "parameter.twice", "two base tensors fill one parameter", put("base", twice))
    yield field(
        "parameter-dense",
        "parameter.twice",
        "a dense tensor fills a base's parameter",
        put("base/parameters", {"w": "head.bias"}),
    )
    yield field("hub-text", "base.hub", "base.hub is no object", put("base/hub", "a/b"))
    yield field("hub-id", "base.hub.id", "base.hub.id is a number", put("base/hub", hub | {"id": 1}))
    yield field("hub-commit", "base.hub.commit", "base.hub.commit is null", put("base/hub", hub | {"commit": None}))
    yield field(
        "hub-files",
        "base.hub.files",
        "a file's digest has 40 digits",
        put("base/hub", hub | {"files": {"f": "0" * 40}}),
    )
    yield field("masks-none", "masks", "masks is no object", then=put("masks", []), because="it has no entries")
    yield field("dimensions-nine", "masks.*.shape", "a shape has nine dimensions", shaped([3, 8, 1, 1, 1, 1, 1, 1, 1]))
    yield field("dimension-negative", "masks.*.shape", "two dimensions are negative", shaped([-3, -8]))
    yield field(
        "shape-huge",
        "masks.*.shape",
        "dimensions multiply to 2^48 + 2^24 beside a 0",
        hollow(1 << 24, (1 << 24) + 1, 0),
    )
    yield field("shape-huge-and-empty", "masks.*.shape", "dimensions multiply to 2^49 beside a 0", hollow(1 << 49, 0))
    yield field("kept-negative", "masks.*.kept", "kept is negative", put("masks/w/kept", -1), also=["kept.matches"])
    yield field(
        "kept-too-many", "kept.most", "kept is more than the weights", put("masks/w/kept", 25), also=["kept.matches"]
    )
    yield field(
        "not-in-base", "masks.known", "a masked tensor is not in base.tensors", put("base/tensors", {"v": hint})
    )
    yield field(
        "codec-text", "masks.*.codec", "a codec is no object", put("masks/w/codec", "bits"), because="it names no codec"
    )
    yield field(
        "codec-unknown",
        "codec",
        "the codec is unknown",
        put("masks/w/codec/name", "huffman"),
        because="it cannot be decoded",
    )
    yield field(
        "codec-missing", "codec", "the codec has no name", put("masks/w/codec", {}), because="it cannot be decoded"
    )
    yield field("dense-none", "dense", "dense is no object", no_dense, put("dense", []))
    yield field("task-text", "task", "task is no object", put("task", "x"), because="no id follows from it")
    yield field("task-type", "task.type", "task.type is a number", put("task", task | {"type": 1}))
    yield field(
        "task-architecture",
        "task.architecture",
        "task.architecture is null",
        put("task", task | {"architecture": None}),
    )
    yield field("task-config", "task.config", "task.config is an array", put("task", task | {"config": []}))
    yield field("task-tokenizer", "task.tokenizer", "task.tokenizer is a number", put("task", task | {"tokenizer": 1}))
    yield field("task-length", "task.max_length", "task.max_length is text", put("task", task | {"max_length": "128"}))
    yield field("initial-text", "initial", "initial is no object", put("initial", "x"))
    yield field("seed-huge", "initial.seed", "the seed has 33 bits", put("initial/seed", 1 << 32))
    yield field("cut-huge", "initial.cut", "the cut is above 65536", put("initial/cut", 65_537))
    yield field("low-text", "initial.low", "initial.low is text", put("initial/low", "0"))
    yield field("high-true", "initial.high", "initial.high is true", put("initial/high", True))
    yield field(
        "generator-unknown", "initial.generator", "the generator is unknown", put("initial/generator", "mt19937")
    )
    yield field("parent-short", "parent", "parent is no digest", put("parent", "0" * 63))
    yield field("metric-text", "metrics", "a metric is no number", put("metrics", {"accuracy": "high"}))
    yield field("metric-true", "metrics", "a metric is true", put("metrics", {"accuracy": True}))
    yield field("lineage-array", "lineage", "lineage is an array", put("lineage", []))


def build() -> dict[str, Vector]:
    return dict([*codec_vectors(), *manifest_vectors(), *task_vectors(), *limit_vectors(), *refused_vectors()])


def listing(folder: Path) -> dict[str, Any]:
    """What vectors.json holds: each file's name and what is said of it, and its digest."""
    path = folder / "vectors.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["files"] if path.exists() else {}
    return found


def add(folder: Path, built: dict[str, Vector], names: Iterable[str]) -> None:
    """Write the files ``names``. Raises ValueError for one that is there already."""
    listed = listing(folder)
    for name in names:
        if name in listed or (folder / name).exists():
            raise ValueError(f"{name} is there already, and a vector never changes: give the new one another name")
        if name not in built:
            raise ValueError(f"{name} is none of the vectors that are made here")
    for name in names:
        content, said = built[name]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        listed[name] = {"since": VERSION, "blake3": blake3(content).hexdigest(), **said}
    text = json.dumps({"files": dict(sorted(listed.items()))}, indent=1, ensure_ascii=False)
    (folder / "vectors.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None, folder: Path = FOLDER) -> int:
    parser = argparse.ArgumentParser(description="Compare the test vectors with what would be written, or add some.")
    parser.add_argument("--new", nargs="+", metavar="NAME", help="files to add; 'all' for all that are not there")
    new = parser.parse_args(arguments).new
    built, listed = build(), listing(folder)
    missing = [name for name in built if name not in listed]
    if new:
        try:
            add(folder, built, missing if new == ["all"] else new)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    other = [
        name for name in listed if name not in built or blake3(built[name][0]).hexdigest() != listed[name]["blake3"]
    ]
    for name in other:
        print(f"{name}: would be written otherwise (perhaps by another version of a compressor); it stays as it is")
    for name in missing:
        print(f"{name}: not there yet; add it with --new {name}")
    return 1 if other or missing else 0


if __name__ == "__main__":
    sys.exit(main())
