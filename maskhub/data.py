"""Examples from files or the Hub: texts, pairs of texts, and their labels, through ``datasets``."""

from __future__ import annotations

import csv
import glob
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskhub.errors import DataError, reason

# Usual names, in the order they are looked for. Pairs come first: ``sentence`` alone may be half of one.
PAIR_COLUMNS = (
    ("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("question", "context"), ("query", "document"),
)  # fmt: skip
TEXT_COLUMNS = ("text", "sentence", "review", "content", "message", "comment", "tweet", "document", "question", "sms")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "intent", "sentiment")

BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
PACKED = {".gz", ".bz2", ".xz", ".zst"}


@dataclass(frozen=True)
class Columns:
    """Names of columns, where the caller gives them; None: found by the usual names."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Examples:
    """Texts, their partners (None where examples are single texts) and their labels, as strings."""

    source: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    label_names: tuple[str, ...]  # in the order of the source's own numbering, else sorted

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int | None) -> Examples:
        """The first ``count`` examples."""
        pairs = self.pairs[:count] if self.pairs else None
        return Examples(self.source, self.texts[:count], pairs, self.labels[:count], self.label_names)


def read_file(path: str | Path, columns: Columns | None = None) -> Examples:
    """Examples from a CSV, TSV, JSON-lines or Parquet file, plain or compressed.

    Raises DataError, naming file, column or row, where they cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffixes = [s for s in path.suffixes if s.lower() not in PACKED]
    builder = BUILDERS.get(suffixes[-1].lower()) if suffixes else None
    if builder is None:
        raise DataError(
            f"{path}: cannot tell what kind of file this is", hint=f"Name it {', '.join(BUILDERS)}, or that and .gz."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    options: dict[str, Any] = {"sep": "\t", "quoting": csv.QUOTE_NONE} if suffixes[-1].lower() == ".tsv" else {}
    if builder == "csv":  # an empty cell, or "NA", is a text; a row with a cell too many is no row with an index
        options |= {"keep_default_na": False, "index_col": False}
    table = _load(str(path), builder, data_files=glob.escape(str(path)), split="train", **options)
    return _examples(table, str(path), columns)


def read_dataset(name: str, split: str, columns: Columns | None = None, token: str | None = None) -> Examples:
    """Examples from a split of a dataset on the Hub or in a folder: ``NAME`` or ``NAME/CONFIG``.

    Raises DataError where there is none.
    """
    failure: DataError | None = None
    for path, config in _places(name):
        try:
            return _examples(_load(name, path, config, split=split, token=token), f"{name}[{split}]", columns)
        except DataError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def split_names(name: str, token: str | None = None) -> list[str]:
    """The splits a dataset has, for choosing one to evaluate on."""
    import datasets

    for path, config in _places(name):
        with _quiet(datasets), suppress(Exception):
            return list(datasets.get_dataset_split_names(path, config, token=token))
    return []


def _places(name: str) -> list[tuple[str, str | None]]:
    """What ``name`` may mean: datasets with their configurations, the likeliest first."""
    repo, _, config = name.rpartition("/")
    if Path(name).is_dir() or not repo:
        return [(name, None)]
    if Path(repo).is_dir() or "/" in repo:
        return [(repo, config)]
    return [(name, None), (repo, config)]  # user/name, or name/config


def _load(source: str, *args: Any, **options: Any) -> Any:
    import datasets

    with _quiet(datasets):
        try:
            return datasets.load_dataset(*args, **options)
        except Exception as error:  # datasets raises dozens of kinds, from pyarrow, pandas and the Hub
            why = reason(error.__cause__ or error)
            if "corresponds to no data" in why:
                raise DataError(f"{source}: no examples in it") from error
            hint = None if "data_files" in options else "Check its name, its splits and the network."
            raise DataError(f"{source}: cannot be read: {why}", hint=hint) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No bars and no log lines: what goes wrong is in the error."""
    shown, level = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Length of header or names does not match")
            yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def _examples(table: Any, source: str, columns: Columns | None) -> Examples:
    if table.num_rows == 0:
        raise DataError(f"{source}: no examples in it")
    text, pair, label = _find_columns(table.column_names, source, columns or Columns())
    feature = table.features[label]
    raw = list(table[label])
    if hasattr(feature, "names"):  # a class label of the Hub
        names = tuple(feature.names)
        if any(value is None or value < 0 for value in raw):
            raise DataError(f"{source}: column {label!r} has rows without a label")
        labels = [names[value] for value in raw]
    else:
        labels = [_label(value, source, label, row) for row, value in enumerate(raw, 1)]
        names = tuple(sorted(set(labels), key=lambda n: (0, int(n), n) if re.fullmatch("-?[0-9]+", n) else (1, 0, n)))
    texts = _texts(table, text, source)
    return Examples(source, texts, _texts(table, pair, source) if pair else None, labels, names)


def _find_columns(present: list[str], source: str, given: Columns) -> tuple[str, str | None, str]:
    for kind, name in asdict(given).items():
        if name is not None and name not in present:
            raise DataError(
                f"{source}: no column {name!r} (asked for as the {kind} column)", hint=f"It has: {', '.join(present)}."
            )
    label = given.label or next((c for c in LABEL_COLUMNS if c in present), None)
    text, pair = given.text, given.pair
    if text is None:
        text, found = next((p for p in PAIR_COLUMNS if p[0] in present and p[1] in present), (None, None))
        pair = pair or found
    text = text or next((c for c in TEXT_COLUMNS if c in present), None)
    for kind, found in (("text", text), ("label", label)):
        if found is None:
            raise DataError(
                f"{source}: no {kind} column found among {', '.join(present)}", hint=f"Name it with --{kind}-column."
            )
    assert text is not None
    assert label is not None
    return text, pair, label


def _label(value: Any, source: str, column: str, row: int) -> str:
    if value is None or value == "":
        raise DataError(f"{source}: row {row} has no label in column {column!r}")
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"{source}: column {column!r} holds numbers ({value} in row {row}), not classes")
        value = int(value)
    if not isinstance(value, str | int | bool):
        raise DataError(f"{source}: column {column!r} holds {type(value).__name__}s, not one label a row")
    return str(value)


def _texts(table: Any, column: str, source: str) -> list[str]:
    texts = list(table[column])
    for row, value in enumerate(texts, 1):
        if value is None or not isinstance(value, str | int | float):
            raise DataError(f"{source}: row {row} has no text in column {column!r}")
    return [str(value) for value in texts]


def label_ids(examples: Examples, label_names: tuple[str, ...]) -> list[int]:
    """Each example's label as an index of ``label_names``; DataError names one that is not there."""
    index = {name: i for i, name in enumerate(label_names)}
    for row, label in enumerate(examples.labels, 1):
        if label not in index:
            raise DataError(
                f"{examples.source}: row {row} has the label {label!r}, which the task does not know",
                hint=f"It knows: {', '.join(label_names)}.",
            )
    return [index[label] for label in examples.labels]
