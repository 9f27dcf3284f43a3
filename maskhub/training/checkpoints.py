"""The checkpoints of a run: each is sealed by a list of its files' digests, written last, and checked before its use.

A checkpoint goes with the one of the best evaluation until then, which its state names: neither is of use alone.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from pathlib import Path

import msgspec

from maskhub.checkpoints.checkpoint import read_json
from maskhub.errors import MaskhubError, OutputError, TrainingError
from maskhub.storage.atomic import sync_folder, sync_tree, write_atomic
from maskhub.storage.digest import file_digest
from maskhub.training import processes

LIST = "digests.json"
STATE = "trainer_state.json"  # transformers' name
KEPT = 2  # of the newest


class Listed(msgspec.Struct, frozen=True):
    """A file of a checkpoint, as it was written."""

    bytes: int
    blake3: str


def found(folder: Path) -> list[Path]:
    """All checkpoints in ``RUN/checkpoints``, the newest first, whole or not."""
    paths = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=step, reverse=True)


def step(checkpoint: Path) -> int:
    """The number of steps that were done when it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def seal(checkpoint: Path) -> None:
    """Have the disk hold a checkpoint that is written, and then the list of its digests. Raises OutputError."""
    sync_tree(checkpoint)
    listed = {name: Listed(*file_digest(checkpoint / name)) for name in _files(checkpoint)}
    write_atomic(checkpoint / LIST, msgspec.json.format(msgspec.json.encode(listed), indent=2) + b"\n")
    sync_folder(checkpoint.parent)
    sync_folder(checkpoint.parent.parent)


def rotate(folder: Path) -> None:
    """Delete all checkpoints but the newest, and those of the best evaluations that these go with."""
    newest = found(folder)[:KEPT]
    kept = {*newest, *(best for one in newest if (best := _best(one)))}
    for path in set(found(folder)) - kept:
        shutil.rmtree(path, ignore_errors=True)


def whole(folder: Path) -> Path | None:
    """The newest whole checkpoint in ``RUN/checkpoints``; None where a run was stopped before its first one.

    A warning names each that is newer, and the first process removes it. Raises TrainingError where all are damaged.
    """
    refused: list[Path] = []
    for path in found(folder):
        wrong = _wrong(path)
        if wrong is None:
            break
        refused.append(path)
        if processes.is_first():
            warnings.warn(f"{path}: this checkpoint is not used: {wrong}", stacklevel=2)
    else:
        path = None
        # One is deleted only when a newer one is sealed, so this alone can be a first one that was never finished.
        if len(refused) > 1 or (refused and (refused[0] / LIST).exists()):
            raise TrainingError(
                f"{folder.parent}: no checkpoint of the run is whole",
                hint=f"Remove {folder}, and --resume begins at the first step.",
            )
    if processes.is_first():
        for one in refused:
            shutil.rmtree(one, ignore_errors=True)
            if one.exists():
                raise OutputError(f"{one}: cannot be removed", hint="Remove it; --resume goes on from the one before.")
    return path


def check(checkpoint: Path) -> None:
    """Raises TrainingError where a checkpoint is not as it was written."""
    if wrong := fault(checkpoint):
        raise TrainingError(f"{checkpoint}: this checkpoint cannot be used: {wrong}", hint="Start a new run.")


def fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None where it has exactly the files, with the bytes, that were written."""
    try:
        listed = msgspec.json.decode((checkpoint / LIST).read_bytes(), type=dict[str, Listed])
        here = _files(checkpoint)
    except FileNotFoundError:
        return f"it has no {LIST}, which is written last" if checkpoint.is_dir() else "it is missing"
    except (OSError, msgspec.DecodeError):
        return f"{LIST} is damaged"
    for name in sorted({*listed, *here}):
        if name not in here:
            return f"{name} is missing"
        if name not in listed:
            return f"{name} was not there when it was written"
        try:
            now = Listed(*file_digest(checkpoint / name))
        except (OSError, MaskhubError):
            return f"{name} cannot be read"
        if now != listed[name]:
            size = f": {now.bytes:,} bytes of {listed[name].bytes:,}" if now.bytes != listed[name].bytes else ""
            return f"{name} is not as it was written{size}"
    return None


def _wrong(checkpoint: Path) -> str | None:
    if wrong := fault(checkpoint):
        return wrong
    best = _best(checkpoint)
    if best is not None and best != checkpoint and (wrong := fault(best)):
        return f"it goes with {best.name}, the best until then: {wrong}"
    return None


def _best(checkpoint: Path) -> Path | None:
    """The checkpoint of the best evaluation until then."""
    with contextlib.suppress(MaskhubError):
        best = read_json(checkpoint / STATE).get("best_global_step")
        if isinstance(best, int):
            return checkpoint.with_name(f"checkpoint-{best}")
    return None


def _files(checkpoint: Path) -> list[str]:
    """Names of the files in a checkpoint. Hidden ones, which are those of others, are left out, and so is the list."""
    paths = (path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    names = (str(path) for path in paths if not any(part.startswith(".") for part in path.parts))
    return [name for name in names if name != LIST]
