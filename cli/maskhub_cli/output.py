"""What commands print: data on stdout as text, JSON or one bare value; hints, warnings and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import typer

Cell = str | int | float


class Progress(Protocol):
    """A callback for the library: how much is done of how much, and a few words."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


class Format(StrEnum):
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

    def __init__(self, format: Format = Format.AUTO, json: bool = False, quiet: bool = False) -> None:
        """Raises typer.BadParameter where the options ask for two formats at once."""
        asked = {format} - {Format.AUTO} | ({Format.JSON} if json else set()) | ({Format.QUIET} if quiet else set())
        if len(asked) > 1:
            raise typer.BadParameter(f"one output format at a time, not {' and '.join(sorted(asked))}")
        self.format = next(iter(asked), Format.HUMAN)

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
        rows with the same keys.
        """
        if self.format is Format.JSON:
            import msgspec

            typer.echo(json.dumps(msgspec.to_builtins(data)))
        elif self.format is Format.QUIET:
            for value in quiet if isinstance(quiet, list) else [quiet]:
                typer.echo(printable(str(value)))
        else:
            if title:
                typer.echo(printable(title))
            for line in _lines(fields or {}):
                typer.echo(printable(line))
            for rows in tables:
                if rows:
                    typer.echo()
                    for line in _table(rows):
                        typer.echo(line)

    def hint(self, text: str) -> None:
        """What to do next."""
        if self.format is Format.HUMAN:
            typer.echo(printable(as_called(text)), err=True)

    def warn(self, text: str) -> None:
        typer.echo(f"Warning: {printable(text)}", err=True)

    @contextlib.contextmanager
    def progress(self, label: str, *, unit: str = "bytes") -> Iterator[Progress | None]:
        """A callback for the library that draws a bar on a terminal, else now and then writes a line to stderr; None
        unless the format is human.

        ``unit`` is what the library counts: bytes are shown with their rate, anything else as a plain count.
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
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            typer.echo(f"{self._label}: {done:,} of {total:,} {self._unit} {note}".rstrip(), err=True)


def as_called(text: str) -> str:
    """``text`` with the commands in it named as this program was called: ``hf mask pull`` for ``maskhub pull``."""
    return re.sub(r"\bmaskhub (?=[a-z])", "hf mask ", text) if Path(sys.argv[0]).stem == "hf-mask" else text


def printable(text: str) -> str:
    """``text`` with control characters escaped: what a file says of itself must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _lines(fields: Mapping[str, str | Sequence[str]]) -> Iterator[str]:
    width = max(map(len, fields), default=0)
    for label, value in fields.items():
        for i, line in enumerate([value] if isinstance(value, str) else value):
            yield f"  {'' if i else label:<{width}}  {line}"


def _table(rows: Sequence[Mapping[str, Cell]]) -> Iterator[str]:
    """Columns under their keys, numbers to the right. Names stay whole, to be copied and searched for."""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [isinstance(value, str) for value in rows[0].values()]
    for line in lines:
        cells = (c.ljust(w) if text else c.rjust(w) for c, w, text in zip(line, widths, left, strict=True))
        yield "  ".join(cells).rstrip()


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)
