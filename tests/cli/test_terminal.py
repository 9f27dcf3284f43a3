"""What people see on a terminal: lines that fit it, a little colour, and none of either in a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests import tiny
from tests.cli.conftest import read_terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(columns: int, *arguments: object, **environment: str) -> str:
    """What ``maskhub`` prints to a real terminal of so many columns, stdout and stderr together."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "maskhub_cli", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env=kept | {"TERM": "xterm-256color"} | environment,
    )
    written = read_terminal(ours, theirs)
    assert process.wait(60) == 0, written
    return written


@pytest.fixture
def masks(folder: Path, base_folder: Path) -> list[str]:
    for seed in (1, 2, 3):
        tiny.tiny_maskset(base_folder, seed=seed).save(f"task-{seed}.msk")
    return [f"task-{seed}.msk" for seed in (1, 2, 3)]


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize(
    "command", ["info", "info --all", "info --tensors", "diff", "diff --tensors", "matrix", "help"]
)
def test_lines_fit_the_terminal(columns: int, command: str, masks: list[str]) -> None:
    name, *options = command.split()
    arguments: list[object] = {
        "info": ["info", masks[0], *options],
        "diff": ["diff", *masks[:2], "--measure", "correlation", *options],
        "matrix": ["diff", *masks],
        "help": ["train", "--help"],
    }[name]
    shown = ESCAPE.sub("", on_terminal(columns, *arguments))
    assert shown.strip()
    for line in shown.splitlines():
        hint = line.startswith("Next: ")  # a command to copy
        assert hint or len(line) <= columns or len(line.split()) == 1, line
    if name in ("diff", "info"):  # numbers and ids are whole, wherever they had to go
        plain = on_terminal(1000, *arguments)
        numbers = set(re.findall(r"\b[0-9a-f]{64}\b", plain))
        assert numbers
        assert numbers <= set(re.findall(r"\b[0-9a-f]{64}\b", shown))


def test_what_does_not_fit_is_named(masks: list[str]) -> None:
    shown = " ".join(on_terminal(80, "diff", *masks[:2]).split())
    assert "--json has all)" in shown
    assert "--json has all)" not in on_terminal(200, "diff", *masks[:2])


def test_info_is_one_screen(masks: list[str]) -> None:
    assert len(on_terminal(80, "info", masks[0]).splitlines()) <= 24


def test_a_little_colour(masks: list[str]) -> None:
    assert "\x1b[1mtask-1.msk" in on_terminal(80, "info", masks[0])
    assert "\x1b" not in on_terminal(80, "info", masks[0], NO_COLOR="1")
    piped = subprocess.run([sys.executable, "-m", "maskhub_cli", "info", masks[0]], capture_output=True, text=True)
    assert "\x1b" not in piped.stdout + piped.stderr
