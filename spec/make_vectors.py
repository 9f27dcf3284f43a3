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
import zstandard
from blake3 import blake3
from numpy.typing import NDArray
from pcodec import ChunkConfig, PagingSpec, standalone

from maskhub.checkpoints.apply import drop
from maskhub.container.codecs import pco
from maskhub.container.manifest import VERSION
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, HubRevision, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial, draw
from maskhub.storage import digest
from maskhub.storage.tensor import ITEM_SIZE, RawTensor

FOLDER = Path(__file__).parent / "vectors"
LONG = 512  # packed bytes; longer masks are listed by their digest only
INITIAL = Initial(seed=11, cut=3000, low=-0.02, high=0.58)

Flags = NDArray[np.bool_]
Parts = tuple[dict[str, Any], dict[str, bytes]]  # manifest and payloads
Change = Callable[[dict[str, Any], dict[str, bytes]], object]
Vector = tuple[bytes, dict[str, Any]]  # content, and what vectors.json says of it


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
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    manifest = json.loads(header.pop("__metadata__")["maskhub"])
    return manifest, {name: content[size:][slice(*entry["data_offsets"])] for name, entry in header.items()}


def assembled(text: str, payloads: dict[str, bytes], metadata: dict[str, str] | None = None, **style: Any) -> bytes:
    """A safetensors file with the manifest ``text`` and a right seal; payloads in the order given."""
    header: dict[str, Any] = {"__metadata__": (metadata or {}) | {"maskhub": text}}
    offset = 0
    for name, payload in payloads.items():
        header[name] = {"dtype": "U8", "shape": [len(payload)], "data_offsets": [offset, offset + len(payload)]}
        offset += len(payload)
    return with_header(header, b"".join(payloads.values()), **style)


def with_header(header: dict[str, Any], data: bytes, **style: Any) -> bytes:
    raw = json.dumps(header, **style).encode()
    raw += b" " * (-len(raw) % 8)
    return resealed(len(raw).to_bytes(8, "little") + raw + data)


def resealed(content: bytes) -> bytes:
    """With a right seal, if there is a place for one."""
    seal = parts(content)[0].get("seal")
    place = content.find(seal.encode()) if isinstance(seal, str) and re.fullmatch("[0-9a-f]{64}", seal) else -1
    return content if place < 0 else content[:place] + digest.seal(content, place).encode() + content[place + 64 :]


def follow(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
    """Make checksums, root and id follow from the rest."""
    entries = {**manifest["masks"], **manifest.get("dense", {})}
    for name in entries.keys() & payloads.keys():
        entries[name]["checksum"] = digest.checksum(payloads[name])
    base = manifest["base"]
    base["root"] = digest.base_root(base["tensors"])
    digests = [{name: e["digest"] for name, e in manifest.get(kind, {}).items()} for kind in ("masks", "dense")]
    manifest["id"] = digest.mask_id(base["root"], *digests)


def changed(content: bytes, change: Change, afterwards: Change | None = None) -> bytes:
    """The file with a change, all digests following; what is changed ``afterwards`` is followed by the seal alone."""
    manifest, payloads = parts(content)
    change(manifest, payloads)
    follow(manifest, payloads)
    if afterwards:
        afterwards(manifest, payloads)
    return assembled(json.dumps(manifest, ensure_ascii=False), payloads, ensure_ascii=False)


def expected(content: MaskSet, data: bytes, **more: Any) -> dict[str, Any]:
    """What vectors.json says of a good file, from the mask set in memory."""
    coded = parts(data)[0]["masks"]
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
    yield "drift-wide.msk", (data := saved(apart, "drift"), expected(apart, data))
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
    named = dataclasses.replace(named, dense={"größe": RawTensor.from_numpy(np.zeros(2, np.int8))})
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

    def unknown(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        inner = [manifest, manifest["base"], manifest["base"]["hub"], manifest["task"], manifest["initial"]]
        for place in [*inner, *manifest["masks"].values(), *manifest["dense"].values()]:
            place["new"] = {"any": [1, None, "x"]}
        for entry in manifest["masks"].values():
            entry["codec"]["new"] = 1

    def newer(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        unknown(manifest, payloads)
        manifest["version"] = "1.23"

    yield "unknown-keys.msk", (data := changed(saved(full), unknown), expected(full, data))
    yield "newer-minor.msk", (data := changed(saved(full), newer), expected(full, data))

    def null(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        manifest.update(task=None, initial=None, parent=None)
        manifest["base"]["hub"] = None

    yield "null-fields.msk", (data := changed(saved(none), null), expected(none, data))

    # Spaces, escapes and another order everywhere; payloads that MaskHub would not write so.
    keep = random("w", (60, 70))
    foreign = maskset({"g\u00e4ps": keep, "zstd": keep, "bits": EDGES["odd"]})
    manifest, payloads = parts(saved(foreign, "bits"))
    gaps = pco.distances(np.flatnonzero(~keep)).astype(np.uint32)
    paging = PagingSpec.exact_page_sizes([100, 1, gaps.size - 101])
    payloads["g\u00e4ps"] = standalone.simple_compress(gaps, ChunkConfig(compression_level=4, paging_spec=paging))
    manifest["masks"]["g\u00e4ps"]["codec"] = {"width": 32, "name": "gaps"}
    compressor = zstandard.ZstdCompressor(level=19, write_checksum=True)
    payloads["zstd"] = compressor.compress(payloads["zstd"])
    manifest["masks"]["zstd"]["codec"] = {"name": "zstd"}
    follow(manifest, payloads)
    text = json.dumps(dict(reversed(manifest.items())), indent=1)
    order = dict(sorted(payloads.items(), reverse=True))
    data = assembled(text, order, {"other": "metadata"}, indent=2)
    yield "other-writer.msk", (data, expected(foreign, data))


def refused_vectors() -> Iterable[tuple[str, Vector]]:
    """Files with one thing wrong each. Their digests and seals are right, unless that is what is wrong."""
    plain = small()
    files = {codec: saved(plain, codec) for codec in ("bits", "zstd", "gaps", "drift")}
    files["nm"] = saved(maskset({"w": pattern("w", (3, 8), 2, 4)}), "nm:2:4")
    files["delta"] = saved(plain, "delta", plain)

    def made(name: str, why: str, data: bytes, parents: Iterable[str] = ()) -> tuple[str, Vector]:
        said: dict[str, Any] = {"why": why}
        return f"refused/{name}.msk", (data, said | ({"parents": list(parents)} if parents else {}))

    def put(path: str, value: Any) -> Change:
        """A change that sets (or with ``...`` removes) what is at ``path`` in the manifest."""

        def change(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
            *outer, last = path.split("/")
            inner: Any = manifest
            for key in outer:
                inner = inner[key]
            if value is ...:
                del inner[last]
            else:
                inner[last] = value

        return change

    def payload(value: bytes, entry: dict[str, Any] | None = None, bits: bytes | None = None) -> Change:
        """A change that replaces the mask's payload, fields of its entry, and its digest by that of ``bits``."""

        def change(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
            payloads["w"] = value
            mask = manifest["masks"]["w"]
            mask |= entry or {}
            if bits is not None:
                mask["digest"] = digest.mask_digest(tuple(mask["shape"]), bits)

        return change

    def nothing(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        pass

    # The file.
    bits = files["bits"]
    yield made("cut-short", "the last byte is missing", bits[:-1])
    yield made("cut-in-header", "the file ends inside the header", bits[:100])
    yield made("longer", "a byte follows the last payload", bits + b"\0")
    header_size = 8 + int.from_bytes(bits[:8], "little")
    header = json.loads(bits[8:header_size])

    def laid_out(offsets: dict[str, list[int]], size: int) -> bytes:
        moved = {name: {**header[name], "data_offsets": place} for name, place in offsets.items()}
        return with_header({"__metadata__": header["__metadata__"], **moved}, bytes(size))

    yield made("overlap", "two payloads overlap", laid_out({"head.bias": [0, 8], "w": [5, 8]}, 8))
    yield made("hole", "a hole lies between two payloads", laid_out({"head.bias": [0, 8], "w": [9, 12]}, 12))
    signed = {**header, "w": {**header["w"], "dtype": "I8"}}
    yield made("payload-i8", "a payload's dtype is I8", with_header(signed, bits[header_size:]))
    yield made(
        "payload-2d",
        "a payload has two dimensions",
        with_header({**header, "w": {**header["w"], "shape": [1, 3]}}, bits[header_size:]),
    )
    raw = json.dumps({"__metadata__": {"other": "x"}}).encode()
    yield made("no-manifest", "the key maskhub is missing", len(raw).to_bytes(8, "little") + raw)
    yield made("payload-missing", "an entry has no payload", changed(bits, nothing, lambda m, p: p.pop("w")))
    yield made("entry-missing", "a payload has no entry", changed(bits, lambda m, p: m["masks"].pop("w")))

    # Digests.
    wrong = "0123456789abcdef" * 4
    yield made("seal-wrong", "the seal is wrong", bits.replace(parts(bits)[0]["seal"].encode(), wrong.encode()))
    yield made("id-wrong", "the id does not follow", changed(bits, nothing, put("id", wrong)))

    def other_root(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        manifest["base"]["root"] = wrong
        digests = [{name: e["digest"] for name, e in manifest[kind].items()} for kind in ("masks", "dense")]
        manifest["id"] = digest.mask_id(wrong, *digests)

    yield made(
        "root-wrong", "base.root does not follow, and the id follows from it", changed(bits, nothing, other_root)
    )
    yield made("digest-wrong", "the mask's digest is another's", changed(bits, put("masks/w/digest", wrong)))
    yield made(
        "dense-digest-wrong", "the tensor's digest is another's", changed(bits, put("dense/head.bias/digest", wrong))
    )
    yield made(
        "checksum-wrong", "the payload's checksum is wrong", changed(bits, nothing, put("masks/w/checksum", wrong[:16]))
    )
    kept = parts(bits)[0]["masks"]["w"]["kept"]
    yield made("kept-wrong", "kept is one less than the bits have", changed(bits, put("masks/w/kept", kept - 1)))

    # The manifest.
    twice = {"name": "user/base", "tensors": {"w": wrong, "v": wrong}, "parameters": {"v": "w"}}

    def both(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        manifest["base"]["parameter_prefix"] = "net."
        manifest["dense"]["w"] = {"dtype": "U8", "shape": [3], "digest": wrong}

    manifest_changes: dict[str, tuple[str, Change]] = {
        "format-other": ("format is not maskhub", put("format", "masks")),
        "version-major": ("a newer major version", put("version", "2.0")),
        "version-none": ("version has no minor number", put("version", "1")),
        "seal-missing": ("a required field is missing", put("seal", ...)),
        "digest-upper-case": ("a digest has upper-case digits", put("parent", wrong.upper())),
        "name-of-control-character": ("a name has a control character", put("base/tensors/a\x1bb", wrong)),
        "name-long": ("a name has 1025 characters", put("base/tensors/" + "n" * 1025, wrong)),
        "name-empty": ("a name is empty", put("base/tensors/", wrong)),
        "dimensions-nine": ("a shape has nine dimensions", put("masks/w/shape", [3, 8, 1, 1, 1, 1, 1, 1, 1])),
        "dimension-negative": ("a dimension is negative", put("masks/w/shape", [-3, -8])),
        "dimension-fraction": ("a dimension is written with a fraction", put("masks/w/shape", [3.0, 8])),
        "shape-huge": ("a shape has 2^48 + 2^24 weights", put("masks/w/shape", [1 << 24, (1 << 24) + 1])),
        "shape-huge-and-empty": ("dimensions multiply to 2^49 beside a 0", put("masks/w/shape", [1 << 49, 0])),
        "kept-too-many": ("kept is more than the weights", put("masks/w/kept", 25)),
        "not-in-base": ("a masked tensor is not in base.tensors", put("base/tensors", {"v": wrong})),
        "parameter-twice": ("two base tensors fill one parameter", put("base", twice)),
        "prefix": ("the prefix has a control character", put("base/parameter_prefix", "a\nb")),
        "parameter-dense": ("a dense tensor fills a base's parameter", put("base/parameters", {"w": "head.bias"})),
        "masked-and-dense": ("one name is masked and dense", both),
        "dtype-unknown": ("a dense tensor has an unknown dtype", put("dense/head.bias/dtype", "F7")),
        "dense-size": ("a dense payload is smaller than its shape", put("dense/head.bias/shape", [3])),
        "codec-unknown": ("the codec is unknown", put("masks/w/codec/name", "huffman")),
        "codec-missing": ("the codec has no name", put("masks/w/codec", {})),
        "generator-unknown": ("the generator is unknown", put("initial/generator", "mt19937")),
        "seed-huge": ("the seed has 33 bits", put("initial/seed", 1 << 32)),
        "cut-huge": ("the cut is above 65536", put("initial/cut", 65_537)),
        "parent-short": ("parent is no digest", put("parent", "0" * 63)),
        "metric-nan": ("a metric is NaN", put("metrics", {"accuracy": float("nan")})),
        "metric-text": ("a metric is no number", put("metrics", {"accuracy": "high"})),
    }  # fmt: skip
    for name, (why, change) in manifest_changes.items():
        yield made(name, why, changed(bits, change))
    nested: Any = 1
    for _ in range(62):
        nested = [nested]
    yield made(
        "nested-deep", "a value stands inside 64 objects and arrays", changed(bits, put("lineage", {"a": nested}))
    )

    # Codecs.
    flags = Mask.from_bool(SMALL).bits.tobytes()
    yield made("bits-size", "bits: a byte too many", changed(bits, payload(flags + b"\0")))
    padded = {"shape": [3, 7], "kept": 3}
    data = changed(bits, payload(b"\1\1\x20", padded, b"\1\1\x20"))
    yield made("padding", "a bit after the last weight is 1, in bits and digest", data)
    frame = zstandard.ZstdCompressor().compress(flags)
    yield made("zstd-longer", "zstd: a byte follows the frame", changed(files["zstd"], payload(frame + b"\0")))
    longer = zstandard.ZstdCompressor().compress(flags + b"\0")
    yield made("zstd-size", "zstd: the frame holds a byte too many", changed(files["zstd"], payload(longer)))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(flags)
    yield made("zstd-no-size", "zstd: the frame does not state its size", changed(files["zstd"], payload(silent)))
    empty = changed(
        saved(maskset({"w": EDGES["empty"]}), "zstd"), payload(zstandard.ZstdCompressor().compress(b"")[:-1])
    )
    yield made("zstd-empty", "zstd: the frame of an empty tensor is cut short", empty)
    yield made("zstd-damaged", "zstd: no frame", changed(files["zstd"], payload(b"\0" * 20)))

    def listed(values: list[int], width: pco.Width = 16) -> bytes:
        return pco.compress(np.array(values), width)

    gaps = pco.distances(np.flatnonzero(~SMALL)).tolist()
    yield made(
        "gaps-past-end", "gaps: a position past the end", changed(files["gaps"], payload(listed([*gaps[:-1], 24])))
    )
    yield made("gaps-few", "gaps: a position too few", changed(files["gaps"], payload(listed(gaps[:-1]))))
    yield made("gaps-many", "gaps: a position too many", changed(files["gaps"], payload(listed([*gaps, 0]))))
    yield made(
        "gaps-width", "gaps: integers of 32 bits and width 16", changed(files["gaps"], payload(listed(gaps, 32)))
    )
    yield made("gaps-width-8", "gaps: no width 8", changed(files["gaps"], put("masks/w/codec/width", 8)))
    full = {"kept": 24}
    data = changed(
        files["gaps"], payload(standalone.simple_compress(np.empty(0, np.uint16), ChunkConfig()), full, b"\xff" * 3)
    )
    yield made("gaps-none", "gaps: a file without numbers for an empty list", data)

    def drift(width: int, window: int, near: list[int], far: list[int], claimed: int | None = None) -> bytes:
        head = np.array([width, window, len(near), len(far) if claimed is None else claimed, *far], "<u4")
        return head.tobytes() + (listed(near) if near else b"")

    drifts = {
        "no-head": ("drift: the head is cut short", drift(16, 100, [], [])[:15]),
        "width": ("drift: no width 8", drift(8, 100, [], [])),
        "window": ("drift: a window above 65536", drift(16, 65_537, [], [])),
        "many": ("drift: more changes than weights", drift(16, 65_536, [0] * 24, [3])),
        "far-missing": ("drift: fewer far positions than the head says", drift(16, 100, [], [1], 2)),
        "far-order": ("drift: far positions fall", drift(16, 100, [], [5, 4])),
        "far-twice": ("drift: a far position stands twice", drift(16, 100, [], [5, 5])),
        "far-past-end": ("drift: a far position past the end", drift(16, 100, [], [24])),
        "rank-past-end": ("drift: a rank that no weight has", drift(16, 65_536, [24], [])),
        "rank-past-window": ("drift: a rank, and the window holds no weight", drift(16, 0, [0], [])),
        "none": ("drift: bytes follow an empty list", drift(16, 100, [], [1]) + b"\0"),
    }
    for name, (why, value) in drifts.items():
        yield made(f"drift-{name}", why, changed(files["drift"], payload(value)))
    yield made("drift-no-initial", "drift: initial is missing", changed(files["drift"], put("initial", ...)))

    symbols = [0, 0]
    yield made("nm-symbol", "nm: a symbol that no word has", changed(files["nm"], payload(listed([1296, 0]))))
    split = {"shape": [4, 6]}
    data = changed(files["nm"], payload(listed(symbols), split, b"\x33" * 3))
    yield made("nm-rows", "nm: groups of four in rows of six", data)
    yield made("nm-few", "nm: a symbol too few", changed(files["nm"], payload(listed([0]))))
    yield made("nm-4-4", "nm: n is not below m", changed(files["nm"], put("masks/w/codec/n", 4)))
    yield made("nm-m-3", "nm: m is 3", changed(files["nm"], put("masks/w/codec/m", 3)))

    delta = files["delta"]
    yield made("delta-no-parent", "delta: parent is missing", changed(delta, put("parent", ...)), ["chain-1.msk"])
    yield made("delta-parent-absent", "delta: the parent is not at hand", changed(delta, nothing), ["chain-1.msk"])
    chain = maskset({"w": random("w", (60, 70)), "v": random("w", (60, 70))}).id
    data = changed(delta, put("parent", chain))
    yield made("delta-parent-shape", "delta: the parent's mask has another shape", data, ["chain-1.msk"])
    data = changed(delta, put("parent", maskset(OPPOSITE).id))
    yield made("delta-parent-lacks", "delta: the parent has no such mask", data, ["opposite.msk"])
    past = payload(listed([24]), {"codec": {"name": "delta", "count": 1, "width": 16}})
    yield made("delta-past-end", "delta: a position past the end", changed(delta, past), ["small.msk"])
    count = put("masks/w/codec/count", 25)
    yield made("delta-many", "delta: more differences than weights", changed(delta, count), ["small.msk"])
    one, other = maskset({"w": SMALL}), maskset({"w": ~SMALL})
    loop = {"a": saved(one, "delta", other), "b": saved(other, "delta", one)}
    for name, others in (("a", "b"), ("b", "a")):
        why = "delta: two files are each other's parents"
        yield made(f"delta-loop-{name}", why, loop[name], [f"refused/delta-loop-{others}.msk"])
    own = saved(one, "delta", one)
    yield made("delta-self", "delta: the parent is the file itself", own, ["refused/delta-self.msk"])


def build() -> dict[str, Vector]:
    return dict([*codec_vectors(), *manifest_vectors(), *refused_vectors()])


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
