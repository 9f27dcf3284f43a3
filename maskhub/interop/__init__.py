"""Other tools' mask files, in and out.

A format is one module and one entry of ``FORMATS``. What a file is, is told by its content, not by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.container.manifest import KEY
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, FormatError, MaskhubError, reason
from maskhub.interop import boolean, compressed, hdf5, maskllm, prune, scores, tall
from maskhub.interop.bind import Format, Options
from maskhub.interop.tensors import NamedTensors, kind_of, open_tensors
from maskhub.masks.mask import MaskSet
from maskhub.storage.atomic import atomic_file, explained
from maskhub.storage.work import Progress


def _is_mask(source: NamedTensors, base: Checkpoint) -> bool:
    return KEY in (source.metadata or {})


def _read_mask(source: NamedTensors, base: Checkpoint, options: Options) -> MaskSet:
    maskset = open_mask(source.name)
    verify_base(base, maskset, progress=options.progress)
    return maskset


def _any(source: NamedTensors, base: Checkpoint) -> bool:
    return True


def _read_checkpoint(source: NamedTensors, base: Checkpoint, options: Options) -> MaskSet:
    return from_pruned(base, source, progress=options.progress)


# The first that fits reads. Those that look at names come before those that take what looks like a mask.
FORMATS = (
    Format("MaskHub", _is_mask, _read_mask),
    compressed.FORMAT,
    prune.FORMAT,
    scores.FORMAT,
    maskllm.FORMAT,
    tall.FORMAT,
    boolean.FORMAT,
    Format("pruned checkpoint", _any, _read_checkpoint),
)
SEVERAL = {tall.FORMAT.name}  # besides HDF5 banks, files of more than one mask set

WRITERS: dict[str, Callable[[MaskSet, IO[bytes]], None]] = {
    "npz": maskllm.write,
    "pt": boolean.write_torch,
    "safetensors": boolean.write_safetensors,
}
BANK = "h5"
KINDS = (*WRITERS, BANK)


def read(
    path: str | Path,
    base: Checkpoint,
    *,
    threshold: float | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> MaskSet:
    """The mask set in another tool's file, a checkpoint folder or a model on the Hub, bound to ``base``.

    ``file#name`` names one of several mask sets in a file. ``threshold`` is for score files: weights with a score
    above it are kept. ``progress`` gets bytes of the base, done and in all. Raises MaskhubError naming the entry
    that fits no tensor of the base, has another shape or another content; nothing in a file is ever executed.
    """
    source, name = split(str(path))
    options = Options(name, threshold, progress)
    if Path(source).is_file() and kind_of(Path(source)) == "hdf5":
        _refuse_threshold(options, source, "HDF5 bank")
        return hdf5.read(Path(source), base, options)
    tensors = open_tensors(source, token=token)
    found = next((f for f in FORMATS if tensors.kind in f.kinds and tensors.specs and f.fits(tensors, base)), None)
    if found is None:
        raise FormatError(f"{source}: holds neither masks nor a pruned checkpoint")
    if found is not scores.FORMAT:
        _refuse_threshold(options, source, found.name)
    if name is not None and found.name not in SEVERAL:
        raise FormatError(f"{source}: holds one mask set, and it has no name", hint=f"Leave out #{name}.")
    try:
        maskset = found.read(tensors, base, options)
    except (ValueError, OverflowError, MemoryError) as error:  # sizes and shapes that no library takes
        if isinstance(error, MaskhubError) and not isinstance(error, ArgumentError):
            raise
        raise FormatError(f"{source}: damaged, or no {found.name}: {reason(error)}") from error
    if found is FORMATS[0]:
        return maskset
    return dataclasses.replace(maskset, lineage=maskset.lineage | {"operation": "pack", "source": found.name})


def export(maskset: MaskSet, path: str | Path, to: str, *, name: str | None = None, replace: bool = False) -> None:
    """Write ``maskset`` for other tools: ``to`` is one of ``KINDS``. The file appears whole or not at all.

    ``h5`` adds to the bank at ``path``, if there is one, as ``name`` (else the file's), and with ``replace`` in the
    place of one of that name; it holds all that a ``.msk`` file does. The others hold masks only. Raises OutputError.
    """
    path = Path(path)
    write = WRITERS.get(to)
    if to == BANK:
        bank = path if path.exists() else None
        write = partial(hdf5.write, name=path.stem if name is None else name, bank=bank, replace=replace)
    elif name is not None:
        raise MaskhubError(f"a {to} file holds one mask set, and it has no name")
    if write is None:
        raise MaskhubError(f"{to!r} is not one of {', '.join(KINDS)}")
    with atomic_file(path) as file, explained(path):
        write(maskset, file)


def split(source: str) -> tuple[str, str | None]:
    """``file#name`` as its two parts."""
    path, mark, name = source.rpartition("#")
    return (path, name) if mark and Path(path).is_file() and not Path(source).exists() else (source, None)


def _refuse_threshold(options: Options, source: str, what: str) -> None:
    if options.threshold is not None:
        raise MaskhubError(f"{source}: a threshold is for score files, and this is a {what}")
