"""What commands print: data on stdout as text, JSON or one bare value; hints, warnings and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import typer

Cell = str | int | float
Progress = Callable[[int, int], None]  # done, in all


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

        ``data`` (a mapping, dataclass or struct) is the JSON document and ``quiet`` the bare value. People get
        ``title``, ``fields`` one a line (a value of several lines as a list), and ``tables``, each a list of rows
        with the same keys.
        """
        if self.format is Format.JSON:
            import msgspec

            typer.echo(json.dumps(msgspec.to_builtins(data)))
        elif self.format is Format.QUIET:
            typer.echo(printable(str(quiet)))
        else:
            if title:
                typer.echo(printable(title))
            for line in _lines(fields or {}):
                typer.echo(printable(line))
            for rows in tables:
                if rows:
                    typer.echo()
                    _print_table(rows)

    def hint(self, text: str) -> None:
        """What to do next."""
        if self.format is Format.HUMAN:
            typer.echo(printable(text), err=True)

    def warn(self, text: str) -> None:
        typer.echo(f"Warning: {printable(text)}", err=True)

    @contextlib.contextmanager
    def progress(self, label: str, *, unit: str = "bytes") -> Iterator[Progress | None]:
        """A callback for the library that draws a bar; None where nobody watches.

        ``unit`` is what the library counts: bytes are shown with their rate, anything else as a plain count.
        """
        if self.format is not Format.HUMAN or not sys.stderr.isatty():
            yield None
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
            yield lambda done, total: bar.update(task, completed=done, total=total)


def printable(text: str) -> str:
    """``text`` with control characters escaped: what a file says of itself must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _lines(fields: Mapping[str, str | Sequence[str]]) -> Iterator[str]:
    width = max(map(len, fields), default=0)
    for label, value in fields.items():
        for i, line in enumerate([value] if isinstance(value, str) else value):
            yield f"  {'' if i else label:<{width}}  {line}"


def _print_table(rows: Sequence[Mapping[str, Cell]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items():
        text = isinstance(value, str)
        table.add_column(key, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    # A pipe gets every row on one line, however long.
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)
