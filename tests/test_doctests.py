"""The examples in the docstrings of the public names do what they say they do."""

from __future__ import annotations

import doctest
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import maskhub
from tests import tiny, toy

pytest.importorskip("torch")  # some of the public names need it


def examples() -> Iterator[doctest.DocTest]:
    """The public names' docstrings with examples, those of their classes' methods among them."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in maskhub.__all__:
        if not name.startswith("__"):
            for found in finder.find(getattr(maskhub, name), name, module=False, globs={"maskhub": maskhub}):
                if found.examples:
                    yield found


@pytest.fixture
def files(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What examples name: ``base``, masks on it (``a.msk``, ``b.msk``, ``task.msk``), ``train.csv``, ``test.csv``."""
    shutil.copytree(tiny_bert, tmp_path / "base")
    for seed, name in enumerate(("a", "b", "task")):
        maskhub.save(tiny.tiny_maskset(tmp_path / "base", seed=seed, name="base"), tmp_path / f"{name}.msk")
    for seed, name in enumerate(("train", "test")):
        lines = [f"{row['text']},{'spam' if row['label'] == 'spam' else 'ham'}\n" for row in toy.rows(40, seed=seed)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    for name in ("masks", "shared", "store"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / ".cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failures(example: doctest.DocTest) -> str:
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example, out=told.append)
    return "".join(told)


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_an_example_holds(example: doctest.DocTest, files: Path) -> None:
    assert not (told := failures(example)), told


def test_an_example_that_does_not_hold_is_found(files: Path) -> None:
    text = ">>> import maskhub\n>>> len(maskhub.open('task.msk').masks) > {}\nTrue\n"
    parse = doctest.DocTestParser().get_doctest
    assert failures(parse(text.format(0), {}, "right", None, 0)) == ""
    assert "Expected:\n    True\nGot:\n    False" in failures(parse(text.format(10**6), {}, "wrong", None, 0))
