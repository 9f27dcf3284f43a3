"""Making files by hand: right ones of every codec, and any lie around them, with digests that agree."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from tests.tiny import read_parts

Parts = tuple[dict[str, Any], dict[str, bytes]]  # manifest and payloads
Change = Callable[[dict[str, Any], dict[str, bytes]], object]

PLACEHOLDER = "5ea1" * 16


@functools.cache
def _masksets() -> tuple[MaskSet, MaskSet]:
    """A mask set with a tensor for each codec, and its parent."""
    rng = np.random.default_rng(0)
    flags = {
        "bits": rng.random(21) < 0.5,
        "delta": rng.random((10, 10)) < 0.9,
        "drift": rng.random((20, 20)) < 0.9,
        "gaps": rng.random((9, 70)) >= 0.1,
        "nm": np.tile([1, 0, 1, 0], (8, 2)) > 0,
        "zstd": np.ones((40, 20), bool),
    }
    masks = {name: Mask.from_bool(keep) for name, keep in flags.items()}
    before = flags["delta"].copy()
    before[::3, 0] ^= True
    base = BaseBinding.of("b", {n: digest.checksum(n.encode()) * 4 for n in masks}, {n: f"m.{n}" for n in masks}, None)
    task = Task("text-classification", "BertForSequenceClassification", {"id2label": {"0": "ham"}})
    dense = {"head": RawTensor.from_numpy(np.arange(3, dtype=np.float32))}
    child = MaskSet(base, masks, dense, task, Initial(7, 6000, -0.02, 0.3), {"accuracy": 0.9}, {"note": "n"})
    return child, MaskSet(base, {"delta": Mask.from_bool(before)})


@functools.cache
def _parts() -> tuple[Parts, Parts]:
    child, parent = _masksets()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.msk"
        save(parent, path)
        above = read_parts(path)
        found = []
        for name, mask in child.masks.items():  # a file has one codec, or the smallest: put one together
            save(dataclasses.replace(child, masks={name: mask}), path, codec=name, parent=parent, force=True)
            found.append(read_parts(path))
    whole = found[0]
    for manifest, payloads in found:
        whole[0]["masks"] |= manifest["masks"]
        whole[1].update(payloads)
    whole[0]["parent"] = above[0]["id"]
    return whole, above


def parts() -> Parts:
    """Manifest and payloads of a small file with a mask of each codec, named by it, and a dense tensor."""
    return copy.deepcopy(_parts()[0])


def parent_parts() -> Parts:
    """The same of the file that its ``delta`` mask is coded against."""
    return copy.deepcopy(_parts()[1])


def container(manifest: dict[str, Any] | str, payloads: dict[str, bytes]) -> bytes:
    """A safetensors file from any manifest and payloads."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    header: dict[str, Any] = {"__metadata__": {"maskhub": text}}
    place = 0
    for name, payload in payloads.items():
        header[name] = {"dtype": "U8", "shape": [len(payload)], "data_offsets": [place, place + len(payload)]}
        place += len(payload)
    return raw(json.dumps(header).encode(), b"".join(payloads.values()))


def raw(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def honest(manifest: dict[str, Any], payloads: dict[str, bytes], *, id: bool = True) -> bytes:
    """A file whose checksums, root, id and seal fit: what someone who wants to do harm would write."""
    entries = {**manifest["masks"], **manifest["dense"]} if "dense" in manifest else manifest["masks"]
    for name, entry in entries.items():
        entry["checksum"] = digest.checksum(payloads.get(name, b""))
    base = manifest["base"]
    base["root"] = digest.base_root(base["tensors"])
    masks, dense = ({n: e["digest"] for n, e in manifest.get(kind, {}).items()} for kind in ("masks", "dense"))
    if id:
        manifest["id"] = digest.mask_id(base["root"], masks, dense)
    manifest["seal"] = PLACEHOLDER
    content = container(manifest, payloads)
    seal = digest.seal(content, content.index(PLACEHOLDER.encode()))
    return content.replace(PLACEHOLDER.encode(), seal.encode(), 1)


def changed(change: Change) -> bytes:
    """The small file with a lie in it, and digests that agree."""
    manifest, payloads = parts()
    change(manifest, payloads)
    return honest(manifest, payloads)


def put(path: str, value: Any) -> Change:
    """A change that sets one field of the manifest; keys are joined by ``/``."""
    *keys, last = path.split("/")

    def change(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        functools.reduce(lambda inner, key: inner[key], keys, manifest)[last] = value

    return change


def claim(name: str, payload: bytes, **entry: Any) -> Change:
    """A change of one mask's payload and of what its entry says."""

    def change(manifest: dict[str, Any], payloads: dict[str, bytes]) -> None:
        payloads[name] = payload
        manifest["masks"][name] |= entry

    return change
