"""Making files by hand: right ones of every codec, and any lie around them, with digests that agree."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maskhub.container import frame
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from tests.spec.tools import load

make_vectors = load("make_vectors")
Parts = make_vectors.Parts
put = make_vectors.put
Change = Callable[[Any], object]  # of parts


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
    base = BaseBinding.of(
        "b", {n: digest.mask_digest((), n.encode()) for n in masks}, {n: f"m.{n}" for n in masks}, None
    )
    task = Task("text-classification", "BertForSequenceClassification", {"id2label": {"0": "ham"}})
    dense = {"head": RawTensor.from_numpy(np.arange(3, dtype=np.float32))}
    child = MaskSet(base, masks, dense, task, Initial(7, 6000, -0.02, 0.3), {"accuracy": 0.9}, {"note": "n"})
    return child, MaskSet(base, {"delta": Mask.from_bool(before)})


@functools.cache
def _parts() -> tuple[Any, Any]:
    child, parent = _masksets()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.msk"
        save(parent, path)
        above = make_vectors.parts(path.read_bytes())
        found = []
        for name, mask in child.masks.items():  # a file has one codec, or the smallest: put one together
            save(dataclasses.replace(child, masks={name: mask}), path, codec=name, parent=parent, force=True)
            found.append(make_vectors.parts(path.read_bytes()))
    whole = found[0]
    for one in found:
        whole.manifest["masks"] |= one.manifest["masks"]
        whole.masks.update(one.masks)
    whole.manifest["parent"] = parent.id
    return whole, above


def parts() -> Any:
    """What a small file holds that has a mask of each codec, named by it, and a dense tensor."""
    return copy.deepcopy(_parts()[0])


def parent_parts() -> Any:
    """The same of the file that its ``delta`` mask is coded against."""
    return copy.deepcopy(_parts()[1])


def raw(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def honest(content: Any) -> bytes:
    """A file whose metadata and seal fit: what someone who wants to do harm would write."""
    make_vectors.follow(content)
    text = make_vectors.written(content.manifest)
    return bytes(make_vectors.assembled(content, frame.pack(text, 3)))


def with_manifest(text: str | bytes) -> bytes:
    """The small file with any text for its manifest."""
    content = parts()
    make_vectors.follow(content)
    return bytes(make_vectors.assembled(content, frame.pack(text.encode() if isinstance(text, str) else text, 3)))


def broken_seal(content: bytes) -> bytes:
    seal = make_vectors.split(content)[0]["__metadata__"]["seal"].encode()
    return content.replace(seal, digest.NONE.encode(), 1)


def unsealed(content: bytes, change: Change) -> bytes:
    """A file with a change that all follows but the seal."""
    return broken_seal(make_vectors.changed(content, change))


def with_frame(payload: bytes) -> bytes:
    """The small file with any bytes for its manifest's payload."""
    return bytes(make_vectors.assembled(parts(), payload))


def changed(change: Change) -> bytes:
    """The small file with a lie in it, and digests that agree."""
    content = parts()
    change(content)
    return honest(content)


def claim(name: str, payload: bytes, **entry: Any) -> Change:
    """A change of one coded mask and of what its entry says."""

    def change(content: Any) -> None:
        content.masks[name] = payload
        content.manifest["masks"][name] |= entry

    return change
