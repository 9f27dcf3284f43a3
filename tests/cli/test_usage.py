"""Wrong usage, and how commands stop: one line each, with what may have been meant, and an exit status of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import typer

from maskhub.options import options
from maskhub_cli.app import COMMANDS, MEANT, app
from maskhub_cli.command import Command
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
        ("verify a.msk b.msk", "Got unexpected extra argument"),
        ("export a.msk", "Missing option '--to'. Help: maskhub export --help"),
        ("train base -o", "Option '-o' requires an argument."),
        ("train base --epochs many", "Invalid value for '--epochs': "),
        ("list --limit 1.5", "Invalid value for '--limit': "),
        ("info a.msk --json -q", "one output format at a time, not json and quiet"),
        ("info a.msk --format xml", "output format: there is no 'xml'. It is one of: auto, human, json, quiet."),
        ("pack a.msk --codec zstd:19", "codec 'zstd:19': there is nothing to choose behind a colon. Name it zstd."),
        ("pack a.msk --codec nm:2of4", "codec 'nm:2of4': no pattern of neighbours. It is nm:N:M, as in nm:2:4: "),
    ],
)
def test_wrong_usage(run: Run, typed: str, message: str) -> None:
    ran = run(*typed.split())
    assert (ran.status, ran.out, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"Error: {message}")
    assert not os.listdir()


def fixed_choices() -> Iterator[tuple[str, str, list[str]]]:
    """Every option of one of a few values: its command, its flag, and the values."""
    for name in [name for group in COMMANDS.values() for name in group]:
        command = Command.named(name)
        for function in (command.function, command.show):
            for parameter, kind, option in options(function) if function else ():
                literal = next((one for one in (kind, *get_args(kind)) if get_origin(one) is Literal), None)
                values = list(option.choices()) if option.choices else list(get_args(literal))
                if values and not option.metavar:
                    yield name, f"--{parameter.name.replace('_', '-')}", values


# What else a command needs before it looks at such an option.
BESIDES = {
    "train": "base --train-file x.csv -o run",
    "diff": "a.msk b.msk",
    "pack": "a.msk -o x.msk",
    "compose": "--op and a.msk b.msk -o x.msk",
    "export": "a.msk",
}


@pytest.mark.parametrize(("command", "flag", "values"), list(fixed_choices()))
def test_a_choice_that_there_is_not(run: Run, mask_path: Path, command: str, flag: str, values: list[str]) -> None:
    for name in "ab":
        Path(f"{name}.msk").write_bytes(mask_path.read_bytes())
    besides = BESIDES[command].removeprefix("--op and " if flag == "--op" else "")
    ran = run(command, *besides.split(), flag, "gguf")
    assert (ran.status, ran.out, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.err.endswith(f": there is no 'gguf'. It is one of: {', '.join(values)}.")
    assert sorted(os.listdir()) == ["a.msk", "b.msk"]


def test_every_command_with_choices_is_tried() -> None:
    assert {command for command, _, _ in fixed_choices()} == set(BESIDES)


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
    missing = "none.msk: no such file. Check the name and the folder."
    assert (plain.status, plain.out, plain.stderr) == (1, "", f"Error: {missing}\n")
    if place == "environment":
        monkeypatch.setenv("MASKHUB_DEBUG", "1")
    ran = program(*["--debug"] * (place == "before"), "info", "none.msk", *["--debug"] * (place == "after"))
    assert ran.status == 1
    assert ran.err.startswith("Traceback")
    assert ran.err.endswith(f"maskhub.errors.MissingError: {missing}")


def test_a_text_may_look_like_the_option(run: Run) -> None:
    ran = run("info", "--", "--debug")
    assert (ran.status, ran.stderr) == (1, "Error: --debug: no such file. Check the name and the folder.\n")


def test_out_of_memory_is_no_unexpected_error(run: Run, mask_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskhub.masks.summary.summarize", lambda _: bytes(1 << 62))
    ran = run("info", mask_path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "Error: not enough memory. Free some, or take a machine with more."


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
    assert (ran.returncode, error.partition(". ")[0]) == (2, "Error: export format: there is no 'onnx'")
