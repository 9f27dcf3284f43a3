"""Examples from files and folders of images here, and of datasets, through ``datasets``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskhub import tasks
from maskhub.errors import DataError, reason
from maskhub.tasks.examples import Columns, DatasetRows, Examples, Images, Rows, Table
from maskhub.tasks.files import joined, read_rows
from maskhub.tasks.image_classification import in_folder


def read_file(
    path: str | Path, columns: Columns | None = None, task: str | None = None, *, labelled: bool = True
) -> Examples:
    """Examples from a CSV, TSV, JSON, JSON-lines, Parquet or text file, plain or compressed, or a folder of images.

    ``task`` is a name of ``maskhub.tasks``; None: found by the columns. The folder of images has one folder for each
    class. Examples that are not to be ``labelled`` need no labels, and have none. Raises DataError, naming file,
    column or row, where they cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        images = in_folder(path)
        folders = [image.parent.name for image in images if image.parent != path]
        rows: Rows = Images([str(image) for image in images], folders if len(folders) == len(images) else ())
    else:
        rows = read_rows(path)
    return _examples(rows, str(path), columns, task, labelled)


def read_dataset(
    name: str, split: str, columns: Columns | None = None, token: str | None = None, task: str | None = None
) -> Examples:
    """Examples from a split of a dataset on the Hub or in a folder: ``NAME`` or ``NAME/CONFIG``.

    Raises DataError where there is none.
    """
    failure: DataError | None = None
    for path, config in _places(name):
        try:
            return _examples(_load(name, path, config, split, token), f"{name}[{split}]", columns, task)
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


def _load(source: str, path: str, config: str | None, split: str, token: str | None) -> Rows:
    """A split of a dataset. What lies here is read into a place of this run's own, and no cache."""
    import datasets

    here = Path(path).is_dir()
    with _quiet(datasets), TemporaryDirectory(prefix="maskhub-") as own:
        options: dict[str, Any] = {"token": token, **({"cache_dir": own} if here else {})}
        try:
            builder = datasets.load_dataset_builder(path, config, **options)
            files = (builder.config.data_files or {}).get(split)
            if files and _as_written(builder, here):
                fetched = datasets.DownloadManager(download_config=datasets.DownloadConfig(token=token)).download(files)
                return joined([read_rows(*one) for one in zip(fetched, files, strict=True)], f"{source}[{split}]")
            return DatasetRows(datasets.load_dataset(path, config, split=split, keep_in_memory=here, **options))
        except DataError:
            raise
        except Exception as error:  # datasets raises dozens of kinds, from pyarrow, pandas and the Hub
            why = reason(error.__cause__ or error)
            if "corresponds to no data" in why or "BatchSize must be greater than 0" in why:  # CSV, Parquet
                raise DataError(f"{source}[{split}]: no examples in it") from error
            raise DataError(
                f"{source}: cannot be read: {why}", hint="Check its name, its splits and the network."
            ) from error


def _as_written(builder: Any, here: bool) -> bool:
    """Whether a dataset's files are read as others are: texts that look like dates or numbers stay what they are."""
    if builder.name == "json":
        return here and not (builder.config.field or builder.info.features)
    return builder.name == "csv" and not (builder.config.names or builder.config.column_names)


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


def _examples(rows: Rows, source: str, columns: Columns | None, task: str | None, labelled: bool = True) -> Examples:
    if len(rows) == 0:
        raise DataError(f"{source}: no examples in it")
    table = Table(rows, source, columns or Columns())
    read = tasks.read(table, task, labelled=labelled)
    return replace(read, columns=tuple(name for name in table.names if name in table.used))
