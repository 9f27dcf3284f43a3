"""The examples of a run: read, or a part of them held out to evaluate on, and what there is to say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskhub.errors import ArgumentError, DataError, listed
from maskhub.tasks import REGISTRY, TaskType
from maskhub.tasks.data import read_dataset, read_file, split_names
from maskhub.tasks.examples import Columns, Examples, in_names
from maskhub.tasks.token_classification import IGNORE, PIECE, TokenClassification
from maskhub.training.settings import TrainSettings


@dataclass(frozen=True)
class Data:
    """Examples to train and to evaluate on, the metric that picks the best evaluation, and how their task reads."""

    training: Examples
    evaluation: Examples | None
    metric: str
    kind: TaskType


def read(settings: TrainSettings, token: str | None) -> Data:
    """The examples, those to evaluate on read as the others' kind of task. Raises DataError, ArgumentError."""
    columns = Columns(settings.text_column, settings.pair_column, settings.label_column)
    evaluation, split = None, None
    if settings.train_file is not None:
        training = read_file(settings.train_file, columns, settings.task)
    else:
        assert settings.dataset is not None
        training = read_dataset(settings.dataset, "train", columns, token, settings.task)
        splits = [] if settings.eval_file or settings.eval_split else split_names(settings.dataset, token)
        split = next((s for s in ("validation", "validation_matched", "dev", "test") if s in splits), None)
    if settings.eval_file:
        evaluation = read_file(settings.eval_file, columns, training.task)
    elif settings.dataset and split:
        evaluation = read_dataset(settings.dataset, split, columns, token, training.task)
    kind = kind_of(settings, training)
    training, evaluation = kind.counted(training), kind.counted(evaluation) if evaluation else None
    distinct = {one for label in training.labels for one in (label if isinstance(label, list) else [label])} - {None}
    if len(distinct) == 1:
        raise DataError(f"{training.source}: all examples have the label {distinct.pop()!r}; a task needs two or more")
    if settings.eval_split is not None:
        training, evaluation = held_out(training, settings.eval_split, settings.seed)
    if evaluation and training.label_names:
        evaluation = in_names(evaluation, training.label_names)
    known = (*kind.metrics(training.label_names), "loss")
    if settings.metric is not None and settings.metric not in known:
        raise ArgumentError(
            f"training settings: metric: {kind.name} has no {settings.metric!r}", hint=f"It has: {', '.join(known)}."
        )
    return Data(training, evaluation, settings.metric or known[0], kind)


def kind_of(settings: TrainSettings, training: Examples) -> TaskType:
    """The examples' kind of task, as the settings say that it reads. Raises ArgumentError where it cannot."""
    kind, ignored = REGISTRY[training.task], settings.ignore_tags or ()
    given: dict[str, Any] = {PIECE: settings.tag_piece} if settings.tag_piece != "first" else {}
    if ignored:
        given |= {IGNORE: list(ignored)}
    if not given:
        return kind
    if not isinstance(kind, TokenClassification):
        name = "ignore_tags" if ignored else "tag_piece"
        raise ArgumentError(f"training settings: {name}: {kind.name} has no tags", hint="Leave it out.")
    tags = {tag for row in training.labels for tag in row if tag is not None}
    if wrong := [tag for tag in ignored if tag not in {*tags, *training.label_names}]:
        raise ArgumentError(
            f"training settings: ignore_tags: no token has the tag {wrong[0]!r}",
            hint=f"There are: {listed(sorted(tags))}.",
        )
    if tags <= set(ignored):
        raise ArgumentError("training settings: ignore_tags: no tag is left to learn", hint="Name fewer.")
    return kind.told(given)


def held_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """The examples without a share of them, and that share, drawn by the seed: of each class as large a part.

    One example of each class stays. Raises ArgumentError where there are too few.
    """
    labels = examples.labels if examples.label_names and isinstance(examples.labels[0], str) else [""] * len(examples)
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    order.sort(key=lambda i: labels[i])  # stable: by chance within a class
    first = {labels[i]: i for i in reversed(order)}
    free = [i for i in order if first[labels[i]] != i]
    count = round(share * len(examples))
    if not 0 < count <= len(free):
        raise ArgumentError(
            f"training settings: eval_split: {share} of {len(examples)} examples is {count}, where 1 to {len(free)} "
            "can be held out",
            hint="Give another share, or an --eval-file.",
        )
    out = {i for n, i in enumerate(free) if (n + 1) * count // len(free) > n * count // len(free)}
    rest = [i for i in range(len(examples)) if i not in out]
    return _part(examples, rest, examples.source), _part(examples, sorted(out), f"{examples.source}, held out")


def _part(examples: Examples, rows: list[int], source: str) -> Examples:
    inputs: dict[str, Sequence[Any]] = {name: [values[i] for i in rows] for name, values in examples.inputs.items()}
    labels = [examples.labels[i] for i in rows] if examples.labels else []
    return replace(examples, source=source, inputs=inputs, labels=labels)


def classes(examples: Examples) -> dict[str, int]:
    """How many examples (or tokens) each named class has, the most frequent first."""
    if not examples.label_names:
        return {}
    counts = Counter(dict.fromkeys(examples.label_names, 0))
    for label in examples.labels:
        counts.update(one for one in (label if isinstance(label, list) else [label]) if one is not None)
    return dict(counts.most_common())


def told(data: Data) -> Iterator[str]:
    """What was found in the examples, one line each."""
    training, evaluation = data.training, data.evaluation
    columns = f", by the columns {', '.join(training.columns)}" if training.columns else ""
    yield f"Task: {training.task}{columns}"
    unseen = f"{len(evaluation):,} to evaluate on ({evaluation.source})" if evaluation else "none to evaluate on"
    yield f"Examples: {len(training):,} to learn from, {unseen}"
    if counts := classes(training):
        ((most, highest), *_, (rarest, lowest)) = counts.items()
        what = "tokens" if isinstance(training.labels[0], list) else "examples"
        yield f"Classes: {len(counts)}, from {lowest:,} {what} ({rarest}) to {highest:,} ({most})"
