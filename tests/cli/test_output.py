from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maskhub import __version__
from maskhub.errors import ArgumentError, FormatError
from maskhub_cli.app import COMMANDS, explain
from maskhub_cli.output import Format, Output, error_line, printable
from tests.cli.conftest import Run, read_terminal


def test_formats_and_their_short_forms() -> None:
    assert Output().format is Format.HUMAN
    assert Output(Format.AUTO).format is Format.HUMAN
    assert Output(json=True).format is Output(Format.JSON).format is Format.JSON
    assert Output(quiet=True).format is Output(Format.QUIET, quiet=True).format is Format.QUIET


def test_formats_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="one output format at a time, not human and json"):
        Output(Format.HUMAN, json=True)
    with pytest.raises(
        ArgumentError, match=r"output format: there is no 'xml'\. It is one of: auto, human, json, quiet\."
    ):
        Output("xml")


def show(format: Format) -> None:
    Output(format).show(
        {"a": 1.5, "b": ["x"]},
        quiet="value",
        title="Title",
        fields={"one": "1", "three": ["3", "4"]},
        tables=[[{"name": "[bold]t[/bold]", "count": 12345, "share": 0.25}], []],
    )


def test_show_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show(Format.HUMAN)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "Title",
        "  one    1",
        "  three  3",
        "         4",
        "",
        "name             count   share",
        "[bold]t[/bold]  12,345  0.2500",
    ]


def test_show_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    show(Format.JSON)
    assert capsys.readouterr().out == '{"a": 1.5, "b": ["x"]}\n'
    show(Format.QUIET)
    assert capsys.readouterr().out == "value\n"


@pytest.mark.parametrize("format", Format)
def test_hints_and_warnings_go_to_stderr(format: Format, capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(format)
    out.hint("Next: this")
    out.warn("careful")
    captured = capsys.readouterr()
    assert captured.out == ""
    hint = "Next: this\n" if out.format is Format.HUMAN else ""
    assert captured.err == hint + "Warning: careful\n"


@pytest.mark.parametrize("format", [Format.JSON, Format.QUIET])
def test_no_progress_for_programs(format: Format, capsys: pytest.CaptureFixture[str]) -> None:
    with Output(format).progress("Reading") as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("maskhub_cli.output.time.monotonic", lambda: now)
    with Output().progress("Training", unit="batches") as progress:
        assert progress
        progress(1, 2000)
        assert capsys.readouterr() == ("", "")
        now += 20
        progress(1500, 2000, "loss 0.5")
        progress(1501, 2000, "loss 0.4")
    assert capsys.readouterr() == ("", "Training: 1,500 of 2,000 batches loss 0.5\n")


@pytest.mark.parametrize(("unit", "shown"), [("bytes", "1.0/2.0 kB"), ("masks", "1000/2000")])
def test_progress_on_a_terminal(unit: str, shown: str, mask_path: Path) -> None:
    code = (
        "from maskhub_cli.output import Output\n"
        f"with Output().progress('Reading', unit={unit!r}) as progress:\n"
        "    progress(1000, 2000)\n"
        "print('data')\n"
    )
    out, err = on_terminal([sys.executable, "-c", code])
    assert out == "data\n"
    assert "Reading" in err
    assert shown in err


def on_terminal(command: list[str]) -> tuple[str, str]:
    """Run a command with stderr on a pseudo-terminal: stdout, and stderr without its escape sequences."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, timeout=60)
    written = read_terminal(ours, theirs)
    assert result.returncode == 0
    return result.stdout.decode(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)


def test_printable() -> None:
    assert printable("plain × text") == "plain × text"
    assert printable("a\x1b[31m\n\x07") == "a\\x1b[31m\\n\\x07"
    assert printable("name\udcff") == "name\\udcff"


def test_errors_are_one_line() -> None:
    assert explain(FormatError("x: wrong", hint="Do this.")) == "x: wrong. Do this."
    assert explain(FormatError("x: wrong")) == "x: wrong"
    assert error_line(explain(ValueError("a\nb"))) == (
        "Error: unexpected error: ValueError: a b. Run again with --debug"
    )


def test_a_closed_pipe_is_quiet(mask_path: Path) -> None:
    command = [sys.executable, "-m", "maskhub_cli", "info", str(mask_path), "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1
    process.stderr.close()


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"maskhub {__version__}\n"
    ran = run("-h")
    assert ran.status == 0
    assert run().out == ran.out
    assert list(re.findall(r"^│ (\w+) ", ran.out, re.MULTILINE)) == [
        name for names in COMMANDS.values() for name in names
    ]
    assert "--install-completion" in ran.out


@pytest.mark.parametrize("command", [name for names in COMMANDS.values() for name in names])
def test_every_command_has_an_example(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.status == 0
    assert f"Example: maskhub {command} " in ran.out
