"""Other tools' mask files, in and out.

A format is one ``Format`` in a module of its own, here or in another package. What a file is, is told by its content,
not by its name.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.container.manifest import FORMAT
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, FormatError, MaskhubError, OutOfMemoryError, check_choice, reason
from maskhub.interop import boolean, compressed, hdf5, maskllm, prune, scores, tall
from maskhub.interop.bind import Format
from maskhub.interop.tensors import CLOSED, NamedTensors, open_tensors
from maskhub.masks.mask import MaskSet
from maskhub.storage.atomic import atomic_file, claim_file
from maskhub.storage.registry import Registry
from maskhub.storage.regular import open_regular
from maskhub.storage.work import Progress


def _is_mask(source: NamedTensors, base: Checkpoint) -> bool:
    return source.metadata.get("format") == FORMAT


def _read_mask(source: NamedTensors, base: Checkpoint, progress: Progress | None) -> MaskSet:
    maskset = open_mask(source.name)
    verify_base(base, maskset, progress=progress)
    return maskset


# The first that fits reads: those that look at names, then other packages', then what takes all that could be a mask.
FORMATS = Registry(
    "maskhub.formats",
    "format",
    (
        Format("msk", _is_mask, _read_mask, what="MaskHub", whole=True),
        compressed.FORMAT,
        prune.FORMAT,
        scores.FORMAT,
        maskllm.FORMAT,
    ),
    (
        tall.FORMAT,
        *boolean.FORMATS,
        hdf5.FORMAT,
        Format(
            "pruned checkpoint",
            lambda source, base: True,
            lambda source, base, progress: from_pruned(base, source, progress=progress),
        ),
    ),
)


def writable() -> list[str]:
    """The names of formats that ``export`` writes."""
    return [found.name for found in FORMATS.usable() if found.write]


def check(to: str, name: str | None = None) -> Format:
    """The format to write. Raises ArgumentError where ``export`` writes no such files, or they name no mask sets."""
    found = FORMATS.get(to)
    if found is None or found.write is None:
        check_choice("export format", to, writable())
    assert found is not None
    if name is not None and not found.several:
        raise ArgumentError(f"{to} files hold one mask set, which has no name", hint="Leave --name out.")
    return found


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
    tensors = open_tensors(str(path), token=token)
    source = tensors.name
    fitting = (f for f in FORMATS.usable() if tensors.kind in f.kinds and f.fits(tensors, base))
    found = next(fitting, None) if tensors.specs or tensors.kind in CLOSED else None
    if found is None and tensors.kind == "other":
        known = "Known are safetensors, PyTorch, NumPy (npz, npy) and HDF5."
        raise FormatError(f"{source}: of no kind that can be packed", hint=known)
    if found is None:
        raise FormatError(f"{source}: holds neither masks nor a pruned checkpoint")
    reader = found.read
    if threshold is not None:
        if found is not scores.FORMAT:
            raise ArgumentError(f"{source}: a threshold is for score files, and this is a {found.title}")
        reader = partial(scores.read, threshold=threshold)
    if tensors.wanted is not None and not found.several:
        raise FormatError(f"{source}: holds one mask set, and it has no name", hint=f"Leave out #{tensors.wanted}.")
    try:
        maskset = reader(tensors, base, progress)
    except (ValueError, OverflowError, MemoryError) as error:  # sizes and shapes that no library takes
        if isinstance(error, MaskhubError) and not isinstance(error, ArgumentError):
            raise
        if isinstance(error, MemoryError):
            raise OutOfMemoryError(f"{source}: not enough memory for what it says it holds") from error
        raise FormatError(f"{source}: damaged, or no {found.title}: {reason(error)}") from error
    if found.whole:
        return maskset
    return dataclasses.replace(maskset, lineage=maskset.lineage | {"operation": "pack", "source": found.title})


def export(maskset: MaskSet, path: str | Path, to: str, *, name: str | None = None, force: bool = False) -> None:
    """Write ``maskset`` for other tools: ``to`` is one of ``writable()``. The file appears whole or not at all.

    An existing file is replaced with ``force`` only. But ``h5`` adds to the bank at ``path``, if there is one, as
    ``name`` (else the file's), and with ``force`` in the place of one of that name; it holds all that a ``.msk`` file
    does. The others hold masks only. Raises ArgumentError and OutputError.
    """
    path = Path(path)
    found = check(to, name)
    claim_file(path, force=force or found.several)
    write = found.write
    assert write is not None
    if found.several:
        write = partial(write, path=path, name=name, force=force)
    if path.exists():
        open_regular(path).close()  # a bank is read first
    with atomic_file(path) as file:
        write(maskset, file)
