"""What is found by name: codecs, formats and kinds of tasks, built in or brought by another package's entry points."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from maskhub.errors import MaskhubError, reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T]):
    """Things by their names: those built in, and those that packages bring as entry points of ``group``.

    Packages are looked for when a name is not built in, or when all names are wanted, and imported when what they
    bring is. They stand between ``first`` and ``last``, sorted by name. No package takes a built-in name.
    """

    def __init__(self, group: str, what: str, first: Iterable[T], last: Iterable[T] = ()) -> None:
        self._group, self._what = group, what
        self._first, self._last = ({one.name: one for one in some} for some in (first, last))
        self.built_in: Mapping[str, T] = self._first | self._last

    def __getitem__(self, name: str) -> T:
        """KeyError for an unknown name; MaskhubError for one that two packages bring, or that cannot be loaded."""
        if name in self.built_in:
            return self.built_in[name]
        entries = self._brought[name]
        packages = sorted(map(_package, entries))
        if len(entries) > 1:
            raise MaskhubError(
                f"the {self._what} {name!r} is brought by more than one package: {', '.join(packages)}",
                hint="Uninstall all but one.",
            )
        try:
            value: T = entries[0].load()
            if value.name != name:
                raise ValueError(f"what it names is called {value.name!r}")
        except Exception as error:  # a package's own code may raise anything
            raise MaskhubError(
                f"the {self._what} {name!r} of the package {packages[0]} cannot be loaded: its entry point "
                f"{entries[0].value!r} of {self._group}: {reason(error)}",
                hint="Update the package, or uninstall it.",
            ) from error
        return value

    def __iter__(self) -> Iterator[str]:
        yield from self._first
        yield from self._brought
        yield from self._last

    def __len__(self) -> int:
        return len(self.built_in) + len(self._brought)

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._brought

    def usable(self) -> Iterator[T]:
        """All there are, in their order. What cannot be loaded is left out, with a warning."""
        for name in self:
            try:
                yield self[name]
            except MaskhubError as error:
                warnings.warn(f"{reason(error)}; it is left out", stacklevel=2)

    @cached_property
    def _brought(self) -> dict[str, list[EntryPoint]]:
        from importlib.metadata import entry_points  # not at the top: it takes as long as all of a command's start

        found: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entry_points(group=self._group)):
            if entry.name in self.built_in:
                warnings.warn(
                    f"the {self._what} {entry.name!r} of the package {_package(entry)} is left out: "
                    "one of that name is built in",
                    stacklevel=2,
                )
            else:
                found.setdefault(entry.name, []).append(entry)
        return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module
