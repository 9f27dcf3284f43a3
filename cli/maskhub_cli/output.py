"""What commands print: data on stdout as text, JSON or one bare value; hints, warnings and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import typer

from maskhub.errors import ArgumentError, check_choice
from maskhub.text import printable

Cell = str | int | float
ERROR_STATUS = "error_status"  # key of a context's meta: the exit status of an error, where it is not 1
DEBUG = "debug"  # and whether tracebacks are wanted
WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


class Progress(Protocol):
    """A callback for the library: how much is done of how much, and a few words."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


class Format(StrEnum):
    """How results are printed."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


class Output:
    """One command's output.

    ``human`` is text for people, and what ``auto`` means, on a terminal and in a pipe alike. ``json`` is one JSON
    document on one line. ``quiet`` is the one value a script needs next. Hints and progress come only with
    ``human``; warnings come always.
    """

    def __init__(
        self,
        format: str = Format.AUTO,
        json: bool = False,
        quiet: bool = False,
        *,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """``meta`` is that of the command's context. Raises ArgumentError where the options ask for two formats."""
        check_choice("output format", format, list(Format))
        asked = {Format(format)} - {Format.AUTO}
        asked |= ({Format.JSON} if json else set()) | ({Format.QUIET} if quiet else set())
        if len(asked) > 1:
            raise ArgumentError(f"one output format at a time, not {' and '.join(sorted(asked))}")
        self.auto = not asked
        self.format = next(iter(asked), Format.HUMAN)
        self.meta = {} if meta is None else meta

    def quiet_hub(self) -> None:
        """Let the Hub's client say nothing of its own, and draw bars on terminals only. Call it before its import."""
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        if self.format is not Format.HUMAN or not sys.stderr.isatty():
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

    def show(
        self,
        data: Any,
        *,
        quiet: object,
        title: str = "",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        tables: Sequence[Sequence[Mapping[str, Cell]]] = (),
    ) -> None:
        """Print a result.

        ``data`` (a mapping, dataclass or struct) is the JSON document and ``quiet`` the bare value, or a list of them.
        People get ``title``, ``fields`` one a line (a value of several lines as a list), and ``tables``, each a list of
        rows with the same keys, the most telling ones first: what does not fit the terminal is left out from the right.
        """
        if self.format is Format.JSON:
            typer.echo(strict(data))
        elif self.format is Format.QUIET:
            for value in quiet if isinstance(quiet, list) else [quiet]:
                typer.echo(printable(str(value)))
        else:
            width = terminal_width()
            if title:
                typer.echo(styled(printable(title), bold=True))
            for line in _lines(fields or {}, width):
                typer.echo(line)
            for rows in tables:
                if rows:
                    typer.echo()
                    for line in _table(rows, width):
                        typer.echo(line)

    def lines(self, lines: Iterable[str]) -> None:
        """Print data that comes line by line."""
        for line in lines:
            typer.echo(line)

    def say(self, text: str) -> None:
        """What is going on, or was found; for people, beside the data."""
        if self.format is Format.HUMAN:
            typer.echo(printable(as_called(text)), err=True)

    def hint(self, text: str) -> None:
        """What to do next."""
        if self.format is Format.HUMAN:
            typer.echo(styled(printable(as_called(text)), err=True, fg="cyan"), err=True)

    def warn(self, text: str) -> None:
        typer.echo(warning_line(text), err=True)

    @contextlib.contextmanager
    def progress(self, label: str, *, unit: str = "bytes") -> Iterator[Progress | None]:
        """A callback for the library that draws a bar on a terminal, else writes a line to stderr now and then.

        None unless the format is human. ``unit`` is what the library counts: bytes are shown with their rate, anything
        else as a plain count.
        """
        if self.format is not Format.HUMAN:
            yield None
            return
        if not sys.stderr.isatty():
            yield _Log(label, unit)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        counts: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(unit)]
        if unit == "bytes":
            counts = [DownloadColumn(), TransferSpeedColumn()]
        with Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            *counts,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as bar:
            task = bar.add_task(label, total=None)

            def update(done: int, total: int, note: str = "", /) -> None:
                bar.update(task, completed=done, total=total, description=f"{label} {note}".rstrip())

            yield update


class _Log:
    """Progress for a log file: a line now and then, and none for what is soon done."""

    def __init__(self, label: str, unit: str, seconds: float = 15.0) -> None:
        self._label, self._unit, self._seconds = label, unit, seconds
        self._last: float | None = None

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        if self._last is None:  # what came before was no part of it
            self._last = time.monotonic()
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            typer.echo(f"{self._label}: {done:,} of {total:,} {self._unit} {note}".rstrip(), err=True)


def as_called(text: str) -> str:
    """``text`` with the commands in it named as this program was called: ``hf mask pull`` for ``maskhub pull``."""
    return re.sub(r"\bmaskhub (?=[a-z])", "hf mask ", text) if Path(sys.argv[0]).stem == "hf-mask" else text


def strict(data: Any) -> str:
    """``data`` as JSON on one line: null for what is no finite number, and escapes for what does not print."""
    import msgspec

    def finite(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {str(key): finite(one) for key, one in value.items()}
        return [finite(one) for one in value] if isinstance(value, list | tuple) else value

    text = json.dumps(finite(msgspec.to_builtins(data, enc_hook=str)), ensure_ascii=False, allow_nan=False)
    # Such characters stand in strings alone.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1].replace("\x7f", "\\u007f") for c in text)


def error_line(text: str) -> str:
    """An error as one line, whatever it came from."""
    return f"{styled('Error:', err=True, fg='red')} {printable(as_called(' '.join(text.splitlines())))}"


def warning_line(text: str) -> str:
    """A warning as one line."""
    return f"{styled('Warning:', err=True, fg='yellow')} {printable(' '.join(text.splitlines()))}"


def styled(text: str, *, err: bool = False, **style: Any) -> str:
    """Text in colour on terminals, unless NO_COLOR is set."""
    stream = sys.stderr if err else sys.stdout
    return typer.style(text, **style) if stream.isatty() and not os.environ.get("NO_COLOR") else text


def terminal_width() -> int | None:
    """Columns of the terminal; None where nothing has to fit, as in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _lines(fields: Mapping[str, str | Sequence[str]], width: int | None) -> Iterator[str]:
    """Labels and values; a value that does not fit beside its label goes on below it, whole words at a time."""
    wide = max((len(printable(label)) for label in fields), default=0)
    for label, value in ((printable(label), value) for label, value in fields.items()):
        for i, line in enumerate([value] if isinstance(value, str) else value):
            start = "" if i else f"{label:<{wide}}"
            head = styled(f"  {start:<{wide}}", dim=True)
            parts = [printable(line)]
            if width is not None:
                parts = textwrap.wrap(parts[0], max(20, width - wide - 4), **WHOLE_WORDS) or [""]
            if width is not None and wide + 4 + max(map(len, parts)) > width:
                yield head.rstrip()
                yield from textwrap.wrap(
                    printable(line), width, initial_indent="    ", subsequent_indent="    ", **WHOLE_WORDS
                )
                continue
            yield f"{head}  {parts[0]}"
            for part in parts[1:]:
                yield f"  {'':<{wide}}  {part}"


def _table(rows: Sequence[Mapping[str, Cell]], width: int | None) -> Iterator[str]:
    """Columns under their keys, numbers to the right. Names stay whole, to be copied and searched for."""
    lines = [list(map(printable, rows[0])), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [isinstance(value, str) for value in rows[0].values()]
    fits = [i for i in range(len(widths)) if i == 0 or width is None or sum(widths[: i + 1]) + 2 * i <= width]
    for number, line in enumerate(lines):
        cells = (line[i].ljust(widths[i]) if left[i] else line[i].rjust(widths[i]) for i in fits)
        text = "  ".join(cells).rstrip()
        yield styled(text, dim=True) if number == 0 else text
    if len(fits) < len(widths):
        text = f"(no room for {', '.join(lines[0][len(fits) :])}: --json has all)"
        yield from textwrap.wrap(text, width or len(text))


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)
