"""Files of examples, read as they are: CSV, TSV, JSON, JSON lines, Parquet and plain texts; folders of images.

What stands in one row never changes what another one says: cells of CSV and TSV are texts, and values of JSON and
Parquet are what they are written as. Nothing is kept that outlives the run.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import zstandard

from maskhub.errors import DataError, library, reason
from maskhub.storage.regular import open_regular
from maskhub.storage.safetensors import unique_keys
from maskhub.tasks.examples import DatasetRows, Rows

SEPARATORS = (",", ";", "\t", "|")
LINE_END = re.compile(r"\r\n|\r|\n")
WRITE_ROWS = 'Write rows as {"text": ..., "label": ...}.'
MARKS = {
    codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF32_LE: "UTF-32-LE", codecs.BOM_UTF32_BE: "UTF-32-BE",
    codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE",
}  # fmt: skip
OF_A_ROW = {
    "text",
    "sentence",
    "sentence1",
    "tokens",
    "words",
    "prompt",
    "label",
    "labels",
}  # keys, not of a whole file
AS_PARQUET, AS_PACKED = "Save it as Parquet.", "Name it so, such as .csv.gz or .jsonl.zst."
PARQUET = b"PAR1\x15"
KINDS = {
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook", "Unpack it, or save its sheet as CSV."),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "Save its sheet as CSV."),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "Get the file: git lfs pull."),
    PARQUET: ("a Parquet file", "Name it .parquet."),
    b"ARROW1\0": ("an Arrow or Feather file", AS_PARQUET),
    b"\xff\xff\xff\xff": ("an Arrow stream", AS_PARQUET),
    b"\x1f\x8b": ("packed by gzip", AS_PACKED),
    b"BZh9": ("packed by bzip2", AS_PACKED),
    b"\xfd7zXZ": ("packed by xz", AS_PACKED),
    b"\x28\xb5\x2f\xfd": ("packed by Zstandard", AS_PACKED),
}  # of files, by how they begin, and what to do with them


def read_rows(path: str | Path, name: str | Path | None = None) -> Rows:
    """The rows of a file, by the end of its name; ``name`` is another one to call it by.

    Raises DataError, naming what is wrong and in which row.
    """
    name = str(name or path)
    plain = Path(name)
    unpack = UNPACK.get(plain.suffix.lower())
    read = READERS.get((plain.with_suffix("") if unpack else plain).suffix.lower())
    with open_regular(path, name) as file:
        try:
            data: bytes = unpack(file.read()) if unpack else file.read()
        except Exception as error:  # each kind of compression raises its own
            raise DataError(f"{name}: cannot be read: {reason(error)}") from error
    for start, (kind, cure) in KINDS.items():
        if data.startswith(start) and not (start == PARQUET and read is _parquet):
            raise DataError(f"{name}: the file is {kind}", hint=cure)
    if read is None:
        raise DataError(
            f"{name}: cannot tell what kind of file this is", hint=f"Name it {', '.join(READERS)}, or that and .gz."
        )
    if not data:
        raise DataError(f"{name}: the file is empty")
    return read(data, name)


def joined(parts: Sequence[Rows], source: str) -> Rows:
    """The rows of one file after the other's. Raises DataError where their columns are not the same."""
    for part in parts[1:]:
        if set(part.names) != set(parts[0].names):
            raise DataError(
                f"{source}: one of its files has the columns {', '.join(parts[0].names)}, and another "
                f"{', '.join(part.names)}"
            )
    return Rows({name: [value for part in parts for value in part.values(name)] for name in parts[0].names})


def _unzstd(data: bytes) -> bytes:
    """All frames of a Zstandard file. Raises EOFError where the last one is cut: a stream would only end there."""
    whole = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        whole.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("Compressed file ended before the end of its last frame")
        data = frame.unused_data
    return b"".join(whole)


def _text(data: bytes, source: str) -> str:
    """UTF-8, or what a mark at the start says, or UTF-16 as its zeros show."""
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if data.startswith(mark)), (b"", "UTF-8"))
    if not mark and len(data) > 1 and data[:2].count(0) == 1:
        encoding = "UTF-16-LE" if data[1] == 0 else "UTF-16-BE"
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source}: line {line} is not {encoding} (byte 0x{data[error.start]:02x})",
            hint=f"Save it as UTF-8; if it is Western European: iconv -f WINDOWS-1252 -t UTF-8 {Path(source).name}.",
        ) from error
    if "\0" in text:
        raise DataError(
            f"{source}: line {text.count(chr(10), 0, text.index(chr(0))) + 1} has a character of no text (NUL)",
            hint="Save it as UTF-8 text.",
        )
    return text


def _csv(data: bytes, source: str) -> Rows:
    text = _text(data, source)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # of this process, and only ever raised
    told = re.match(r'"?sep=(.)"?(?=[\r\n])', text)  # Excel's line, before the header
    text = text[told.end() :] if told else text
    separators = told[1] if told else SEPARATORS
    headers: dict[str, list[str]] = {}
    for one in separators:  # the header must have quotes that fit
        with suppress(DataError):
            headers[one] = _header(text, source, one)
    separator = max(headers, key=lambda one: len(headers[one]), default=separators[0])  # the first of equals
    others = headers.get(separator, [])[1:]
    blanks = bool(others) and all(name[:1] == " " for name in others)  # after each separator
    return _table(text, source, delimiter=separator, blanks=blanks)


def _tsv(data: bytes, source: str) -> Rows:
    """Cells have quotes where all of them can be read so, within a line; else what stands there belongs to the text."""
    text = _text(data, source)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    with suppress(DataError):
        if not any("\n" in cell for _, cells in _records(text, source, "\t") for cell in cells):
            return _table(text, source, delimiter="\t")
    return _table(text, source, delimiter="\t", quoting=csv.QUOTE_NONE)


def _header(text: str, source: str, delimiter: str = ",", **format: Any) -> list[str]:
    return next(_records(text, source, delimiter, **format), (0, []))[1]


def _records(
    text: str, source: str, delimiter: str, *, blanks: bool = False, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str]]]:
    """The line that each record begins in, and its cells. Empty lines are left out, and blank ones of a wider table."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=blanks, quoting=quoting, strict=True
    )
    row, line, width = 0, 1, 0
    try:
        for cells in reader:
            if len(cells) > 1 or (cells and (width == 1 or cells[0].strip())):
                yield line, cells
                row += 1
                width = width or len(cells)
            line = reader.line_num + 1
    except csv.Error as error:
        where = f"row {row} (line {line})" if row else "the header"
        what = "has a quote that is never closed" if "end of data" in str(error) else "has a quote inside a cell"
        raise DataError(
            f"{source}: {where} {what}",
            hint='Put the whole cell in quotes, and write each quote in it twice: "a ""word"" like this".',
        ) from error


def _table(text: str, source: str, **format: Any) -> Rows:
    names = [name.strip() for name in _header(text, source, **format)]
    _once(names, source)
    if not any(names):
        raise DataError(f"{source}: the first line names no columns", hint="Begin with a line such as text,label.")
    columns: list[list[str]] = [[] for _ in names]
    records = enumerate(_records(text, source, **format))
    next(records)
    for row, (line, cells) in records:
        if len(cells) != len(names):
            raise DataError(
                f"{source}: row {row} (line {line}) has {len(cells)} cells, and the header names {len(names)} columns",
                hint=f"Put texts that hold a {format['delimiter']!r} in quotes, and end no row with one.",
            )
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    _warn_of_swallowed(columns, format["delimiter"], source)
    return Rows({name: column for name, column in zip(names, columns, strict=True) if name})


def _once(names: Sequence[str], source: str) -> None:
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            raise DataError(f"{source}: two columns are named {name!r}", hint="Rename or remove one of them.")


def _warn_of_swallowed(columns: list[list[str]], delimiter: str, source: str) -> None:
    """Of cells that hold whole rows: lines that end as rows do, with a value of the last column."""
    last = set(columns[-1])
    for column in columns[:-1]:
        for row, cell in enumerate(column, 1):
            lines = cell.splitlines() if "\n" in cell else ()
            if any(
                line.count(delimiter) == len(columns) - 1 and line.rpartition(delimiter)[2] in last for line in lines
            ):
                warnings.warn(
                    f"{source}: row {row} has a cell that looks like {len(lines)} rows: is a quote not closed?",
                    stacklevel=2,
                )
                return


def _json(data: bytes, source: str) -> Rows:
    """A list of rows, one under the only key that has one, an object of columns, or JSON lines all the same."""
    text = _text(data, source)
    try:
        whole = _parsed(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DataError(f"{source}: line {error.lineno}: not valid JSON: {error.msg}") from error
        return _json_lines(data, source)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not valid JSON: {reason(error)}") from error
    if isinstance(whole, dict):
        return _from_object(whole, source)
    if not isinstance(whole, list):
        raise DataError(f"{source}: holds {_kind(whole)}, not rows", hint=WRITE_ROWS)
    return _from_objects(whole, source, "row")


def _from_object(whole: dict[str, Any], source: str) -> Rows:
    """Rows under a key; columns; rows or columns by their index, as pandas writes them; or one row."""
    if whole and all(isinstance(value, dict) for value in whole.values()):
        first, *others = (set(value) for value in whole.values())
        if not (whole.keys() & OF_A_ROW or all(name.isdecimal() for name in first)):
            return _from_objects(list(whole.values()), source, "row")
        if any(one != first for one in others):
            raise DataError(f"{source}: its columns {', '.join(whole)} have different rows", hint=WRITE_ROWS)
        order = list(next(iter(whole.values())))
        whole = {name: [value[row] for row in order] for name, value in whole.items()}
    lists = [key for key, value in whole.items() if isinstance(value, list) and all(isinstance(v, dict) for v in value)]
    columns = whole and all(isinstance(value, list) for value in whole.values())
    if whole.keys() & OF_A_ROW and not (columns and not isinstance((whole.get("tokens") or [[]])[0], str)):
        return _from_objects([whole], source, "row")
    if len(lists) > 1 and any(whole[key] for key in lists):
        raise DataError(
            f"{source}: holds several lists of rows: {', '.join(lists)}", hint="Save each in a file of its own."
        )
    if lists:
        return _from_objects(whole[lists[0]], source, "row")
    if whole.keys() >= {"columns", "data"}:
        raise DataError(
            f"{source}: holds a table that is split into columns and data",
            hint=f"{WRITE_ROWS[:-1]}; in pandas: to_json(path, orient='records').",
        )
    if not columns:
        return _from_objects([whole], source, "row")
    if len({len(value) for value in whole.values()}) > 1:
        sizes = ", ".join(f"{name} {len(value)}" for name, value in whole.items())
        raise DataError(f"{source}: its columns have different lengths: {sizes}")
    return Rows(whole)


def _json_lines(data: bytes, source: str) -> Rows:
    objects = []
    for number, line in enumerate(LINE_END.split(_text(data, source)), 1):
        if line.strip():
            try:
                objects.append(_parsed(line))
            except (ValueError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else reason(error)
                raise DataError(f"{source}: line {number}: not valid JSON: {why}") from error
    return _from_objects(objects, source, "line")


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=unique_keys)


def _from_objects(objects: list[Any], source: str, unit: str) -> Rows:
    for number, value in enumerate(objects, 1):
        if not isinstance(value, dict):
            raise DataError(f"{source}: {unit} {number} is {_kind(value)}, not an object", hint=WRITE_ROWS)
    names = dict.fromkeys(name for value in objects for name in value)
    return Rows({name: [value.get(name) for value in objects] for name in names})


def _kind(value: Any) -> str:
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _lines(data: bytes, source: str) -> Rows:
    """A text a line; empty lines are left out."""
    return Rows({"text": [line for line in LINE_END.split(_text(data, source)) if line.strip()]})


def _parquet(data: bytes, source: str) -> Rows:
    pyarrow = library("pyarrow", "Parquet files", "'maskhub[train]'")
    from datasets import Dataset
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(pyarrow.BufferReader(data))
        _once(file.schema_arrow.names, source)
        return DatasetRows(Dataset(file.read()))
    except DataError:
        raise
    except Exception as error:  # pyarrow's, and of features that other versions of datasets wrote
        raise DataError(f"{source}: cannot be read: {reason(error)}") from error


READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".csv": _csv, ".tsv": _tsv, ".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet,
    ".txt": _lines,
}  # fmt: skip
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": _unzstd,
}  # fmt: skip
