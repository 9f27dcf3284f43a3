"""Wrong usage, and how commands stop: one line each, with what may have been meant, and an exit status of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from maskhub_cli.app import COMMANDS, MEANT, app
from tests.cli.conftest import Run
from tests.packages import write_package


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("upload a.msk user/repo", "there is no command upload. Did you mean push? Help: maskhub --help"),
        ("aply base a.msk", "there is no command aply. Did you mean apply? Help: maskhub --help"),
        ("xyz", "there is no command xyz. Help: maskhub --help"),
        ("--verson", "there is no option --verson. Did you mean --version? Help: maskhub --help"),
        ("train base --lr 1", "there is no option --lr. Did you mean --learning-rate? Help: maskhub train --help"),
        ("train base --l2sp 1", "there is no option --l2sp. Did you mean --l2-sp? Help: maskhub train --help"),
        ("apply b a.msk --output-dir d", "there is no option --output-dir. Did you mean --output? Help: maskhub apply"),
        ("info a.msk --lr 1", "there is no option --lr. Help: maskhub info --help"),
        ("info", "Missing argument 'MASK'. Help: maskhub info --help"),
        ("info a.msk b.msk", "Got unexpected extra argument"),
        ("export a.msk", "Missing option '--to'. Help: maskhub export --help"),
        ("train base -o", "Option '-o' requires an argument."),
        ("train base --epochs many", "Invalid value for '--epochs': "),
        ("list --limit 1.5", "Invalid value for '--limit': "),
        ("info a.msk --json -q", "one output format at a time, not json and quiet"),
        ("info a.msk --format xml", "there is no output format 'xml'. One of auto, human, json, quiet."),
        ("pack a.msk --codec zstd:19", "codec 'zstd:19': there is nothing to choose behind a colon. Name it zstd."),
        ("pack a.msk --codec nm:2of4", "codec 'nm:2of4': no pattern of neighbours. It is nm:N:M, as in nm:2:4: "),
    ],
)
def test_wrong_usage(run: Run, typed: str, message: str) -> None:
    ran = run(*typed.split())
    assert (ran.status, ran.out, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"Error: {message}")
    assert not os.listdir()


def test_what_people_mean_is_there() -> None:
    root = typer.main.get_command(app)
    names = {name for group in COMMANDS.values() for name in group}
    flags = {
        flag
        for name in names
        for parameter in root.resolve_command(None, [name])[1].params  # type: ignore[attr-defined]
        for flag in parameter.opts
    }
    assert set(MEANT.values()) <= names | flags
    assert not set(MEANT) & (names | flags)


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_debug_shows_the_traceback(run: Run, program: Run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = program("info", "none.msk")
    assert (plain.status, plain.out, plain.stderr) == (1, "", "Error: none.msk: no such file\n")
    if place == "environment":
        monkeypatch.setenv("MASKHUB_DEBUG", "1")
    ran = program(*["--debug"] * (place == "before"), "info", "none.msk", *["--debug"] * (place == "after"))
    assert ran.status == 1
    assert ran.err.startswith("Traceback")
    assert ran.err.endswith("maskhub.errors.MissingError: none.msk: no such file")


def test_a_text_may_look_like_the_option(run: Run) -> None:
    ran = run("info", "--", "--debug")
    assert (ran.status, ran.stderr) == (1, "Error: --debug: no such file\n")


def test_what_nobody_expected_says_how_to_see_more(run: Run, mask_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("maskhub.masks.summary.summarize", fail)
    ran = run("info", mask_path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "Error: unexpected error: RuntimeError: odd. Run again with --debug"


def test_warnings_are_a_line(mask_path: Path, base_folder: Path) -> None:
    write_package(Path("packages"), "bolt", {"maskhub.formats": {"bolt": "bolt:BOLT"}}, {"bolt.py": "import bolts"})
    ran = subprocess.run(
        [sys.executable, "-m", "maskhub_cli", "export", mask_path, "--to", "onnx"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["packages", *sys.path])}, capture_output=True, text=True,
    )  # fmt: skip
    warning, error = ran.stderr.splitlines()
    assert warning == (
        "Warning: the format 'bolt' of the package bolt cannot be loaded: its entry point 'bolt:BOLT' of "
        "maskhub.formats: No module named 'bolts'; it is left out"
    )
    assert (ran.returncode, error.partition(" of ")[0]) == (2, "Error: 'onnx' is not one")
