"""What people are told of a parameter, said once beside its type: the command line is made of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin


@dataclass(frozen=True)
class Option:
    """Stands in a parameter's annotation, as in ``Annotated[float, Option("Of the scores (Adam).")]``.

    The command line makes an option of the parameter's name (``learning_rate``: ``--learning-rate``), or an argument of
    one before the ``*`` that has no ``flags``.

    ``metavar`` stands for its value; ``flags`` are other spellings, such as ``-o``; ``group`` is the heading that it
    comes under. ``choices`` gives the values it can have, when they are asked for: registries are not loaded for a
    type's sake. With a ``metavar`` it may have others, too.
    """

    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    group: str | None = None
    choices: Callable[[], Iterable[str]] | None = None


def options(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, Option]]:
    """The parameters that have an ``Option``, with their types."""
    for parameter in inspect.signature(function).parameters.values():
        annotation = parameter.annotation
        if isinstance(annotation, str):  # in our own source; names that only type checkers know have no option
            try:
                annotation = eval(annotation, inspect.unwrap(function).__globals__)  # noqa: S307
            except NameError:
                continue
        if get_origin(annotation) is Annotated:
            kind, *notes = get_args(annotation)
            for note in notes:
                if isinstance(note, Option):
                    yield parameter, kind, note


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of the ``names`` was probably meant: the one spelled most alike, or with these initials (``lr``)."""
    plain, bare = name.strip("-"), {one.strip("-"): one for one in names}
    if found := get_close_matches(plain, bare, n=1, cutoff=0.6):
        return bare[found[0]]
    return next((bare[one] for one in bare if "".join(word[:1] for word in re.split("[-_]", one)) == plain), None)
