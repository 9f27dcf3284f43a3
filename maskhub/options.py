"""What people are told of a parameter, said once beside its type: the command line's help is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """Stands in a parameter's annotation, as in ``Annotated[float, Option("Of the scores (Adam).")]``.

    The command line makes an option of the parameter's name (``learning_rate``: ``--learning-rate``), or an argument
    where a parameter without a default comes before the ``*``.

    ``metavar`` stands for its value; ``flags`` are other spellings, such as ``-o``; ``group`` is the heading that it
    comes under. ``choices`` gives the values it can have, when they are asked for: registries are not loaded for a
    type's sake.
    """

    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    group: str | None = None
    choices: Callable[[], Iterable[str]] | None = None


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of the ``names`` was probably meant: the one spelled most alike, or with these initials (``lr``)."""
    from difflib import get_close_matches

    names = list(names)
    if found := get_close_matches(name, names, n=1, cutoff=0.6):
        return found[0]
    initials = (one for one in names if "".join(word[0] for word in one.split("_")) == name)
    return next(initials, None)
