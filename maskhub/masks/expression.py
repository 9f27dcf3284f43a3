"""Expressions over named masks: ``(a & b) | ~c``, ``vote(2, a, b, c)``.

The operators are Python's and bind as there: ``~`` first, then ``-``, ``&``, ``^`` and ``|``, each from the left.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskhub.errors import ArgumentError
from maskhub.masks.mask import clear_padding, without
from maskhub.storage.tensor import Bytes

BINARY: dict[str, Callable[[Bytes, Bytes], Bytes]] = {
    "|": np.bitwise_or, "^": np.bitwise_xor, "&": np.bitwise_and, "-": without,
}  # fmt: skip  # what binds least comes first
WORDS = {"or": "|", "xor": "^", "and": "&", "minus": "-", "not": "~"}
VOTE = "vote"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
DEPTH = 50  # levels of nesting


@dataclass(frozen=True)
class Name:
    """A mask."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Operation:
    """An operator over several terms (``~`` over one), or a vote: what at least ``k`` of the terms keep."""

    operator: str
    terms: tuple[Name | Operation, ...]
    k: int = 0

    def __str__(self) -> str:
        """The expression in its one spelling: it parses to this value again."""
        if self.operator == VOTE:
            return f"vote({self.k}, {', '.join(map(str, self.terms))})"
        inner = [f"({t})" if isinstance(t, Operation) and t.operator in BINARY else str(t) for t in self.terms]
        return f"~{inner[0]}" if self.operator == "~" else f" {self.operator} ".join(inner)


Expression = Name | Operation


def over_all(word: str, names: Sequence[str], k: int | None = None) -> Expression:
    """The expression that one operation (of ``WORDS``, or vote) over all the names is.

    Raises ArgumentError for another operation, a number of masks that it is not for, and a ``k`` that is no number from
    1 to theirs.
    """
    if word != VOTE and word not in WORDS:
        raise ArgumentError(f"unknown operation {word!r}", hint=f"One of {', '.join((*WORDS, VOTE))}.")
    if (word == "not") != (len(names) == 1) or not names:
        raise ArgumentError(f"{word!r} is for {'one mask' if word == 'not' else 'two or more masks'}, not {len(names)}")
    if word != VOTE:
        return Operation(WORDS[word], tuple(map(Name, names)))
    if k is None:
        raise ArgumentError(
            "a vote needs the number of masks that must keep a weight", hint="For two of them: --min 2."
        )
    _check_count(k, len(names), "vote")
    return Operation(VOTE, tuple(map(Name, names)), k)


def names_in(expression: Expression) -> set[str]:
    """The masks that an expression names."""
    if isinstance(expression, Name):
        return {expression.name}
    return set().union(*map(names_in, expression.terms))


def evaluate(expression: Expression, bits: Callable[[str], Bytes], size: int) -> Bytes:
    """The packed bits of an expression over masks of ``size`` weights; ``bits`` gives those of a name."""
    if isinstance(expression, Name):
        return bits(expression.name)
    terms = (evaluate(term, bits, size) for term in expression.terms)  # at most two at a time are in memory
    if expression.operator == "~":
        return clear_padding(~next(terms), size)
    if expression.operator == VOTE:
        return vote(expression.k, terms)
    return functools.reduce(BINARY[expression.operator], terms)


def vote(k: int, masks: Iterator[Bytes]) -> Bytes:
    """The bits that are set in at least ``k`` of the packed masks.

    Counts are kept bit-sliced: one plane of packed bits for each binary digit. They start at ``2**planes - k``, so
    that the ``k``-th set bit is the one that is carried out of the last plane.
    """
    first = next(masks)
    digits = (k - 1).bit_length()
    start = (1 << digits) - k
    planes = [np.full_like(first, 0xFF if start >> i & 1 else 0) for i in range(digits)]
    buffers = np.empty_like(first), np.empty_like(first)
    reached = np.zeros_like(first)
    for mask in itertools.chain([first], masks):
        carry = mask
        for i, plane in enumerate(planes):
            carried = np.bitwise_and(plane, carry, out=buffers[i % 2])
            np.bitwise_xor(plane, carry, out=plane)
            carry = carried
        np.bitwise_or(reached, carry, out=reached)
    return reached


def parse(text: str, names: Collection[str]) -> Expression:
    """Read an expression over these names. ArgumentError says where it is wrong, and what is right there."""
    return _Parser(text, names).parse()


class _Parser:
    def __init__(self, text: str, names: Collection[str]) -> None:
        self._text, self._names = text, names
        self._tokens = [(m[0], m.start()) for m in re.finditer(rf"{NAME}|[0-9]+|\S", text)]
        self._tokens.append(("", len(text)))
        self._next = 0

    def parse(self) -> Expression:
        if len(self._tokens) == 1:
            raise ArgumentError("the expression is empty", hint="Such as: (a & b) | ~c.")
        parsed = self._binary(0, 0)
        if self._token:
            raise self._error("an operator or the end")
        return parsed

    @property
    def _token(self) -> str:
        return self._tokens[self._next][0]

    def _accept(self, token: str) -> bool:
        found = self._token == token
        self._next += found
        return found

    def _expect(self, token: str, what: str) -> None:
        if not self._accept(token):
            raise self._error(what)

    def _binary(self, level: int, depth: int) -> Expression:
        operators = tuple(BINARY)
        if level == len(operators):
            return self._unary(depth)
        terms = [self._binary(level + 1, depth)]
        while self._accept(operators[level]):
            terms.append(self._binary(level + 1, depth))
        return terms[0] if len(terms) == 1 else Operation(operators[level], tuple(terms))

    def _unary(self, depth: int) -> Expression:
        if depth > DEPTH:
            raise self._error(f"less than {DEPTH} levels of nesting")
        if self._accept("~"):
            return Operation("~", (self._unary(depth + 1),))
        if self._accept("("):
            inner = self._binary(0, depth + 1)
            self._expect(")", "an operator or ')'")
            return inner
        if self._accept(VOTE):
            return self._vote(depth + 1)
        if not re.fullmatch(NAME, self._token) or self._token in WORDS:
            raise self._error("a mask's name, '~', '(' or 'vote('")
        if self._token not in self._names:
            message = f"{self._at(self._next)}: no mask is called {self._token!r}"
            raise ArgumentError(message, hint=f"There are {', '.join(self._names) or 'none'}.")
        self._next += 1
        return Name(self._tokens[self._next - 1][0])

    def _vote(self, depth: int) -> Expression:
        self._expect("(", "'(', as in vote(2, a, b, c)")
        place = self._next
        if not self._token.isdecimal():
            raise self._error("the number of masks that must keep a weight, as in vote(2, a, b, c)")
        k = int(self._token[:10])
        self._next += 1
        terms = []
        while self._accept(","):
            terms.append(self._binary(0, depth))
        self._expect(")", "',' or ')'")
        _check_count(k, len(terms), f"{self._at(place)}: vote")
        return Operation(VOTE, tuple(terms), k)

    def _at(self, token: int) -> str:
        return f"expression {self._text!r}, column {self._tokens[token][1] + 1}"

    def _error(self, expected: str) -> ArgumentError:
        found = f"{self._token!r}" if self._token else "the end"
        hint = "Operators are & | ^ - ~ and vote(k, ...)."
        if word := WORDS.get(self._token):
            hint = f"For {self._token!r} write {word}."
        return ArgumentError(f"{self._at(self._next)}: expected {expected}, not {found}", hint=hint)


def _check_count(k: int, count: int, what: str) -> None:
    if not 1 <= k <= count:
        raise ArgumentError(f"{what} of {k} among {count} masks", hint=f"The number must be 1 to {count}.")
