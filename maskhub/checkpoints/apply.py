"""Dense checkpoints from a base and a mask: one pass over the base that checks, drops and writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from maskhub.checkpoints.beside import CARD, card, own_files, sentence_files, task_config
from maskhub.checkpoints.checkpoint import CONFIG, INDEX, WEIGHTS, Checkpoint
from maskhub.checkpoints.match import match
from maskhub.checkpoints.scan import Sink, digests, scan
from maskhub.errors import (
    ArgumentError,
    BaseMismatchError,
    OutputError,
    listed,
)
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.atomic import NewFolder, atomic_folders, explained, start_sync, write_at
from maskhub.storage.safetensors import write_header
from maskhub.storage.size import parse_size
from maskhub.storage.tensor import ITEM_SIZE, Bytes, RawTensor, Spec, cast, cast_dtype, float_dtype
from maskhub.storage.work import Progress

MASKABLE = ITEM_SIZE.keys() - {"F8_E8M0"}  # whose every bit pattern is a power of two


def build(
    base: Checkpoint,
    builds: Sequence[tuple[MaskSet, str | Path]],
    *,
    verify: bool = True,
    shard_size: int | str | None = None,
    dtype: str | None = None,
    code: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the dense checkpoints of tasks, each to a new folder, reading the base once: all of them, or none.

    Only a kill or a power cut in the moment in which they get their names can leave some of several without the others;
    each one there is whole.

    ``verify`` checks every base tensor against its digest, which costs no second read. ``shard_size`` is the most bytes
    of a file (None: sharded as the base is), ``dtype`` what floating-point tensors are cast to. ``code`` copies the
    base's own Python files, and lets its ``config.json`` go on naming them.

    Raises BaseMismatchError (before anything is left behind) where the base is another one than a mask's, OutputError
    where a folder cannot be written, and ArgumentError for a dtype or size that is none.
    """
    limit = None if shard_size is None else parse_size(shard_size)
    target = None if dtype is None else float_dtype(dtype)
    outputs = [Path(output) for _, output in builds]
    for output in outputs:
        if not Path(base.name).is_file() and output.absolute().resolve().is_relative_to(base.folder.resolve()):
            raise OutputError(
                f"{output}: the output lies inside the base's own folder", hint="Name a folder elsewhere."
            )
        if outputs.count(output) > 1:
            raise ArgumentError(f"{output}: two masks would be written there", hint="Name a folder for each.")
    base = match(base, [maskset for maskset, _ in builds])
    for maskset, _ in builds:
        check_structure(base, maskset)
    own = own_files(base, code=code)
    beside = []  # by output: files by their names
    for maskset, _ in builds:
        config = json.dumps(task_config(base, maskset, dtype=target, code=code), indent=2) + "\n"
        files = {CONFIG: config.encode("ascii"), CARD: card(base, maskset).encode()}
        beside.append(own | sentence_files(base, maskset, code=code) | files)
    with atomic_folders(outputs) as folders:
        writers = [
            _Writer(base, maskset, folder, path, limit, target)
            for (maskset, _), folder, path in zip(builds, folders, outputs, strict=True)
        ]
        found = scan(
            base,
            [n for n in base if any(n in maskset.base.tensors for maskset, _ in builds)],
            lambda name, spec: [sink for writer in writers for sink in writer.sinks(name, spec)],
            digests=verify,
            progress=progress,
        )
        for (maskset, _), writer, folder, files in zip(builds, writers, folders, beside, strict=True):
            _check_digests(base, maskset, found)
            writer.finish()
            for name, content in files.items():
                folder.write(name, content)
    return outputs


def tensors(base: Checkpoint, maskset: MaskSet, *, verify: bool = True) -> Iterator[tuple[str, RawTensor]]:
    """The task model's tensors, by its parameter names: base tensors with the dropped weights 0, then dense ones.

    All are in memory before the first is given, and each is let go of then. Raises BaseMismatchError as ``build`` does.
    """
    base = match(base, [maskset])
    check_structure(base, maskset)
    whole: dict[str, RawTensor] = {}

    def sinks(name: str, spec: Spec) -> Sequence[Sink]:
        data = np.empty(spec.nbytes, np.uint8)
        whole[name] = RawTensor(spec.dtype, spec.shape, data)
        dropped = _dropper(maskset.masks.get(name), ITEM_SIZE[spec.dtype])

        def sink(start: int, chunk: Bytes) -> None:
            data[start : start + chunk.size] = dropped(start, chunk)

        return (sink,)

    _check_digests(base, maskset, scan(base, maskset.base.tensors, sinks, digests=verify))
    for name in maskset.base.tensors:
        yield maskset.base.parameter(name), whole.pop(name)
    yield from maskset.dense.items()


def verify_base(base: Checkpoint, maskset: MaskSet, *, progress: Progress | None = None) -> None:
    """Check that every base tensor the mask was made for is there and the same. Raises BaseMismatchError."""
    base = match(base, [maskset])
    check_structure(base, maskset)
    _check_digests(base, maskset, digests(base, maskset.base.tensors, progress=progress))


def drop(tensor: RawTensor, mask: Mask) -> Bytes:
    """The tensor's bytes with every dropped weight set to +0 and every kept one as it was."""
    return _dropper(mask, ITEM_SIZE[tensor.dtype])(0, tensor.data.copy())


def _dropper(mask: Mask | None, width: int) -> Callable[[int, Bytes], Bytes]:
    """What sets the dropped weights in a chunk of a tensor's bytes to 0, in place, told where it starts."""
    if mask is None or mask.keeps_all:
        return lambda start, chunk: chunk
    bits = mask.bits  # decoded once

    def dropped(start: int, chunk: Bytes) -> Bytes:
        words = chunk.view(f"<u{width}")
        keep = np.unpackbits(bits[start // width // 8 :], count=words.size, bitorder="little")
        # Integer product with 0 or 1: bit patterns survive, also of NaN and negative zero.
        np.multiply(words, keep, dtype=words.dtype, out=words)
        return chunk

    return dropped


class _Writer:
    """The weight files of one dense checkpoint: every tensor has its place in them before it comes."""

    def __init__(
        self,
        base: Checkpoint,
        maskset: MaskSet,
        folder: NewFolder,
        output: Path,
        shard_size: int | None,
        dtype: str | None,
    ) -> None:
        self._maskset, self._folder, self._output, self._dtype = maskset, folder, output, dtype
        shards = _plan(base, maskset, shard_size, dtype)
        names = _shard_names(len(shards))
        self._weight_map = {p: f for f, specs in zip(names, shards, strict=True) for p in specs}
        self._files: dict[str, IO[bytes]] = {}
        self._places: dict[str, int] = {}
        self._total = 0
        for filename, specs in zip(names, shards, strict=True):
            file = self._files[filename] = folder.create(filename)
            self._places |= write_header(file, specs, {"format": "pt"})
            size = sum(spec.nbytes for spec in specs.values())
            self._total += size
            file.flush()
            with explained(output):
                os.truncate(file.fileno(), file.tell() + size)

    def sinks(self, name: str, spec: Spec) -> Sequence[Sink]:
        """Where a base tensor's bytes go: to the place of its parameter, masked and cast."""
        if name not in self._maskset.base.tensors:
            return ()
        parameter = self._maskset.base.parameter(name)
        width = ITEM_SIZE[spec.dtype]
        dropped = _dropper(self._maskset.masks.get(name), width)
        target = cast_dtype(spec.dtype, self._dtype)
        handle, place = self._files[self._weight_map[parameter]].fileno(), self._places[parameter]

        def sink(start: int, chunk: Bytes) -> None:
            chunk = dropped(start, chunk)
            if target != spec.dtype:
                chunk = cast(chunk, spec.dtype, target)
            with explained(self._output):
                begin = place + start // width * ITEM_SIZE[target]
                start_sync(handle, begin, write_at(handle, chunk, begin))

        return (sink,)

    def finish(self) -> None:
        """Write the dense tensors, and the index of several files."""
        for name, tensor in self._maskset.dense.items():
            target = cast_dtype(tensor.dtype, self._dtype)
            data = tensor.data if target == tensor.dtype else cast(tensor.data, tensor.dtype, target)
            with explained(self._output):
                write_at(self._files[self._weight_map[name]].fileno(), data, self._places[name])
        if len(self._files) > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(self._weight_map.items()))}
            self._folder.write(INDEX, (json.dumps(index, indent=2) + "\n").encode("ascii"))


def check_structure(base: Checkpoint, maskset: MaskSet) -> None:
    """Names and shapes, without reading tensors. Raises BaseMismatchError."""
    if missing := [name for name in maskset.base.tensors if name not in base.tensors]:
        raise mismatch(base, maskset, missing, what="lacks")
    for name, mask in maskset.masks.items():
        info = base.info(name)
        if info.shape != mask.shape:
            raise BaseMismatchError(
                f"{base.name}: tensor {name} has shape {list(info.shape)}, and the mask is for {list(mask.shape)}",
                tensors=(name,),
                hint=f"This mask belongs to {maskset.base.name}.",
            )
        if info.dtype not in MASKABLE:
            raise BaseMismatchError(f"{base.name}: tensor {name} is {info.dtype}, which has no zero", tensors=(name,))
        mask.trust_shape()


def _check_digests(base: Checkpoint, maskset: MaskSet, found: Mapping[str, str]) -> None:
    if found and (differ := maskset.base.differing(found)):
        raise mismatch(base, maskset, differ)


def mismatch(base: Checkpoint, maskset: MaskSet, names: list[str], what: str = "differs in") -> BaseMismatchError:
    """The error for a base that is not a mask's, as these tensors tell."""
    return BaseMismatchError(
        f"{base.name}: not the base this mask was made for: it {what} {len(names)} of "
        f"{len(maskset.base.tensors)} tensors: {listed(names)}",
        tensors=tuple(names),
        hint=f"This mask belongs to {maskset.base.name}.",
    )


Specs = dict[str, Spec]  # by parameter name


def _plan(base: Checkpoint, maskset: MaskSet, shard_size: int | None, dtype: str | None) -> list[Specs]:
    """What each file holds: the base's tensors that the task reads, by the base's shards, then dense tensors."""
    binding = maskset.base
    plan: list[Specs] = []
    for shard in base.shards:
        names = [n for n in base if n in binding.tensors and base.tensors[n] is shard]
        if names:
            plan.append({binding.parameter(n): base.info(n) for n in names})
    if not plan:  # a task that reads nothing of the base
        plan.append({})
    plan[-1] |= maskset.dense
    plan = [{n: Spec(cast_dtype(spec.dtype, dtype), spec.shape) for n, spec in specs.items()} for specs in plan]
    return plan if shard_size is None else _split(plan, shard_size)


def _split(plan: list[Specs], limit: int) -> list[Specs]:
    """The same tensors in the same order, in files of at most ``limit`` bytes; a larger tensor has its own."""
    files: list[Specs] = [{}]
    size = 0
    for name, spec in (item for specs in plan for item in specs.items()):
        if files[-1] and size + spec.nbytes > limit:
            files.append({})
            size = 0
        files[-1][name] = spec
        size += spec.nbytes
    return files


def _shard_names(count: int) -> list[str]:
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)] if count > 1 else [WEIGHTS]
