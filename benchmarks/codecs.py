"""Size and speed of the codecs and of whole ``.msk`` files, beside the usual ways to store a mask."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyroaring
import safetensors.numpy
import torch
import zstandard

import maskhub
from benchmarks import samples
from benchmarks.report import Report, medians
from maskhub.container import codecs
from maskhub.container.manifest import MANIFEST
from maskhub.container.reader import MaskFile
from maskhub.masks.mask import Mask
from maskhub.storage.work import workers

SPARSITIES = (0.01, 0.03, 0.05, 0.10)
LAYERS, HIDDEN = 12, 768  # BERT-base's encoder: 85 M weights in 72 tensors
RUNS = 5
SAVEZ = "savez_compressed"

Coded = tuple[Mask, codecs.Codec, Any]
Map = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Way:
    """One way to store masks: ``encode`` makes something that ``decode`` takes, and ``size`` measures in bytes."""

    encode: Callable[[], Any]
    decode: Callable[[Any], object]
    size: Callable[[Any], int]


def run(report: Report) -> None:
    with ThreadPoolExecutor(workers()) as pool:  # as the writer does
        for sparsity in SPARSITIES:
            _compare(report, pool, sparsity)
    _files(report)
    _breakdown(report)


def _compare(report: Report, pool: ThreadPoolExecutor, sparsity: float) -> None:
    masks = samples.masks(samples.encoder(LAYERS, HIDDEN), sparsity)
    weights = sum(mask.size for mask in masks.values())
    bound = samples.shannon(masks)
    ways = {name: _codec(pool.map, masks, name) for name in ("bits", "zstd", "gaps", "auto")}
    ways |= {"gaps, one thread": _codec(map, masks, "gaps")} | _peers(masks)
    stored = {name: way.encode() for name, way in ways.items()}
    encode = medians({name: way.encode for name, way in ways.items()}, RUNS)
    decode = medians(
        {name: lambda name=name: ways[name].decode(stored[name]) for name in ways},  # type: ignore[misc]
        RUNS,
    )
    sizes = {name: way.size(stored[name]) for name, way in ways.items()}
    slow, sizes[slow], encode[slow], decode[slow] = _slow_zstd(masks)
    bits = {name: size * 8 / weights for name, size in sizes.items()}
    report.table(
        f"sparsity {sparsity}",
        f"{weights:,} weights in {len(masks)} tensors, {sparsity:.0%} dropped; Shannon bound {bound:.4f} bits a weight",
        [
            {
                "way": name,
                "bits a weight": bits[name],
                "over bound": bits[name] / bound,
                "encode s": encode[name],
                "decode s": decode[name],
                "x savez": encode[SAVEZ] / encode[name],
                "x np.load": decode[SAVEZ] / decode[name],
            }
            for name in sizes
        ],
        note=f"In memory; median of {RUNS} runs that take turns. The first four: codecs.encode and .decode, packed "
        f"bits to payload and back, in the writer's pool of {workers()} threads, counting kept weights included, "
        "digests not. All others use one thread. Boolean ways start from and end in boolean arrays, all others "
        "packed bits. zstd -19: one run over one layer, multiplied. x savez, x np.load: how many times faster than "
        "those.",
    )
    at = f"gaps at {sparsity:.0%}"
    report.check(f"{at}: bits over the Shannon bound", bits["gaps"] / bound, at_most=1.01)
    for peer in (SAVEZ, slow, "Roaring", "bool safetensors", "bool torch.save"):
        report.check(f"{at}: size over {peer}", sizes["gaps"] / sizes[peer], at_most=1.0)
    for peer in (SAVEZ, slow, "Roaring"):
        report.check(f"{at}: encoding time over {peer}", encode["gaps"] / encode[peer], at_most=1.0)
    for peer in (SAVEZ, slow):
        report.check(f"{at}: decoding time over {peer}", decode["gaps"] / decode[peer], at_most=1.0)
    report.check(f"{at}: encoding, times faster than {SAVEZ}", encode[SAVEZ] / encode["gaps"], at_least=8)
    report.check(f"{at}: decoding, times faster than numpy.load", decode[SAVEZ] / decode["gaps"], at_least=1.5)


def _codec(each: Map, masks: Mapping[str, Mask], name: str) -> Way:
    def encode_one(mask: Mask) -> Coded:
        new = Mask(mask.shape, mask.bits)  # which has nothing counted yet
        codec, payload = codecs.encode(new, name, samples.target(new))
        return mask, codec, np.frombuffer(payload, np.uint8)

    def decode_one(coded: Coded) -> object:
        mask, codec, payload = coded
        return codec.decode(payload, samples.target(mask))

    return Way(
        encode=lambda: list(each(encode_one, masks.values())),
        decode=lambda coded: list(each(decode_one, coded)),
        size=lambda coded: sum(payload.nbytes for _, _, payload in coded),
    )


def _peers(masks: Mapping[str, Mask]) -> dict[str, Way]:
    packed = {name: mask.bits for name, mask in masks.items()}
    boolean = {name: mask.to_bool() for name, mask in masks.items()}
    tensors = {name: torch.from_numpy(keep) for name, keep in boolean.items()}

    def savez() -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **packed)  # type: ignore[arg-type]
        return buffer.getvalue()

    def load(data: bytes) -> object:
        with np.load(io.BytesIO(data)) as arrays:
            return [arrays[name] for name in arrays.files]

    def torch_save() -> bytes:
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        return buffer.getvalue()

    def zstd() -> list[bytes]:
        return [zstandard.ZstdCompressor(level=3).compress(bits.data) for bits in packed.values()]

    def roaring() -> list[bytes]:
        return [pyroaring.BitMap(np.flatnonzero(~keep).astype(np.uint32)).serialize() for keep in boolean.values()]

    def roaring_load(maps: list[bytes]) -> object:
        return [pyroaring.BitMap.deserialize(data).to_array() for data in maps]

    return {
        SAVEZ: Way(savez, load, len),
        "Roaring": Way(roaring, roaring_load, lambda maps: sum(map(len, maps))),
        "zstd -3": Way(zstd, _unzstd, lambda frames: sum(map(len, frames))),
        "bool safetensors": Way(lambda: safetensors.numpy.save(boolean), safetensors.numpy.load, len),
        "bool torch.save": Way(torch_save, lambda data: torch.load(io.BytesIO(data)), len),
    }


def _unzstd(frames: list[bytes]) -> list[bytes]:
    return [zstandard.ZstdDecompressor().decompress(frame) for frame in frames]


def _slow_zstd(masks: Mapping[str, Mask]) -> tuple[str, int, float, float]:
    """``zstd -19`` takes ten seconds, so: one run over the first layer, multiplied."""
    part = list(masks.values())[: len(masks) // LAYERS]
    start = time.perf_counter()
    frames = [zstandard.ZstdCompressor(level=19).compress(mask.bits.data) for mask in part]
    middle = time.perf_counter()
    _unzstd(frames)
    end = time.perf_counter()
    return "zstd -19", LAYERS * sum(map(len, frames)), LAYERS * (middle - start), LAYERS * (end - middle)


def _files(report: Report) -> None:
    """Whole files, as a user writes and reads them."""
    maskset = samples.maskset(LAYERS, HIDDEN, 0.05)
    packed = {name: mask.bits for name, mask in maskset.masks.items()}
    with tempfile.TemporaryDirectory() as folder:
        msk, npz = Path(folder) / "mask.msk", Path(folder) / "mask.npz"

        def read() -> object:
            file = MaskFile(msk)
            return [file.mask(name).bits for name in file.manifest.masks]

        def load() -> object:
            with np.load(npz) as arrays:
                return [arrays[name] for name in arrays.files]

        seconds = medians(
            {
                "maskhub.save": lambda: maskhub.save(maskset, msk, codec="gaps", force=True),
                "numpy.savez_compressed": lambda: np.savez_compressed(npz, **packed),  # type: ignore[arg-type]
                "MaskFile, every mask": read,
                "numpy.load, every array": load,
                "MaskFile.verify": lambda: MaskFile(msk).verify(),
            },
            RUNS,
        )
        sizes = [msk.stat().st_size, npz.stat().st_size] * 2 + [msk.stat().st_size]
    report.table(
        "files",
        "Whole files, the same 85 M weights, 5% dropped",
        [{"what": n, "seconds": s, "file bytes": size} for (n, s), size in zip(seconds.items(), sizes, strict=True)],
        note=f"Median of {RUNS} runs that take turns, files in the page cache. save includes digests and fsync "
        "(numpy's does not sync); MaskFile checks digests of what it decodes, in one thread; "
        "verify checks the seal besides.",
    )


def _breakdown(report: Report) -> None:
    """Where the bytes of a small model's mask file are."""
    maskset = samples.maskset(layers=6, hidden=384, sparsity=0.05)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.msk"
        maskhub.save(maskset, path)
        file = MaskFile(path)
        frame = file._file.tensors[MANIFEST].nbytes
    parts = {
        "masks": sum(entry.bytes for entry in file.manifest.masks.values()),
        "dense tensors": sum(file.dense(name).nbytes for name in file.manifest.dense),
        "manifest, compressed": frame,
    }
    parts["header"] = file.file_size - sum(parts.values())
    report.table(
        "breakdown",
        f"MiniLM-L6: 10.6 M weights in {len(maskset.masks)} tensors, 5% dropped: a file of {file.file_size:,} bytes",
        [{"part": part, "bytes": n, "share": n / file.file_size} for part, n in parts.items()],
        note=f"The manifest is {len(file.manifest_text.encode()):,} bytes of JSON.",
    )
