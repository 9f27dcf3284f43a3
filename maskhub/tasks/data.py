"""Examples from files, folders of images or the Hub, through ``datasets``."""

from __future__ import annotations

import csv
import glob
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskhub import tasks
from maskhub.errors import DataError, reason
from maskhub.storage.regular import open_regular
from maskhub.tasks.examples import Columns, Examples, Table

BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
PACKED = {".gz", ".bz2", ".xz", ".zst"}


def read_file(
    path: str | Path, columns: Columns | None = None, task: str | None = None, *, labelled: bool = True
) -> Examples:
    """Examples from a CSV, TSV, JSON-lines or Parquet file, plain or compressed, or from a folder of images.

    ``task`` is a name of ``maskhub.tasks``; None: found by the columns. The folder of images has one folder for each
    class. Examples that are not to be ``labelled`` need no labels, and have none. Raises DataError, naming file,
    column or row, where they cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        images = {"train": glob.escape(str(path)) + "/**"}
        table = _load(str(path), "imagefolder", data_files=images, split="train")
        return _examples(table, str(path), columns, task, labelled)
    with open_regular(path):  # which another library opens
        pass
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
    return _examples(table, str(path), columns, task, labelled)


def read_dataset(
    name: str, split: str, columns: Columns | None = None, token: str | None = None, task: str | None = None
) -> Examples:
    """Examples from a split of a dataset on the Hub or in a folder: ``NAME`` or ``NAME/CONFIG``.

    Raises DataError where there is none.
    """
    failure: DataError | None = None
    for path, config in _places(name):
        try:
            table = _load(name, path, config, split=split, token=token)
            return _examples(table, f"{name}[{split}]", columns, task)
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
            if "corresponds to no data" in why or "BatchSize must be greater than 0" in why:  # CSV, Parquet
                where = source if "data_files" in options else f"{source}[{options['split']}]"
                raise DataError(f"{where}: no examples in it") from error
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


def _examples(rows: Any, source: str, columns: Columns | None, task: str | None, labelled: bool = True) -> Examples:
    if rows.num_rows == 0:
        raise DataError(f"{source}: no examples in it")
    table = Table(rows, source, columns or Columns())
    read = tasks.read(table, task, labelled=labelled)
    return replace(read, columns=tuple(name for name in table.names if name in table.used))
