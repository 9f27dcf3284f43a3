"""``learn``: from a base and examples to a run folder with a packed mask, metrics and a recording.

Examples are read, and most of what can be wrong is found, before torch and transformers are imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from maskhub.errors import ArgumentError, ExistsError, TrainingError
from maskhub.storage.atomic import claim_folder
from maskhub.training import examples, processes
from maskhub.training.lock import LOCK, held, unused
from maskhub.training.processes import Report, Say
from maskhub.training.run import MASK, MODEL, RECORD, RunRecord, read_record
from maskhub.training.settings import TrainSettings

if TYPE_CHECKING:
    from maskhub.training.loop import Ready, TrainResult


def learn(
    settings: TrainSettings,
    output: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    say: Say | None = None,
    token: str | None = None,
) -> TrainResult:
    """Learn a mask and pack it as ``output/mask.msk``; ``settings`` are those of ``settings_from``.

    The output folder must be new or empty, or with ``resume`` hold a run of the same settings, which goes on from
    its last whole checkpoint; no other training may be at work there. ``say`` gets a line on what is found and on what
    takes time; ``report`` every step.

    Raises ArgumentError, DataError, CheckpointError, TrainingError or OutputError before training starts; later
    TrainingError after Ctrl-C, SIGTERM or SIGHUP, when a checkpoint has been written, or when a gradient is not a
    number any more, and OutputError where a checkpoint cannot be written.

    Started by ``torchrun`` or ``accelerate launch``, each process calls it, and the first writes.
    """
    _check_batch(settings)
    folder = Path(output)
    if not (folder / LOCK).exists():  # else who is at work there is told first
        _claim(folder, settings, resume)
    with held(folder):
        prepared = _ready(settings, folder, _claim(folder, settings, resume), processes.heard(say), token)
        from maskhub.training import loop

        return loop.run(prepared, report, processes.heard(say))


def ready(
    settings: TrainSettings,
    output: str | Path | None = None,
    *,
    resume: bool = False,
    say: Say | None = None,
    token: str | None = None,
) -> Ready:
    """A run up to its first step, with nothing written; its ``plan`` is what ``learn`` would do."""
    _check_batch(settings)
    folder = Path(output) if output is not None else None
    before = _claim(folder, settings, resume) if folder else None
    return _ready(settings, folder or Path("run"), before, processes.heard(say), token)


def _check_batch(settings: TrainSettings) -> None:
    if settings.batch_size % processes.number():
        raise ArgumentError(
            f"training settings: batch_size: {settings.batch_size} examples cannot be shared by "
            f"{processes.number()} processes",
            hint="Name a multiple of their number.",
        )


def _ready(settings: TrainSettings, folder: Path, before: RunRecord | None, say: Say, token: str | None) -> Ready:
    say(f"Reading examples: {settings.train_file or settings.dataset}")
    data = examples.read(settings, token)
    for line in examples.told(data):
        say(line)
    say("Loading torch and transformers")
    from maskhub.training import loop

    return loop.ready(settings, folder, data, before, say, token)


def _claim(folder: Path, settings: TrainSettings, resume: bool) -> RunRecord | None:
    """The record of the run that goes on in ``folder``; None for a new one. Raises where there can be none."""
    if resume:
        before = read_record(folder)
        _check_same(before.settings, settings)
        for what, made in {"mask": folder / MASK, "model": folder / MODEL}.items():
            if made.exists():
                raise TrainingError(f"{folder}: the run is finished", hint=f"Its {what} is {made}.")
        return before
    if processes.is_first():
        if (folder / RECORD).exists():
            raise ExistsError(f"{folder}: holds a run already", hint="Go on with it by --resume, or name a new folder.")
        if not unused(folder):
            claim_folder(folder)
    return None


def _check_same(before: TrainSettings, now: TrainSettings) -> None:
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(now)
    if changed := [f"{key} {old[key]!r} is now {new[key]!r}" for key in old if old[key] != new[key]]:
        raise TrainingError(
            f"the run was started with other settings: {'; '.join(changed)}",
            hint="Give them as they were, or name a new folder.",
        )
