"""``python watched.py LOG ARGUMENTS``: ``maskhub``, with each sync, rename and new folder written down, in order.

Files and folders are told by device and inode. With each comes what it held then: a file's digest and time of change, a
folder's names.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

from tests.cli.durable import seen, tree

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
fsync, rename, mkdir = os.fsync, os.rename, os.mkdir


def note(**event: Any) -> None:
    os.write(log, json.dumps(event).encode() + b"\n")


def parent(path: Any, folder: int | None) -> list[Any]:
    """The folder that a name lies in."""
    found = os.stat(os.path.dirname(os.fspath(path)) or ".", dir_fd=folder)
    return [found.st_dev, found.st_ino]


def watched_fsync(handle: Any) -> None:
    fsync(handle)
    note(call="sync", what=seen(handle if isinstance(handle, int) else handle.fileno()))


def watched_rename(old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    moved = tree(old, src_dir_fd)
    rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    note(call="rename", name=os.fsdecode(new), parent=parent(new, dst_dir_fd), moved=moved)


def watched_mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    mkdir(path, mode, dir_fd=dir_fd)
    note(call="mkdir", name=os.fsdecode(path), parent=parent(path, dir_fd))


os.fsync = watched_fsync
os.rename = os.replace = watched_rename
os.mkdir = watched_mkdir
sys.argv = ["maskhub", *sys.argv[2:]]
runpy.run_module("maskhub_cli", run_name="__main__")
