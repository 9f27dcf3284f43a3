"""Expressions over named masks: ``(a & b) | ~c``, ``vote(2, a, b, c)``.

The operators are Python's and bind as there: ``~`` first, then ``-``, ``&``, ``^`` and ``|``, each from the left.
"""

from __future__ import annotations

import ast
import functools
import itertools
import keyword
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskhub.errors import ArgumentError, check_choice
from maskhub.masks.mask import clear_padding, without
from maskhub.storage.tensor import Bytes

BINARY: dict[str, Callable[[Bytes, Bytes], Bytes]] = {
    "|": np.bitwise_or, "^": np.bitwise_xor, "&": np.bitwise_and, "-": without,
}  # fmt: skip
SIGNS: dict[type[ast.operator], str] = {ast.BitOr: "|", ast.BitXor: "^", ast.BitAnd: "&", ast.Sub: "-"}
WORDS = {"or": "|", "xor": "^", "and": "&", "minus": "-", "not": "~"}
VOTE = "vote"
OPERATORS = "Operators are & | ^ - ~ and vote(k, ...)."
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
DEPTH = 50  # levels of nesting
# What is no part of an expression, of which Python would make something else or other words.
STRANGE = re.compile(rf"[^\w\s()&|^~,-]|\b\d+[A-Za-z_]\w*|\b(?:{'|'.join(WORDS)})\b", re.ASCII)


@dataclass(frozen=True)
class Operation:
    """An operator over several terms (``~`` over one), or a vote: what at least ``k`` of the terms keep."""

    operator: str
    terms: tuple[Expression, ...]
    k: int = 0

    def __str__(self) -> str:
        """The expression in its one spelling: it parses to this value again."""
        if self.operator == VOTE:
            return f"vote({self.k}, {', '.join(map(str, self.terms))})"
        inner = [f"({t})" if isinstance(t, Operation) and t.operator in BINARY else str(t) for t in self.terms]
        return f"~{inner[0]}" if self.operator == "~" else f" {self.operator} ".join(inner)


Expression = str | Operation  # a mask's name, or an operation on masks


def can_name(name: str) -> bool:
    """Whether a mask can be called so in an expression."""
    return bool(re.fullmatch(NAME, name)) and name not in (*WORDS, VOTE) and not keyword.iskeyword(name)


def over_all(word: str, names: Sequence[str], k: int | None = None) -> Expression:
    """The expression that one operation (of ``WORDS``, or vote) over all the names is.

    Raises ArgumentError for another operation, a number of masks that it is not for, and a ``k`` that is no number from
    1 to theirs.
    """
    check_choice("operation", word, (*WORDS, VOTE))
    if (word == "not") != (len(names) == 1) or not names:
        raise ArgumentError(f"{word!r} is for {'one mask' if word == 'not' else 'two or more masks'}, not {len(names)}")
    if word != VOTE:
        return Operation(WORDS[word], tuple(names))
    if k is None:
        raise ArgumentError(
            "a vote needs the number of masks that must keep a weight", hint="For two of them: --min 2."
        )
    _check_count(k, len(names), "vote")
    return Operation(VOTE, tuple(names), k)


def names_in(expression: Expression) -> set[str]:
    """The masks that an expression names."""
    if isinstance(expression, str):
        return {expression}
    return set().union(*map(names_in, expression.terms))


def evaluate(expression: Expression, bits: Callable[[str], Bytes], size: int) -> Bytes:
    """The packed bits of an expression over masks of ``size`` weights; ``bits`` gives those of a name."""
    if isinstance(expression, str):
        return bits(expression)
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
    """Read an expression over these names. ArgumentError says where it is wrong. Nothing in it is ever executed."""
    line = re.sub(r"\s", " ", text)
    before = len(line) - len(line.lstrip())  # which Python takes for indentation

    def error(index: int, message: str, hint: str = OPERATORS) -> ArgumentError:
        return ArgumentError(f"expression {text[:200]!r}, column {index + 1}: {message}", hint=hint)

    def read(node: ast.expr, depth: int) -> Expression:
        at = before + node.col_offset
        if depth > DEPTH:
            raise error(at, f"more than {DEPTH} levels of nesting")
        match node:
            case ast.Name(name) if name in names:
                return name
            case ast.Name(name) if name != VOTE:
                raise error(at, f"no mask is called {name!r}", f"There are {', '.join(names) or 'none'}.")
            case ast.UnaryOp(ast.Invert(), term):
                return Operation("~", (read(term, depth + 1),))
            case ast.BinOp(op=operator) if sign := SIGNS.get(type(operator)):
                terms: list[ast.expr] = []
                while isinstance(node, ast.BinOp) and isinstance(node.op, type(operator)):
                    terms.insert(0, node.right)
                    node = node.left
                return Operation(sign, tuple(read(term, depth + 1) for term in (node, *terms)))
            case ast.Call(ast.Name("vote"), [ast.Constant(int(k)) as count, *terms], []) if not isinstance(k, bool):
                _check_count(k, len(terms), error(before + count.col_offset, "vote", "").message)
                return Operation(VOTE, tuple(read(term, depth + 1) for term in terms), k)
        raise error(at, "expected a mask's name, an operation on masks, or a vote such as vote(2, a, b, c)")

    if not line.strip():
        raise ArgumentError("the expression is empty", hint="Such as: (a & b) | ~c.")
    if wrong := STRANGE.search(line):
        hint = f"For {wrong[0]!r} write {WORDS[wrong[0]]}." if wrong[0] in WORDS else OPERATORS
        raise error(wrong.start(), f"{wrong[0]!r} has no meaning here", hint)
    try:
        return read(ast.parse(line.strip(), mode="eval").body, 0)
    except SyntaxError as syntax:
        index = before + syntax.offset - 1 if syntax.offset else len(text)
        raise error(index, syntax.msg.partition(".")[0]) from None
    except (RecursionError, MemoryError):
        raise error(0, "too long, or nested too deep", "Over many masks, one operation goes by --op.") from None


def _check_count(k: int, count: int, what: str) -> None:
    if not 1 <= k <= count:
        raise ArgumentError(f"{what} of {k} among {count} masks", hint=f"The number must be 1 to {count}.")
