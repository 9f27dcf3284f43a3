"""Whether a program's outputs outlast a power cut, told from what ``watched.py`` wrote down."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def seen(handle: int) -> list[Any]:
    """Which one an open file or folder is, and what it holds."""
    found = os.fstat(handle)
    if stat.S_ISDIR(found.st_mode):
        return [found.st_dev, found.st_ino, sorted(os.listdir(handle))]
    content = os.pread(handle, found.st_size, 0)
    return [found.st_dev, found.st_ino, hashlib.sha256(content).hexdigest(), found.st_mtime_ns]


def tree(path: Any, folder: int | None = None) -> list[list[Any]]:
    """``seen`` of a file, or of a folder and all below it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        found = [seen(handle)]
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            found += [one for name in os.listdir(handle) for one in tree(name, handle)]
        return found
    finally:
        os.close(handle)


def files(*paths: Path) -> list[Path]:
    """All files that lie there or below. A lock is none: nothing is in it."""
    return [f for path in paths for f in (path, *path.rglob("*")) if f.is_file() and f.suffix != ".lock"]


def check(log: Path, folder: Path, outputs: Iterable[Path]) -> int:
    """Assert that each file was synced as it is, and then got its name, and then its folder was synced.

    That goes for what was renamed and made in ``folder``, and for ``outputs``, files in it. Gives how many things got a
    name.
    """
    inside = {tuple(one[:2]) for one in tree(folder)}
    events = [json.loads(line) for line in log.read_text().splitlines()]
    events = [event for event in events if event["call"] == "sync" or tuple(event["parent"]) in inside]
    for at, event in enumerate(events):
        if event["call"] == "sync":
            continue
        after = [tuple(one["what"][:2]) for one in events[at:] if one["call"] == "sync"]
        assert tuple(event["parent"]) in after, f"{event['name']}: its folder was not synced after the {event['call']}"
        synced = {tuple(one["what"][:2]): one["what"] for one in events[:at] if one["call"] == "sync"}
        for one in event.get("moved", ()):
            assert synced.get(tuple(one[:2])) == one, f"{event['name']}: renamed before it, or a part of it, was synced"
    last = {tuple(one["what"][:2]): one["what"] for one in events if one["call"] == "sync"}
    renamed = {tuple(one[:2]) for event in events for one in event.get("moved", ())}
    for path in outputs:
        [now] = tree(path)
        assert tuple(now[:2]) in renamed, f"{path}: written under its own name"
        assert last.get(tuple(now[:2])) == now, f"{path}: written to after it was synced"
    return sum(event["call"] == "rename" for event in events)
