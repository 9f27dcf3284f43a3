"""Examples of a task as plain values, and the table of named columns that they are read from."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any

from blake3 import blake3

from maskhub.errors import DataError, listed
from maskhub.storage.regular import open_regular
from maskhub.tasks.metrics import IGNORED

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "intent", "sentiment")
GIVE = "Give each row one, or leave it out."
WHOLE = "Write the whole of it, or leave the row out."
WRITE = """Write lists as JSON has them: ["a", "b"]."""
LOOKED_AT = 100  # rows, to see what a column holds
FEW, MANY = 9, 20  # classes, beyond which numbers with fractions, and others, are hardly names
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")  # as files have it
EXACT = 2**53  # from here on a float stands for several whole numbers
SURROGATE = re.compile("[\ud800-\udfff]")
ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?[0-9][0-9.]*|True|False|None"""  # of a list
LISTS = (
    rf"\[(?:\s*(?:{ITEM})\s*,)*(?:\s*(?:{ITEM}))?\s*\]",
    rf"\((?:\s*(?:{ITEM})\s*,)+(?:\s*(?:{ITEM}))?\s*\)",
    rf"\[\s*(?:{ITEM})(?:\s+(?:{ITEM}))*\s*\]",
)  # as Python writes lists and tuples, and NumPy arrays

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

    ``inputs`` are named as the task's module says; ``labels`` are names of classes, lists of them for tokens (None
    where one does not count), indices of choices, or numbers, and there are none where answers are asked for.
    ``label_names`` holds the classes in the source's own numbering, else sorted. ``columns`` are those that were read.
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

    def digest(self) -> str:
        """BLAKE3 of all that is read of them and of their labels; of images, their files' bytes."""
        hasher = blake3()
        for name, values in [*sorted(self.inputs.items()), ("label", self.labels)]:
            hasher.update(f"{name} {len(values)}\n".encode())
            for value in values:
                hasher.update(json.dumps(_content(value), sort_keys=True).encode() + b"\n")
        return hasher.hexdigest()

    def targets(self) -> list[Any]:
        """The labels; where there are none a 0 for each example, since every batch has labels."""
        return self.labels or [0] * len(self)


class Rows:
    """Columns by name, each value as JSON has it."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self._columns = columns
        self.names = list(columns)

    def __len__(self) -> int:
        return len(self._columns[self.names[0]]) if self.names else 0

    def values(self, column: str) -> list[Any]:
        return self._columns[column]

    def classes(self, column: str) -> tuple[str, ...] | None:
        """The names of the classes that a column, or its lists, hold numbers of; None where it holds none such."""
        return None

    def is_image(self, column: str) -> bool:
        return False


class DatasetRows(Rows):
    """Those of a ``datasets.Dataset``, whose images are left as they were found: ``path`` and ``bytes``."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.names = list(dataset.column_names)

    def __len__(self) -> int:
        return int(self._dataset.num_rows)

    def values(self, column: str) -> list[Any]:
        if not self.is_image(column):
            return list(self._dataset[column])
        from datasets import Image

        return list(self._dataset.cast_column(column, Image(decode=False))[column])

    def classes(self, column: str) -> tuple[str, ...] | None:
        feature = self._dataset.features[column]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        return tuple(names) if names else None

    def is_image(self, column: str) -> bool:
        return type(self._dataset.features[column]).__name__ == "Image"


class Images(Rows):
    """A column ``image`` of paths, and one ``label`` of the folders that they lie in, where they lie in some."""

    def __init__(self, paths: Sequence[str], labels: Sequence[str]) -> None:
        images = [{"path": path, "bytes": None} for path in paths]
        super().__init__({"image": images, **({"label": list(labels)} if labels else {})})

    def is_image(self, column: str) -> bool:
        return column == "image"


@dataclass(frozen=True)
class Table:
    """Rows of a file or a dataset, and the names of ``columns`` that the caller gave.

    Raises DataError for such a name that is not there.
    """

    rows: Rows
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
        return self.rows.names

    def find(self, kind: str, usual: Sequence[str]) -> str | None:
        """The column that the caller named for ``kind`` (text, pair or label), else the first of the usual names."""
        given: str | None = getattr(self.columns, kind)
        return given or next(filter(None, map(self.named, usual)), None)

    def named(self, usual: str) -> str | None:
        """The column of a usual name, whatever its capitals and the blanks around it; DataError where two have it."""
        found = [name for name in self.names if folded(name) == usual]
        if len(found) > 1:
            raise DataError(
                f"{self.source}: the columns {' and '.join(map(repr, found))} differ only by capitals or blanks",
                hint="Rename or remove one of them.",
            )
        return found[0] if found else None

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

    def values(self, column: str, *, lists: bool = False) -> list[Any]:
        """A column's values, those that are written as ``lists`` as such; DataError for a text that is no Unicode."""
        self.used.add(column)
        values = [_parsed(value) for value in self.rows.values(column)] if lists else self.rows.values(column)
        for row, value in enumerate(values, 1):
            for one in value if isinstance(value, list) else (value,):
                if isinstance(one, str) and SURROGATE.search(one):
                    raise DataError(f"{self.source}: row {row} has half a character in column {column!r}", hint=WHOLE)
        return values

    def is_image(self, column: str) -> bool:
        return self.rows.is_image(column)

    def is_list(self, column: str) -> bool:
        """Whether a column holds lists, also such that are written as texts (``"['B-PER', 'O']"``)."""
        return any(map(_is_list, self.rows.values(column)[:LOOKED_AT]))

    def texts(self, column: str) -> list[str]:
        """A column of texts; DataError names the row that has none."""
        texts = self.values(column)
        for row, value in enumerate(texts, 1):
            if not isinstance(value, str | int | float) or value != value:
                raise DataError(f"{self.source}: row {row} has no text in column {column!r}", hint=GIVE)
        return [str(value) for value in texts]

    def lists(self, column: str) -> list[list[str]]:
        """A column of lists of texts, none of them empty; DataError names the row that has none."""
        lists = self.values(column, lists=True)
        for row, value in enumerate(lists, 1):
            if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
                hint = WRITE if isinstance(value, str) else GIVE
                raise DataError(f"{self.source}: row {row} has no list of texts in column {column!r}", hint=hint)
        return lists

    def classes(self, column: str) -> tuple[list[str], tuple[str, ...]]:
        """A column of classes: each row's name of it, and all names. Warns of those that people would take for one."""
        raw, names = self.values(column), self.rows.classes(column)
        if names and not any(isinstance(value, list) for value in raw):
            return [self._named(value, names, column, row) for row, value in enumerate(raw, 1)], names
        labels = [self._class(value, column, row) for row, value in enumerate(raw, 1)]
        self._warn(labels, column)
        numbers = set(labels)
        many = FEW if any("." in one for one in numbers) else max(MANY, len(labels) // 2)
        if len(numbers) > many and all(map(NUMBER.fullmatch, numbers)):
            warnings.warn(
                f"{self.source}: column {column!r} holds {len(numbers)} different numbers, each taken for a class. "
                "To learn numbers, give --task regression",
                stacklevel=2,
            )
        return labels, in_order(labels)

    def class_lists(self, column: str) -> tuple[list[list[str]], tuple[str, ...]]:
        """A column of lists of classes, as ``classes``."""
        raw, names = self.values(column, lists=True), self.rows.classes(column)
        for row, value in enumerate(raw, 1):
            if not isinstance(value, list):
                hint = WRITE if isinstance(value, str) else GIVE
                raise DataError(f"{self.source}: row {row} has no list of labels in column {column!r}", hint=hint)
        if names:
            return [[self._named(v, names, column, row) for v in value] for row, value in enumerate(raw, 1)], names
        labels = [[self._class(v, column, row) for v in value] for row, value in enumerate(raw, 1)]
        self._warn(labels, column)
        return labels, in_order([label for row in labels for label in row])

    def _named(self, index: int | None, names: Sequence[str], column: str, row: int) -> str:
        if index is None or index < 0:
            told = "" if index is None else f" ({index})"
            raise DataError(
                f"{self.source}: row {row} has no label{told} in column {column!r}",
                hint="Give each row one, or leave it out; if none has one, take another split.",
            )
        if index >= len(names):
            raise DataError(
                f"{self.source}: row {row} has class {index} in column {column!r}, which names {len(names)} of them",
                hint=f"They count from 0 to {len(names) - 1}.",
            )
        return names[index]

    def _class(self, value: Any, column: str, row: int) -> str:
        """A class's name: a text as it is, ``True`` or ``False``, a whole number without a point."""
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{self.source}: row {row} has no label in column {column!r}", hint=GIVE)
        if isinstance(value, float | Decimal):
            if value % 1 or not -EXACT < value < EXACT:
                raise DataError(
                    f"{self.source}: column {column!r} holds numbers ({value} in row {row}), not classes",
                    hint="To learn numbers, give --task regression; write classes as texts.",
                )
            value = int(value)
        if _is_list(value):
            raise DataError(
                f"{self.source}: column {column!r} holds lists, not one label a row",
                hint="To learn a tag for each token, give --task token-classification; "
                "of several labels a row, keep the one to learn.",
            )
        if not isinstance(value, str | int):
            raise DataError(
                f"{self.source}: column {column!r} holds {type(value).__name__}s, not one label a row",
                hint="Write classes as texts.",
            )
        return str(value)

    def _warn(self, labels: Sequence[str | list[str]], column: str) -> None:
        """Of labels that differ only by how they are written: they stay classes of their own."""
        first: dict[str, int] = {}  # row of each
        for row, label in enumerate(labels, 1):
            for one in [label] if isinstance(label, str) else label:
                first.setdefault(one, row)
        alike: dict[str, list[str]] = {}
        for label in first:
            alike.setdefault(_unspelled(label), []).append(label)
        for same in alike.values():
            if len(same) > 1:
                told = " and ".join(f"{label!a} (row {first[label]})" for label in same)
                warnings.warn(f"{self.source}: column {column!r} has labels that look the same: {told}", stacklevel=2)


def _content(value: Any) -> Any:
    """A value as JSON has it; an image by the digest of its file."""
    if not isinstance(value, dict) or "bytes" not in value:
        return value
    if value["bytes"] is not None:
        return blake3(value["bytes"]).hexdigest()
    with open_regular(value["path"]) as file:
        return blake3(file.read()).hexdigest()


def folded(name: str) -> str:
    """A column's name as the usual ones are written."""
    return name.strip().casefold()


def number(value: Any) -> float | None:
    """The finite number that a value is, or is written as; None for any other, also true and false."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        with suppress(OverflowError):
            return found if math.isfinite(found := float(value)) else None
    return None


def _unspelled(label: str) -> str:
    """A label without what people and programs write in several ways: capitals, blanks, Unicode form, 1 and 1.0."""
    plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    whole = re.fullmatch(r"(-?)0*([0-9]+?)(\.0*)?", plain)
    return whole[1] + whole[2] if whole else plain


def _parsed(value: Any) -> Any:
    """The list that a text is written as, in JSON, Python or by NumPy; any other value as it is."""
    if not isinstance(value, str) or value[:1] + value[-1:] not in ("[]", "()"):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    with suppress(ValueError, SyntaxError):
        if any(re.fullmatch(written, value, re.DOTALL) for written in LISTS):
            return [ast.literal_eval(item) for item in re.findall(ITEM, value, re.DOTALL)]
    return value


def _is_list(value: Any) -> bool:
    """Whether a value is a list, or a text that is one, or was meant to be: such as one that NumPy has shortened."""
    if not isinstance(value, str):
        return isinstance(value, list)
    framed = value[:1] + value[-1:] == "[]" or value.startswith("array([")
    return (framed and ("'" in value or '"' in value)) or isinstance(_parsed(value), list)


def in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: whole numbers by their value, then the others by the alphabet."""
    return tuple(sorted(set(labels), key=lambda n: (0, int(n), n) if re.fullmatch("-?[0-9]{1,18}", n) else (1, 0, n)))


def in_names(examples: Examples, label_names: Sequence[str]) -> Examples:
    """The examples with each label as it stands in ``label_names``; warns of those that are written another way.

    Raises DataError for a label that is not there, and for one that looks like two that are.
    """
    known = {name: name for name in label_names}
    alike: dict[str, list[str]] = {}
    for name in label_names:
        alike.setdefault(_unspelled(name), []).append(name)
    taken = []

    def found(label: str | None, row: int) -> str | None:
        if label is None:  # one that does not count
            return None
        if label not in known:
            meant = alike.get(_unspelled(label), [])
            if len(meant) != 1:
                cure = f" Write it as one of those: {', '.join(meant)}." if meant else ""
                raise DataError(
                    f"{examples.source}: row {row} has the label {label!r}, which the task does not know",
                    hint=f"It knows: {', '.join(label_names)}.{cure}",
                )
            taken.append(f"{label!a} (row {row}) for {meant[0]!a}")
            known[label] = meant[0]
        return known[label]

    labels = [
        [found(one, row) for one in label] if isinstance(label, list) else found(label, row)
        for row, label in enumerate(examples.labels, 1)
    ]
    if taken:
        warnings.warn(
            f"{examples.source}: some labels are not written as the task's, and taken for them: {listed(taken)}",
            stacklevel=2,
        )
    return replace(examples, labels=labels)


def label_ids(examples: Examples, label_names: Sequence[str]) -> list[Any]:
    """``examples.targets()`` as indices of ``label_names``, in lists where labels are.

    Raises DataError, and warns, as ``in_names``.
    """
    if not examples.labels:
        return examples.targets()
    index: dict[str | None, int] = {name: i for i, name in enumerate(label_names)} | {None: IGNORED}
    labels = in_names(examples, label_names).labels
    return [[index[one] for one in label] if isinstance(label, list) else index[label] for label in labels]
