"""What the fuzz targets feed to the reader and to the codecs, and what may come of it.

A case is the bytes a fuzzer makes: for the reader a whole file, for the codecs a line of JSON (codec, shape, kept)
followed by a payload.
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.errors import CodecError, MaskhubError
from maskhub.masks.mask import Mask, packed_size
from maskhub.masks.scores import Initial
from tests.attacks.forge import honest, make_vectors, parent_parts, parts

CASES = Path(__file__).parent / "cases"
WEIGHTS = 1 << 20  # in a mask that a fuzzer decodes: larger ones only take time
INITIAL = Initial(7, 6000, -0.02, 0.3)


def read(path: Path, content: bytes) -> None:
    """Read a whole file that has these bytes; MaskhubError is fine, anything else is a finding."""
    path.write_bytes(content)
    try:
        file = MaskFile(path, [_parent()])
        if all(packed_size(entry.shape) <= WEIGHTS for entry in file.manifest.masks.values()):
            file.verify()
    except MaskhubError as error:
        if not str(error).startswith(str(path)):
            raise AssertionError(f"an error that does not name its file: {error}") from error


def decode(case: bytes) -> None:
    """Decode one payload; CodecError is fine, anything else but bits of the right size is a finding."""
    head, _, payload = case.partition(b"\n")
    try:
        entry, shape, kept = json.loads(head)
        codec = codecs.from_dict(entry)
        target = codecs.Target("w", tuple(shape), kept, INITIAL, Mask.from_bool(np.ones(shape, bool)))
        assert 0 <= kept <= target.size <= WEIGHTS
    except CodecError:
        return
    except Exception:  # no case: the fuzzer broke its head
        return
    try:
        bits = codec.decode(np.frombuffer(payload, np.uint8), target)
    except CodecError:
        return
    assert bits.dtype == np.uint8
    assert bits.shape == (packed_size(target.shape),)


def file_seeds() -> list[bytes]:
    """Small right files: one with all codecs, and one of each."""
    seeds = [honest(parts())]
    for name, entry in parts().manifest["masks"].items():
        one = parts()
        one.manifest |= {"masks": {name: entry}, "dense": {}}
        one.masks, one.dense = {name: one.masks[name]}, {}
        seeds.append(honest(one))
    return seeds


def codec_seeds() -> list[bytes]:
    """Right payloads of each codec."""
    masks = parts().manifest["masks"].items()
    return [case(entry["codec"], entry["shape"], entry["kept"], parts().masks[name]) for name, entry in masks]


def case(codec: dict[str, Any], shape: list[int], kept: int, payload: bytes) -> bytes:
    return json.dumps([codec, shape, kept]).encode() + b"\n" + payload


def drift_payload(rng: random.Random, near: list[int]) -> bytes:
    """A payload of ``drift`` with this list, another one, and now and then something wrong with head or lists."""

    def odd() -> bool:
        return rng.random() < 0.1

    far = [rng.choice((0, 1, 5, 400, 1 << 31, (1 << 32) - 1 + odd())) for _ in range(rng.choice((0, 0, 1, 2, 130)))]
    window = rng.choice((0, 1, 1 << 10, 1 << 15, 1 << 16, 1 << 17))
    payload = b""
    for number in (window, len(near) + odd(), len(far) + odd()):
        payload += make_vectors.leb128(number, rng.randint(1, 7) if odd() else 1)
    for values in (near, far):
        least = [max(max(values[i : i + 128]).bit_length() - 8, 0) for i in range(0, len(values), 128)]
        chosen = [rng.choice((k, k, k + 1, 31, 32 if odd() else k, -1 if odd() and k == 0 else k)) for k in least]
        for part in make_vectors.riced(values, chosen):
            last = part[-1:]
            if part and odd():
                last = bytes([last[0] | 1 << rng.randrange(8)])
            payload += part[: -1 - rng.randrange(2) if odd() else -1] + last
    return payload + (b"\0" if odd() else b"")


@functools.cache
def _parent() -> Path:
    folder = TemporaryDirectory(prefix="maskhub-fuzz-")
    _keep.append(folder)
    path = Path(folder.name) / "parent.msk"
    path.write_bytes(honest(parent_parts()))
    return path


_keep: list[TemporaryDirectory[str]] = []
