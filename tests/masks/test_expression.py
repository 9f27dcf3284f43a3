from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskhub.errors import MaskhubError
from maskhub.masks.expression import Expression, Operation, can_name, evaluate, names_in, over_all, parse, vote
from maskhub.masks.mask import Mask

NAMES = ("a", "b", "c")
SIZES = st.sampled_from([0, 1, 7, 8, 9, 63, 64, 65, 200])
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: (
        st.builds(Operation, st.sampled_from("|^&-"), st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(lambda term: Operation("~", (term,)), inner)
        | st.lists(inner, min_size=1, max_size=4).flatmap(
            lambda terms: st.integers(1, len(terms)).map(lambda k: Operation("vote", tuple(terms), k))
        )
    ),
    max_leaves=8,
)


def in_python(text: str, flags: dict[str, np.ndarray]) -> np.ndarray:
    """An expression as Python evaluates it over 0 and 1."""

    def vote(k: int, *terms: np.ndarray) -> np.ndarray:
        return np.sum([term & 1 for term in terms], axis=0) >= k

    class Bits:
        """A boolean array whose minus is that of sets."""

        def __init__(self, flags: np.ndarray) -> None:
            self.flags = flags

        def __and__(self, other: Bits) -> Bits:
            return Bits(self.flags & other.flags)

        def __or__(self, other: Bits) -> Bits:
            return Bits(self.flags | other.flags)

        def __xor__(self, other: Bits) -> Bits:
            return Bits(self.flags != other.flags)

        def __sub__(self, other: Bits) -> Bits:
            return Bits(self.flags & ~other.flags)

        def __invert__(self) -> Bits:
            return Bits(~self.flags)

    names: dict[str, object] = {name: Bits(value) for name, value in flags.items()}
    names["vote"] = lambda k, *terms: Bits(vote(k, *(term.flags for term in terms)))
    result = eval(text, {"__builtins__": {}}, names)
    assert isinstance(result, Bits)
    return result.flags


@given(EXPRESSIONS, SIZES, st.integers(0, 2**32))
def test_an_expression_means_what_it_means_in_python(expression: Expression, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flags = {name: rng.random(size) < 0.5 for name in NAMES}
    text = str(expression)
    assert str(parse(text, NAMES)) == str(parse(str(parse(text, NAMES)), NAMES))
    found = evaluate(parse(text, NAMES), lambda name: Mask.from_bool(flags[name]).bits, size)
    assert np.array_equal(Mask((size,), found).to_bool(), in_python(text, flags))  # Mask checks the padding
    assert names_in(expression) == {name for name in NAMES if re.search(rf"\b{name}\b", text)}


@pytest.mark.parametrize(
    "text",
    ["a | b & c", "a & b - c", "a - b - c", "a ^ b | c ^ a", "~a - b", "~a & ~b", "~(a | b)", "~~a", "a-b&c|a^~b",
     "vote(2, a & b, c, ~a)", " ( ( a ) ) ", "a - (b - c)", "vote(1,a)"],
)  # fmt: skip
def test_precedence_is_pythons(text: str) -> None:
    rng = np.random.default_rng(0)
    flags = {name: rng.random(65) < 0.5 for name in NAMES}
    found = evaluate(parse(text, NAMES), lambda name: Mask.from_bool(flags[name]).bits, 65)
    assert np.array_equal(Mask((65,), found).to_bool(), in_python(text.strip(), flags))


def test_an_expression_has_one_spelling() -> None:
    assert str(parse("((a)&b)|~(c)", NAMES)) == "(a & b) | ~c"
    assert str(parse("vote( 2 ,a,b , (c-a) )", NAMES)) == "vote(2, a, b, c - a)"
    assert str(parse("~(a|b)", NAMES)) == "~(a | b)"
    assert str(parse("(a-b)-(c-a)", NAMES)) == "a - b - (c - a)"


@pytest.mark.parametrize("name", ["", "2a", "a-b", "ä", "and", "vote", "in", "None"])
def test_what_cannot_name_a_mask(name: str) -> None:
    assert not can_name(name)
    assert can_name("_" + re.sub("[^a-z]", "", name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the expression is empty"),
        ("  ", "the expression is empty"),
        ("a &", "column 4: invalid syntax"),
        ("a & & b", "column 5: invalid syntax"),
        ("a + b", "column 3: '+' has no meaning here"),
        ("a b", "column 3: invalid syntax"),
        ("a and b", "column 3: 'and' has no meaning here. For 'and' write &."),
        ("not a", "column 1: 'not' has no meaning here. For 'not' write ~."),
        ("(a & b", "column 1: '(' was never closed"),
        ("  a & b)", "column 8: unmatched ')'"),
        ("\ta & x", "column 6: no mask is called 'x'. There are a, b, c."),
        ("2a", "column 1: '2a' has no meaning here"),
        ("a && b", "column 4: invalid syntax"),
        ("a, b", "column 1: expected a mask's name"),
        ("a & -b", "column 5: expected a mask's name"),
        ("a if b else c", "column 1: expected a mask's name"),
        ("a # b", "column 3: '#' has no meaning here"),
        ("open(a)", "column 1: expected a mask's name"),
        ("a.b", "column 2: '.' has no meaning here"),
        ("vote", "column 1: expected a mask's name, an operation on masks, or a vote such as vote(2, a, b, c)"),
        ("vote(a, b)", "column 1: expected a mask's name"),
        ("vote(True, a)", "column 1: expected a mask's name"),
        ("vote(0, a, b)", "column 6: vote of 0 among 2 masks"),
        ("vote(3, a, b)", "column 6: vote of 3 among 2 masks"),
        ("vote(1)", "column 6: vote of 1 among 0 masks"),
        ("vote(1, a b)", "column 9: invalid syntax"),
        ("vote(99999999999999999999, a)", "column 6: vote of 99999999999999999999 among 1 masks"),
        ("ä | a", "column 1: 'ä' has no meaning here"),
        ("a\n& \x00", "column 5: '\\x00' has no meaning here"),
        ("~" * 60 + "a", "column 52: more than 50 levels of nesting"),
        ("(" * 5000 + "a" + ")" * 5000, "too many nested parentheses"),
        ("~" * 500000 + "a", "too long, or nested too deep"),
        (" & ".join("a" * 50000), "too long, or nested too deep"),
    ],
)
def test_a_wrong_expression_says_where(text: str, message: str) -> None:
    with pytest.raises(MaskhubError, match=re.escape(message)) as caught:
        parse(text, NAMES)
    assert caught.value.hint


@given(st.text(st.sampled_from("abcvote()&|^-~,12 x+isnfl"), max_size=30))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        parsed = parse(text, NAMES)
    except MaskhubError:
        return
    assert parse(str(parsed), NAMES) == parsed


def test_long_chains_are_flat() -> None:
    names = [f"m{i}" for i in range(2000)]
    assert parse(" & ".join(names), names) == over_all("and", names)


def test_words_over_all_masks() -> None:
    assert str(over_all("minus", NAMES)) == "a - b - c"
    assert str(over_all("vote", NAMES, 2)) == "vote(2, a, b, c)"
    assert str(over_all("not", ["a"])) == "~a"
    for word, names, k, message in (
        ("nand", NAMES, None, "operation: there is no 'nand'"),
        ("not", NAMES, None, "'not' is for one mask, not 3"),
        ("and", ["a"], None, "'and' is for two or more masks, not 1"),
        ("vote", NAMES, None, "a vote needs the number of masks"),
        ("vote", NAMES, 0, "vote of 0 among 3 masks"),
        ("vote", NAMES, 4, "vote of 4 among 3 masks"),
    ):
        with pytest.raises(MaskhubError, match=message):
            over_all(word, names, k)


@given(st.integers(1, 20), st.integers(0, 40), st.integers(0, 2**32), st.data())
def test_a_vote_counts(count: int, size: int, seed: int, data: st.DataObject) -> None:
    masks = np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)
    k = data.draw(st.integers(1, count))
    counts = np.unpackbits(masks, axis=1).sum(axis=0)
    assert np.array_equal(vote(k, iter(masks)), np.packbits(counts >= k))
    assert np.array_equal(vote(1, iter(masks)), np.bitwise_or.reduce(masks))
    assert np.array_equal(vote(count, iter(masks)), np.bitwise_and.reduce(masks))
