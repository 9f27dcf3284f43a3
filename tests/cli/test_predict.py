from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from maskhub.runtime.predict import predict
from tests import tiny, toy
from tests.cli.conftest import Run
from tests.cli.warm import error, maskhub

TEXTS = ["who is the man", "win a free prize", "the good film " * 9]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> tiny.Packed:
    return packed(tmp_path_factory.mktemp("classes"), "BertForSequenceClassification", ("film", "spam", "trivia"))


def packed(folder: Path, architecture: str, names: tuple[str, ...]) -> tiny.Packed:
    """A base, and a mask beside it in ``task.msk``."""
    there = tiny.packed(folder, "bert", architecture, names)
    there.mask.save(folder / "task.msk")
    return there


def command(there: tiny.Packed, *more: object) -> list[object]:
    return ["predict", there.base, there.base.with_name("task.msk"), *more]


def rows(out: str) -> list[list[str]]:
    """The cells of a table, under their names."""
    return [[cell for cell in line.split("  ") if cell] for line in out.splitlines() if line]


def test_a_table_of_labels(program: Run, classes: tiny.Packed) -> None:
    """A cold start, so that nothing that an import says goes unseen."""
    answers = predict(classes.base, classes.mask, TEXTS)
    ran = program(*command(classes, *TEXTS))
    assert (ran.status, ran.stderr) == (0, "")
    table = rows(ran.out)
    assert [cell.strip() for cell in table[0]] == ["label", "score", "input"]
    assert [[cell.strip() for cell in row] for row in table[1:]] == [
        [answer["label"], f"{answer['score']:.4f}", text]
        for answer, text in zip(answers, [*TEXTS[:2], f"{TEXTS[2][:59]}…"], strict=True)
    ]
    best = maskhub(*command(classes, "--top-k", 3, TEXTS[0]))
    assert {row[0].strip() for row in rows(best.out)[1:]} == {"film", "spam", "trivia"}


def test_json_lines_and_quiet(classes: tiny.Packed, folder: Path) -> None:
    answers = predict(classes.base, classes.mask, TEXTS)
    toy.write_rows(Path("in.jsonl"), [{"body": text} for text in TEXTS])
    of_file = command(classes, "--file", "in.jsonl", "--text-column", "body")
    for asked in (of_file, [*command(classes, *TEXTS), "--json"]):
        ran = maskhub(*asked)
        assert (ran.status, ran.stderr) == (0, "")
        assert [json.loads(line) for line in ran.out.splitlines()] == answers
    assert rows(maskhub(*of_file, "--format", "human").out)[0][0] == "label"
    for asked in (of_file, command(classes, *TEXTS)):
        assert maskhub(*asked, "-q").out.split() == [answer["label"] for answer in answers]


def test_entities_say_of_which_text_they_are(tmp_path: Path) -> None:
    there = packed(tmp_path / "tags", "BertForTokenClassification", ("O", "B-film", "I-film", "B-towns", "I-towns"))
    answers = predict(there.base, there.mask, TEXTS[:2])
    ran = maskhub(*command(there, *TEXTS[:2]))
    assert (ran.status, ran.stderr) == (0, "")
    expected = [
        [one["word"], one["label"], f"{one['score']:.4f}", answer["text"]]
        for answer in answers
        for one in answer["entities"]
    ]
    assert [[cell.strip() for cell in row] for row in rows(ran.out)] == [["word", "label", "score", "input"], *expected]
    assert {row[-1] for row in expected} == set(TEXTS[:2])
    ran = maskhub(*command(there, *TEXTS[:2]), "-q")
    assert ran.out.splitlines()[0] == " ".join(f"{e['word']}/{e['label']}" for e in answers[0]["entities"])
    assert rows(maskhub(*command(there, "")).out)[1] == ["(none)"]


def test_what_cannot_be_asked(classes: tiny.Packed, folder: Path) -> None:
    toy.write_rows(Path("in.jsonl"), [{"body": "x"}])
    for asked, status, message in (
        ([], 2, "there is nothing to predict. Give texts, or a file of examples."),
        (["x", "--file", "in.jsonl"], 2, "inputs are given, and a file of them, too. Give the ones or the other."),
        (["x", "--top-k", "0"], 2, "top_k 0: it is 1 or more"),
        (["--file", "none.csv"], 1, "none.csv: no such file. Check the name and the folder."),
        (["--file", "in.jsonl"], 1, "in.jsonl: no text column found among body. Name it with --text-column."),
    ):
        assert error(maskhub(*command(classes, *asked)), status) == message
