"""Running the command line: in this process, for speed, and as a real program where that matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskhub_cli.app import app


class Ran:
    """What a command left: exit status, stdout, stderr, and that as one line (``err``)."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.stderr = status, out, err
        self.err = " ".join(err.split())


Run = Callable[..., Ran]


def read_terminal(ours: int, theirs: int) -> str:
    """All that programs write to a pseudo-terminal until the last of them ends; closes both of its ends."""
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKHUB_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def run() -> Run:
    def run(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="maskhub")
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def program() -> Run:
    def program(*arguments: object) -> Ran:
        command = [sys.executable, "-m", "maskhub_cli", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return Ran(result.returncode, result.stdout, result.stderr)

    return program


def fields(text: str) -> dict[str, str]:
    """The ``label  value`` lines of human output."""
    pairs = [line.strip().split("  ", 1) for line in text.splitlines() if line.startswith("  ") and line.strip()]
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
