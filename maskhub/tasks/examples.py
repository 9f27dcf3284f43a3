"""Examples of a task as plain values, and the table of named columns that they are read from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from maskhub.errors import DataError

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "intent", "sentiment")
GIVE = "Give each row one, or leave it out."

Inputs = dict[str, Sequence[Any]]  # what a task reads, one entry an example in each sequence


@dataclass(frozen=True)
class Columns:
    """Names of columns, where the caller gives them; None: found by the usual names.

    ``text`` is what a task reads (a text, tokens, a prompt, an image), ``pair`` what stands beside it (a second text,
    the choices).
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Examples:
    """What a task reads and its labels, one entry an example in each sequence.

    ``inputs`` are named as the task's module says; ``labels`` are names of classes, lists of them for tokens, indices
    of choices, or numbers, and there are none where answers are asked for. ``label_names`` holds the classes in the
    source's own numbering, else sorted. ``columns`` are those that were read.
    """

    source: str
    task: str
    inputs: Inputs
    labels: list[Any]
    label_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def head(self, count: int | None) -> Examples:
        """The first ``count`` examples."""
        inputs = {name: values[:count] for name, values in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels[:count])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What is read of one example."""
        return {name: values[index] for name, values in self.inputs.items()}

    def targets(self) -> list[Any]:
        """The labels; where there are none a 0 for each example, since every batch has labels."""
        return self.labels or [0] * len(self)


@dataclass(frozen=True)
class Table:
    """Rows of a file or a dataset: ``rows`` is a ``datasets.Dataset``, ``columns`` are the names the caller gave.

    Raises DataError for such a name that is not there.
    """

    rows: Any
    source: str
    columns: Columns = Columns()
    used: set[str] = field(default_factory=set, compare=False)  # columns that were read

    def __post_init__(self) -> None:
        for kind, name in asdict(self.columns).items():
            if name is not None and name not in self.names:
                raise DataError(
                    f"{self.source}: no column {name!r} (asked for as the {kind} column)",
                    hint=f"It has: {', '.join(self.names)}.",
                )

    @property
    def names(self) -> list[str]:
        return list(self.rows.column_names)

    def find(self, kind: str, usual: Sequence[str]) -> str | None:
        """The column that the caller named for ``kind`` (text, pair or label), else the first of the usual names."""
        given: str | None = getattr(self.columns, kind)
        return given or next((name for name in usual if name in self.names), None)

    def column(self, kind: str, usual: Sequence[str]) -> str:
        """``find``; DataError where there is none."""
        found = self.find(kind, usual)
        if found is None:
            raise DataError(
                f"{self.source}: no {kind} column found among {', '.join(self.names)}",
                hint=f"Name it with --{kind}-column.",
            )
        self.used.add(found)
        return found

    def values(self, column: str) -> list[Any]:
        self.used.add(column)
        return list(self.rows[column])

    def feature(self, column: str) -> Any:
        """The type of a column, as ``datasets`` describes it."""
        return self.rows.features[column]

    def is_list(self, column: str) -> bool:
        return hasattr(self.feature(column), "feature")

    def texts(self, column: str) -> list[str]:
        """A column of texts; DataError names the row that has none."""
        texts = self.values(column)
        for row, value in enumerate(texts, 1):
            if not isinstance(value, str | int | float):
                raise DataError(f"{self.source}: row {row} has no text in column {column!r}", hint=GIVE)
        return [str(value) for value in texts]

    def lists(self, column: str) -> list[list[str]]:
        """A column of lists of texts, none of them empty; DataError names the row that has none."""
        lists = self.values(column)
        for row, value in enumerate(lists, 1):
            if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
                raise DataError(f"{self.source}: row {row} has no list of texts in column {column!r}", hint=GIVE)
        return lists

    def classes(self, column: str) -> tuple[list[str], tuple[str, ...]]:
        """A column of classes: each row's name of it, and all names."""
        raw, feature = self.values(column), self.feature(column)
        if hasattr(feature, "names"):  # a class label of datasets
            return self._named(raw, feature.names, column), tuple(feature.names)
        labels = [self._class(value, column, row) for row, value in enumerate(raw, 1)]
        return labels, in_order(labels)

    def class_lists(self, column: str) -> tuple[list[list[str]], tuple[str, ...]]:
        """A column of lists of classes, as ``classes``."""
        raw = self.values(column)
        for row, value in enumerate(raw, 1):
            if not isinstance(value, list):
                raise DataError(f"{self.source}: row {row} has no list of labels in column {column!r}", hint=GIVE)
        names = getattr(self.feature(column).feature, "names", None)
        if names:
            return [self._named(value, names, column) for value in raw], tuple(names)
        labels = [[self._class(v, column, row) for v in value] for row, value in enumerate(raw, 1)]
        return labels, in_order([label for row in labels for label in row])

    def _named(self, ids: list[Any], names: Sequence[str], column: str) -> list[str]:
        if any(value is None or value < 0 for value in ids):
            raise DataError(f"{self.source}: column {column!r} has rows without a label", hint=GIVE)
        return [names[value] for value in ids]

    def _class(self, value: Any, column: str, row: int) -> str:
        if value is None or value == "":
            raise DataError(f"{self.source}: row {row} has no label in column {column!r}", hint=GIVE)
        if isinstance(value, float):
            if not value.is_integer():
                raise DataError(
                    f"{self.source}: column {column!r} holds numbers ({value} in row {row}), not classes",
                    hint="To learn numbers, give --task regression.",
                )
            value = int(value)
        if not isinstance(value, str | int | bool):
            raise DataError(f"{self.source}: column {column!r} holds {type(value).__name__}s, not one label a row")
        return str(value)


def in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: whole numbers by their value, then the others by the alphabet."""
    return tuple(sorted(set(labels), key=lambda n: (0, int(n), n) if re.fullmatch("-?[0-9]+", n) else (1, 0, n)))


def label_ids(examples: Examples, label_names: Sequence[str]) -> list[Any]:
    """``examples.targets()`` as indices of ``label_names``, in lists where labels are.

    Raises DataError for a label that is not there.
    """
    if not examples.labels:
        return examples.targets()
    index = {name: i for i, name in enumerate(label_names)}

    def number(label: str, row: int) -> int:
        if label not in index:
            raise DataError(
                f"{examples.source}: row {row} has the label {label!r}, which the task does not know",
                hint=f"It knows: {', '.join(label_names)}.",
            )
        return index[label]

    return [
        [number(one, row) for one in label] if isinstance(label, list) else number(label, row)
        for row, label in enumerate(examples.labels, 1)
    ]
