from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from maskhub.errors import DataError, MissingError
from maskhub.tasks.data import read_dataset, read_file, split_names
from maskhub.tasks.examples import Columns, Examples, label_ids
from tests import toy

datasets = pytest.importorskip("datasets")

ROWS = [("who is it", "spam"), ("call now, win", "ham"), ("ok", "spam")]
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
GIVE = "Give each row one, or leave it out."

QUOTES = "Put the whole cell in quotes, and write each quote in it twice"
LATIN = "Save it as UTF-8; if it is Western European: iconv -f WINDOWS-1252 -t UTF-8 a."
TAGS = (
    "To learn a tag for each token, give --task token-classification; of several labels a row, keep the one to learn."
)
QUOTED = "Put texts that hold a ',' in quotes, and end no row with one."
WHOLE = "Write the whole of it, or leave the row out."
OBJECT = 'Write rows as {"text": ..., "label": ...}.'

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / name

    return write


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path


CSV = 'text,label\nwho is it,spam\n"call now, win",ham\nok,spam\n'
TSV = "text\tlabel\nwho is it\tspam\ncall now, win\tham\nok\tspam\n"
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV), ("a.CSV", CSV), ("a.b.tsv", TSV),
        ("a.jsonl", lines(OBJECTS)), ("a.ndjson", lines(OBJECTS)), ("a.json", json.dumps(OBJECTS)),
    ],
)  # fmt: skip
def test_text_files(write: Write, name: str, content: str, suffix: str) -> None:
    path = write(name + suffix, content)
    examples = read_file(path)
    assert examples == Examples(str(path), "text-classification", {"text": TEXTS}, LABELS, ("ham", "spam"))
    assert len(examples) == 3


def test_a_name_is_no_pattern(write: Write) -> None:
    write("a1.csv", "text,label\n")
    for name in ("a[1].csv", "a*.csv"):
        assert read_file(write(name, CSV)).inputs["text"] == TEXTS


def test_parquet(tmp_path: Path) -> None:
    examples = read_file(parquet(tmp_path / "a.parquet", {"text": TEXTS, "label": LABELS}))
    assert (examples.inputs["text"], examples.labels, examples.label_names) == (TEXTS, LABELS, ("ham", "spam"))


def test_a_changed_file_is_read_again(write: Write) -> None:
    assert read_file(write("a.csv", "text,label\na,x\n")).inputs["text"] == ["a"]
    assert read_file(write("a.csv", "text,label\nbb,x\nc,y\n")).inputs["text"] == ["bb", "c"]


@pytest.mark.parametrize(
    ("header", "texts", "pairs"),
    [
        ("sentence1,sentence2,label", ["a"], ["b"]),
        ("label,premise,hypothesis", ["x"], ["b"]),
        ("question,sentence,label", ["a"], ["b"]),
        ("sentence,question,label", ["b"], ["a"]),
        ("text,text_pair,target", ["a"], ["b"]),
        ("sentence,idx,label", ["a"], None),
        ("idx,sms,category", ["b"], None),
    ],
)
def test_columns_found_by_the_usual_names(write: Write, header: str, texts: list[str], pairs: list[str] | None) -> None:
    row = "x,a,b" if header.startswith("label") else "a,b,x"
    if header.startswith("label"):
        texts, pairs = ["a"], ["b"]
    examples = read_file(write("a.csv", f"{header}\n{row}\n"))
    assert (examples.inputs["text"], examples.inputs.get("pair")) == (texts, pairs)
    assert examples.labels == ["x"]


def test_columns_given(write: Write) -> None:
    path = write("a.csv", "text,body,title,label,kind\n1,2,3,4,5\n")

    def read(*names: str | None) -> tuple[list[str], list[str] | None, list[str]]:
        examples = read_file(path, Columns(*names))
        return examples.inputs["text"], examples.inputs.get("pair"), examples.labels

    assert read() == (["1"], None, ["4"])
    assert read("body") == (["2"], None, ["4"])
    assert read("body", "title", "kind") == (["2"], ["3"], ["5"])
    assert read(None, "title") == (["1"], ["3"], ["4"])


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (["b", "a", "b"], ["b", "a", "b"], ("a", "b")),
        ([10, 9, -1], ["10", "9", "-1"], ("-1", "9", "10")),
        ([1.0, 0.0, 2.0], ["1", "0", "2"], ("0", "1", "2")),
        ([True, False, True], ["True", "False", "True"], ("False", "True")),
        ([2**63, 10, 9], ["9223372036854775808", "10", "9"], ("9", "10", "9223372036854775808")),
        ([2.0**53 - 1, -0.0, "1.0"], ["9007199254740991", "0", "1.0"], ("0", "9007199254740991", "1.0")),
        (["x", "10", "9"], ["x", "10", "9"], ("9", "10", "x")),
        (["²", "--5", "3"], ["²", "--5", "3"], ("3", "--5", "²")),
    ],
)
def test_labels_and_their_order(write: Write, values: list[Any], labels: list[str], names: tuple[str, ...]) -> None:
    examples = read_file(write("a.jsonl", lines([{"text": "t", "label": value} for value in values])))
    assert (examples.labels, examples.label_names) == (labels, names)


def test_cells_that_pandas_takes_for_missing_are_texts(write: Write) -> None:
    examples = read_file(write("a.csv", "text,label\nNA,x\n,y\nnull,x\n"))
    assert examples.inputs["text"] == ["NA", "", "null"]


@pytest.mark.parametrize(
    "labels",
    [
        ["007", "010", "007"],
        ["1e3", "1000", "TRUE"],
        ["true", "false", "unsure"],
        ["3.1", "3.10", "3.2"],
        ["1", "1.0", "01"],
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "csv of a dataset"])
def test_labels_are_what_is_written(write: Write, labels: list[str], kind: str) -> None:
    """Whatever stands in other rows: each label alone is the same class."""
    separator = "\t" if kind == "tsv" else ","

    def read(some: list[str]) -> Examples:
        rows = [("text", "label"), *((label, label) for label in some)]
        path = write(f"train.{kind[:3]}", "".join(separator.join(row) + "\n" for row in rows))
        return read_dataset(str(path.parent), "train") if "dataset" in kind else read_file(path)

    read_all = read(labels)
    assert (read_all.task, read_all.labels, read_all.inputs["text"]) == ("text-classification", labels, labels)
    for label in labels:
        assert read([label]).labels == [label]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("value", "name"), [(1, "1"), (1.0, "1"), (True, "True"), ("1", "1"), ("1.0", "1.0"), ("x", "x")]
)
def test_values_have_one_class_in_every_file(write: Write, tmp_path: Path, value: Any, name: str, suffix: str) -> None:
    others: list[list[Any]] = [[value], [value, 2, None], [value, 2.0], [value, "y"], [value, True]]
    for beside in others:
        rows = [{"text": "t", "label": one} for one in beside if one is not None]
        if suffix == "jsonl":
            path = write("a.jsonl", lines(rows))
        elif len({type(row["label"]) for row in rows}) > 1:
            continue  # a column of Parquet has one type
        else:
            path = parquet(tmp_path / "a.parquet", {"text": ["t"] * len(rows), "label": [row["label"] for row in rows]})
        assert read_file(path).labels[0] == name


TABLE = 'text,label\nalpha beta,yes\n"gamma, delta",no\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.csv", f"text{s}label\nalpha beta{s}yes\ngamma, delta{s}no\n") for s in ";|\t"),
        ("a.csv", 'text, label\nalpha beta, yes\n"gamma, delta", no\n'),
        ("a.csv", '"text", "label"\n"alpha beta", "yes"\n"gamma, delta", "no"\n'),
        ("a.csv", '"text","label"\n"alpha beta","yes"\n"gamma, delta","no"\n'),
        ("a.csv", TABLE.replace("\n", "\r\n")), ("a.csv", TABLE.replace("\n", "\r")),
        ("a.csv", ",text,label,\n0,alpha beta,yes,\n1,\"gamma, delta\",no,\n"),
        *(("a.csv", TABLE.encode(code)) for code in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        ("a::b.csv", TABLE), ("file:::a.csv", TABLE), ("a b#c%20.csv", TABLE),
        ("a.json", '{"data": [{"text": "alpha beta", "label": "yes"}, {"text": "gamma, delta", "label": "no"}]}'),
        ("a.json", '{"columns": ["text", "label"], "data": [{"text": "alpha beta", "label": "yes"}, '
                   '{"text": "gamma, delta", "label": "no"}]}'),
        ("a.json", '{"n": 2, "r": [{"label": "yes", "text": "alpha beta"}, {"text": "gamma, delta", "label": "no"}]}'),
        ("a.json", '{"text": ["alpha beta", "gamma, delta"], "label": ["yes", "no"]}'),
        ("a.json", '{"text": "alpha beta", "label": "yes"}\n{"text": "gamma, delta", "label": "no"}\n'),
        ("a.jsonl", '{"text": "alpha beta", "label": "yes"}\n{"text": "gamma, delta", "label": "no"}'.encode("utf-16")),
        *((name, '{"text": "alpha beta", "label": "yes"}\r{"text": "gamma, delta", "label": "no"}\r')
          for name in ("a.json", "a.jsonl")),
        ("a.json", '{"text": {"0": "alpha beta", "1": "gamma, delta"}, "label": {"1": "no", "0": "yes"}}'),
        ("a.json", '{"text": {"b": "alpha beta", "a": "gamma, delta"}, "label": {"b": "yes", "a": "no"}}'),
        ("a.json", '{"0": {"text": "alpha beta", "label": "yes"}, "1": {"text": "gamma, delta", "label": "no"}}'),
        ("a.json", '{"b": {"text": "alpha beta", "label": "yes"}, "a": {"text": "gamma, delta", "label": "no"}}'),
        ("a.json", '[{"index": 5, "text": "alpha beta", "label": "yes"}, {"text": "gamma, delta", "label": "no"}]'),
        *(("a.csv", f"{told}{end}text;label{end}alpha beta;yes{end}gamma, delta;no{end}")
          for told in ("sep=;", '"sep=;"', "\ufeffsep=;") for end in ("\n", "\r\n", "\r")),
        ("a.csv", 'sep=,\ntext,label\nalpha beta,yes\n"gamma, delta",no\n'),
        ("a.csv", 'sep=^\ntext^label\nalpha beta^yes\ngamma, delta^no\n'),
        ("a.csv", TABLE.replace("\n", "\n  \n")), ("a.csv", "   \n" + TABLE.replace("\n", "\n\t\n")),
        ("a.csv", TABLE.replace("text,label", " Text,LABEL ")),
        ("a.jsonl", '{" Text": "alpha beta", "Label": "yes"}\n{" Text": "gamma, delta", "Label": "no"}'),
    ],
)  # fmt: skip
def test_tables_as_people_have_them(write: Write, name: str, content: str | bytes) -> None:
    examples = read_file(write(name, content))
    assert examples.inputs == {"text": ["alpha beta", "gamma, delta"]}
    assert examples.labels == ["yes", "no"]


def test_a_tsv_with_quotes_and_one_without(write: Write) -> None:
    quoted = read_file(write("a.tsv", 'text\tlabel\n"he said ""hi"""\tx\n"b"\t"y"\n'))
    assert (quoted.inputs["text"], quoted.labels) == (['he said "hi"', "b"], ["x", "y"])
    plain = read_file(write("a.tsv", 'text\tlabel\n"he said\tx\nhi" now\ty\n'))
    assert plain.inputs["text"] == ['"he said', 'hi" now']


def test_a_quote_that_swallows_rows_is_told_of(write: Write) -> None:
    path = write("a.csv", 'text,label\n"Great movie,pos\nbad,neg\nThe 5",neg\nok,pos\n')
    with pytest.warns(UserWarning, match="row 1 has a cell that looks like 3 rows: is a quote not closed"):
        assert len(read_file(path)) == 2


@pytest.mark.parametrize(
    ("content", "inputs"),
    [
        ('{"text": "a", "label": "x", "spans": [{"text": "q", "label": "z"}]}', {"text": ["a"]}),
        ('{"tokens": ["a", "b"], "ner_tags": ["O", "B"]}', {"tokens": [["a", "b"]]}),
        ('{"tokens": [["a"], ["b"]], "ner_tags": [["O"], ["B"]]}', {"tokens": [["a"], ["b"]]}),
    ],
)
def test_one_object_is_one_row_where_it_has_a_rows_keys(write: Write, content: str, inputs: Any) -> None:
    assert read_file(write("a.json", content)).inputs == inputs


def test_a_long_text_is_a_cell(write: Write) -> None:
    assert read_file(write("a.csv", f"text,label\n{'x' * 200_000},a\n")).inputs["text"] == ["x" * 200_000]


def test_texts_one_a_line(write: Write) -> None:
    examples = read_file(write("a.txt", 'one, two\r\n\n"three"\n'))
    assert (examples.task, examples.inputs) == ("text-generation", {"text": ["one, two", '"three"']})


def test_two_files_of_one_name_and_time_are_two(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As archives and images have them: nothing of the first is left for the second. A home need not be writable."""
    monkeypatch.setenv("HF_HOME", "/proc/none")
    monkeypatch.setenv("HF_DATASETS_CACHE", "/proc/none")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/proc/none")
    for text in ("a", "b"):
        for path in (
            write("test.csv", f"text,label\n{text},x\n"), write("test.jsonl", f'{{"text": "{text}", "label": "x"}}\n'),
            parquet(tmp_path / "test.parquet", {"text": [text], "label": ["x"]}),
        ):  # fmt: skip
            os.utime(path, (1, 1))
            assert read_file(path).inputs["text"] == [text]
            (tmp_path / "set").mkdir(exist_ok=True)
            path.rename(tmp_path / "set" / path.name)
            os.utime(tmp_path / "set" / path.name, (1, 1))
            assert read_dataset(str(tmp_path / "set"), "test").inputs["text"] == [text]
            (tmp_path / "set" / path.name).unlink()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["caf\u00e9", "cafe\u0301", "th\u00e9"], r"'caf\xe9' (row 1) and 'cafe\u0301' (row 2)"),
        (["spam", "ham", "spam "], "'spam' (row 1) and 'spam ' (row 3)"),
        (["new  york", "new york"], "'new  york' (row 1) and 'new york' (row 2)"),
        (["a\u00a0b", "a b"], r"'a\xa0b' (row 1) and 'a b' (row 2)"),
        (["1", "1.0", "2", "2.50"], "'1' (row 1) and '1.0' (row 2)"),
        (["7", "-7", "007", "7."], "'7' (row 1) and '007' (row 3) and '7.' (row 4)"),
        (["Spam", "ham", "spam", "SPAM"], "'Spam' (row 1) and 'spam' (row 3) and 'SPAM' (row 4)"),
    ],
)
def test_labels_that_look_the_same_are_told(write: Write, labels: list[str], told: str) -> None:
    path = write("a.csv", "text,label\n" + "".join(f"t,{label}\n" for label in labels))
    with pytest.warns(UserWarning, match="look the same") as caught:
        assert read_file(path).labels == labels
    assert [str(one.message) for one in caught] == [f"{path}: column 'label' has labels that look the same: {told}"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([f"{i}.5" for i in range(10)] * 9, 10),
        ([f"{i}.5" for i in range(9)] * 9, None),
        ([*(f"{i}.5" for i in range(9)), "x"] * 9, None),
        ([str(i) for i in range(41)] * 2, None),
        ([str(i) for i in range(42)] * 1, 42),
        ([str(i) for i in range(20)], None),
        ([str(i) for i in range(21)], 21),
    ],
)
def test_many_different_numbers_are_told_of(write: Write, labels: list[str], told: int | None) -> None:
    """Fewer where some have a fraction: those are hardly names."""
    path = write("a.csv", "text,label\n" + "".join(f"t,{label}\n" for label in labels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_file(path).labels == labels
    said = f"{path}: column 'label' holds {told} different numbers, each taken for a class. "
    said += "To learn numbers, give --task regression"
    assert [str(one.message) for one in caught] == ([said] if told else [])


@pytest.mark.parametrize(
    ("known", "labels", "ids", "taken"),
    [
        (["true", "false"], [True, False], [0, 1], "'True' (row 1) for 'true', 'False' (row 2) for 'false'"),
        (["TRUE", "FALSE", "unsure"], ["unsure", True], [2, 0], "'True' (row 2) for 'TRUE'"),
        (["1.0", "2.0"], [1, 2.0, "1"], [0, 1, 0], "'1' (row 1) for '1.0', '2' (row 2) for '2.0'"),
        ([1.0, 2], ["1.0", "2", "2.00"], [0, 1, 1], "'1.0' (row 1) for '1', '2.00' (row 3) for '2'"),
        (["007", "010", "A12"], [7, "A12", 10], [0, 2, 1], "'7' (row 1) for '007', '10' (row 3) for '010'"),
        (["Spam", "ham"], ["ham", "spam "], [1, 0], "'spam ' (row 2) for 'Spam'"),
        (["1", "1.0"], ["1.0", 1], [1, 0], None),
        (["True", False], [True, "False"], [0, 1], None),
    ],
)
def test_labels_that_another_file_writes_otherwise(
    write: Write, known: list[Any], labels: list[Any], ids: list[int], taken: str | None
) -> None:
    def rows(values: list[Any]) -> str:
        return lines([{"text": "t", "label": value} for value in values])

    names = read_file(write("train.jsonl", rows(known))).labels
    examples = read_file(write("eval.jsonl", rows(labels)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert label_ids(examples, names) == ids
    said = f"{examples.source}: some labels are not written as the task's, and taken for them: {taken}"
    assert [str(one.message) for one in caught] == ([said] if taken else [])


@pytest.mark.parametrize("label", ["SPAM", " spam", "3.10", "8", "-7", "1e3"])
def test_labels_that_are_not_known_for_sure(write: Write, label: str) -> None:
    names = ("Spam", "spam", "3.1", "007", "1000")
    examples = read_file(write("a.jsonl", lines([{"text": "t", "label": "3.1"}, {"text": "t", "label": label}])))
    with pytest.raises(DataError, match="the task does not know") as caught:
        label_ids(examples, names)
    assert caught.value.message == f"{examples.source}: row 2 has the label {label!r}, which the task does not know"
    cure = " Write it as one of those: Spam, spam." if "spam" in label.lower() else ""
    assert caught.value.hint == f"It knows: Spam, spam, 3.1, 007, 1000.{cure}"


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([True, False, True], ["True", "False", "True"]),
        ([3, 1, 2], ["3", "1", "2"]),
        ([1.0, 3.0, 2.0], ["1", "3", "2"]),
    ],
)
def test_a_table_has_the_same_classes_in_every_file(tmp_path: Path, values: list[Any], classes: list[str]) -> None:
    """As pandas writes it."""
    table = pytest.importorskip("pandas").DataFrame({"text": TEXTS, "label": values})
    table.to_json(tmp_path / "a.json")
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", sep="\t")
    read = [read_file(tmp_path / f"a.{kind}") for kind in ("json", "jsonl", "parquet", "csv", "tsv")]
    for examples in read[:3]:
        assert (examples.inputs["text"], examples.labels) == (TEXTS, classes)
    for first in read:
        names = first.label_names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if isinstance(values[0], float) else "error")
            assert {tuple(label_ids(examples, names)) for examples in read} == {tuple(label_ids(first, names))}


def test_the_first_examples(write: Write) -> None:
    examples = read_file(write("a.csv", "sentence1,sentence2,label\na,b,x\nc,d,y\n")).head(1)
    assert (examples.inputs, examples.labels) == ({"text": ["a"], "pair": ["b"]}, ["x"])
    assert examples.label_names == ("x", "y")
    assert len(examples.head(None)) == 1


def test_the_digest_is_of_what_is_read(write: Write, tmp_path: Path) -> None:
    first = read_file(write("a.csv", "text,label\na,x\nb,y\n")).digest()
    assert (
        read_file(write("b.jsonl", lines([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))).digest() == first
    )
    for other in ("text,label\na,x\nb,x\n", "text,label\nb,y\na,x\n", "text,label\na,x\n", "text,label\na,x\nc,y\n"):
        assert read_file(write("a.csv", other)).digest() != first
    images = toy.write_images(tmp_path / "images", 2)
    before = read_file(images).digest()
    toy.write_images(tmp_path / "images", 2, seed=1)
    assert read_file(images).digest() != before


def test_label_ids(write: Write) -> None:
    examples = read_file(write("a.csv", CSV))
    assert label_ids(examples, ("spam", "other", "ham")) == [0, 2, 0]
    with pytest.raises(DataError) as caught:
        label_ids(examples, ("spam", "other"))
    assert caught.value.message == f"{examples.source}: row 2 has the label 'ham', which the task does not know"
    assert caught.value.hint == "It knows: spam, other."


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("a.xlsx", "x", "cannot tell what kind of file this is", "Name it .csv, .tsv, .json, "),
        ("a", "x", "cannot tell what kind of file this is", "Name it .csv"),
        ("a.csv.zip", "x", "cannot tell what kind of file this is", "Name it .csv"),
        ("a.csv", "", "the file is empty", None),
        ("a.csv", "\n", "the first line names no columns", "Begin with a line such as text,label."),
        ("a.csv.gz", "", "the file is empty", None),
        ("a.csv", "text,label\n", "no examples in it", None),
        ("a.json", "[]", "no examples in it", None),
        ("a.jsonl", "\n", "no examples in it", None),
        ("a.json", '{"data": []}', "no examples in it", None),
        ("a.json", '{"text": [], "label": []}', "no examples in it", None),
        ("a.json", '{"tokens": [], "tags": []}', "no examples in it", None),
        ("a.json", '{"text": {}, "label": {}}', "no examples in it", None),
        ("a.txt", "\n", "no examples in it", None),
        ("a.csv", b"\0", "line 1 has a character of no text (NUL)", "Save it as UTF-8 text."),
        ("a.csv", "text,label\na, x\nb,  \n", "row 2 has no label in column 'label'", GIVE),
        ("a.json", '{"train": [{"text": "x"}], "test": []}', "holds several lists of rows: train, test", "Save"),
        ("a.csv", "text,x\nx,y\n", "no label column found among text, x", "Name it with --label-column."),
        ("a.csv", "a;label\nx;1\n", "no text column found among a, label", "Name it with --text-column."),
        ("a.csv", "text,label\nx,a\ny,\n", "row 2 has no label in column 'label'", GIVE),
        ("a.csv", "text,label,label\na,x,y\n", "two columns are named 'label'", "Rename or remove one of them."),
        ("a.csv", "text,label, label \na,x,y\n", "two columns are named 'label'", "Rename or remove one of them."),
        ("a.tsv", "text\ttext\na\tb\n", "two columns are named 'text'", "Rename or remove one of them."),
        ("a.jsonl", '{"text": "x", "text": "y"}\n', "line 1: not valid JSON: the key 'text' stands twice", None),
        ("a.json", '[{"text": "x", "text": "y"}]', "not valid JSON: the key 'text' stands twice", None),
        ("a.jsonl", '{"text": "x", "label": null}\n', "row 1 has no label in column 'label'", GIVE),
        ("a.jsonl", '{"text":"a","label":1.0}\n{"text":"b","label":NaN}\n', "row 2 has no label in column", GIVE),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"label": 1}\n', "row 2 has no text in column 'text'", GIVE),
        ("a.jsonl", '{"text": NaN, "label": 1}\n', "row 1 has no text in column 'text'", GIVE),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "row 1 has half a character in column 'text'", WHOLE),
        ("a.jsonl", '{"text": "x", "label": "\\ud83d"}\n', "row 1 has half a character in column 'label'", WHOLE),
        ("a.csv", 'tokens,tags\n"[""a""]","[""\\udc00""]"\n', "row 1 has half a character in column 'tags'", WHOLE),
        ("a.jsonl", '{"tokens": ["a", "\\ud83d"], "tags": ["O", "O"]}', "row 1 has half a character in column", WHOLE),
        ("a.jsonl", '{"text": ["x"], "label": 1}\n', "row 1 has no text in column 'text'", GIVE),
        ("a.jsonl", '{"text": "x", "label": [1]}\n', "column 'label' holds lists, not one label a row", TAGS),
        ("a.csv", 'text,label\n"x,1\n', "row 1 (line 2) has a quote that is never closed", QUOTES),
        ("a.csv", 'text,label\na,1\n\n"b,2\nc,1\n', "row 2 (line 4) has a quote that is never closed", QUOTES),
        ("a.csv", 'text,label\n"a,1\nb",c",2\n', "row 1 (line 2) has 3 cells", QUOTED),
        ("a.csv", "text,label\na,x,\nb,y,\n", "row 1 (line 2) has 3 cells, and the header names 2 columns", QUOTED),
        ("a.csv", "sep=;\ntext;label\n\na;x;y\n", "row 1 (line 4) has 3 cells, and the header names 2", "Put texts"),
        ("a.csv", "text,label\na,x\n,\n", "row 2 has no label in column 'label'", GIVE),
        ("a.csv", "text,label,Label\na,x,y\n", "the columns 'label' and 'Label' differ only by capitals", "Rename or"),
        ("a.jsonl", '{"text": "a", " text": "b", "label": 1}', "the columns 'text' and ' text' differ", "Rename or"),
        ("a.csv", 'text,label\n"a,1\n"b",2\n', "row 1 (line 2) has a quote inside a cell", QUOTES),
        ("a.csv", '"text,label\na,1\n', "the header has a quote that is never closed", QUOTES),
        (
            "a.csv", "text,label\nx,1\n\ny, or z,1\n",
            "row 2 (line 4) has 3 cells, and the header names 2 columns", QUOTED,
        ),
        ("a.csv", "text;label\nx;1\ny\n", "row 2 (line 3) has 1 cells, and the header names 2", "Put texts that hold"),
        ("a.csv", b"text,label\na,1\n\xff,1\n", "line 3 is not UTF-8 (byte 0xff)", LATIN),
        ("a.csv", b"\xef\xbb\xbftext,label\n\xe9,1\n", "line 2 is not UTF-8 (byte 0xe9)", LATIN),
        ("a.jsonl", b'{"text": "caf\xe9", "label": 1}\n', "line 1 is not UTF-8 (byte 0xe9)", LATIN),
        ("a.csv", b"text,label\na\0,1\n", "line 2 has a character of no text (NUL)", "Save it as UTF-8 text."),
        ("a.jsonl", '{"text": "x", "label": 1', "line 1: not valid JSON: Expecting ',' delimiter", None),
        ("a.json", '[{"text": "x",\n"label": 1', "line 2: not valid JSON: Expecting ',' delimiter", None),
        ("a.json", "[" * 100_000, "not valid JSON: ", None),
        ("a.jsonl", '"x"\n', "line 1 is a text, not an object", "Write rows as {"),
        ("a.json", '[{"text": "x"}, 3]', "row 2 is a number, not an object", "Write rows as {"),
        ("a.json", "3", "holds a number, not rows", "Write rows as {"),
        ("a.json", '{"a": [{"text": "x"}], "b": [{"text": "y"}]}', "holds several lists of rows: a, b", "Save each in"),
        ("a.json", '{"text": ["x"], "label": [1, 2]}', "its columns have different lengths: text 1, label 2", None),
        ("a.json", '{"rows": [{"sms text": "x"}]}', "no text column found among sms text", "Name it with"),
        ("a.json", '{"columns": ["text"], "index": [0], "data": [["a"]]}', "holds a table that is split", "Write"),
        ("a.json", '{"text": {"0": "a", "1": "b"}, "label": {"0": "x"}}', "its columns text, label have ", OBJECT),
        ("a.json", '[["a", "x"], ["b", "y"]]', "row 1 is a list, not an object", OBJECT),
        ("a.jsonl", '{"text": "x", "label": 1e400}', "column 'label' holds numbers (inf in row 1), not", "To"),
        ("a.jsonl", '{"text": "x", "label": 9007199254740993.0}', "column 'label' holds numbers (900719925474", "To"),
        ("a.parquet", "PAR1 and no more", "cannot be read: Parquet magic bytes not found", None),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(
    write: Write, capfd: pytest.CaptureFixture[str], name: str, content: str | bytes, message: str, hint: str | None
) -> None:
    path = write(name, content)
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert (caught.value.hint or "").startswith(hint or "")
    assert (hint is None) == (caught.value.hint is None)
    assert capfd.readouterr() == ("", "")


PLAIN = b"text,label\n" + b"".join(b"row %d,%d\n" % (i * i, i % 2) for i in range(20_001))
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress,
}  # fmt: skip


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    """Also those of several parts, one after the other; what is cut is never taken for the whole."""
    path, pack = tmp_path / f"a.csv{suffix}", PACKED[suffix]
    for half in (len(PLAIN), len(PLAIN) // 2, 3):
        path.write_bytes(pack(PLAIN[:half]) + (pack(PLAIN[half:]) if half < len(PLAIN) else b""))
        examples = read_file(path)
        assert (len(examples), examples.inputs["text"][-1], examples.labels[-1]) == (20_001, "row 400000000", "0")
    packed = pack(PLAIN)
    for size in (9, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:size])
        with pytest.raises(DataError, match=r"a\.csv.*: cannot be read: Compressed (file|data) ended before"):
            read_file(path)
    (tmp_path / "b.csv").write_bytes(packed)
    with pytest.raises(DataError, match=r"b.csv: the file is packed by \w+") as caught:
        read_file(tmp_path / "b.csv")
    assert caught.value.hint == "Name it so, such as .csv.gz or .jsonl.zst."


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv.zip", "a.zip", "a.feather", "a.arrow", "a.csv", "a.jsonl", "a.txt"])
def test_what_is_no_table_of_text(tmp_path: Path, name: str) -> None:
    """By what it holds, whatever its name."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": ["x"], "label": ["a"]})
    packed, stream, file = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", CSV)
    for new, to in ((pyarrow.ipc.new_stream, stream), (pyarrow.ipc.new_file, file)):
        with new(to, table.schema) as writer:
            writer.write_table(table)
    parquet(tmp_path / "b.parquet", {"text": ["x"], "label": ["a"]})
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for data, told in (
        (packed.getvalue(), "a ZIP archive or an Excel workbook. Unpack it, or save its sheet as CSV."),
        (stream.getvalue(), "an Arrow stream. Save it as Parquet."),
        (file.getvalue(), "an Arrow or Feather file. Save it as Parquet."),
        ((tmp_path / "b.parquet").read_bytes(), "a Parquet file. Name it .parquet."),
        (pointer, "a pointer of Git LFS, not the file itself. Get the file: git lfs pull."),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError) as caught:
            read_file(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: the file is {told}"


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [pyarrow.array([value]) for value in "axy"]
    parquet.write_table(pyarrow.Table.from_arrays(columns, ["text", "label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"two columns are named 'label'\. Rename or remove one of them"):
        read_file(tmp_path / "a.parquet")


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.csv"
    with pytest.raises(MissingError, match=f"^{path}: no such file"):
        read_file(path)


@pytest.mark.parametrize(
    ("columns", "kind", "name"),
    [(Columns(text="body"), "text", "body"), (Columns(pair="b"), "pair", "b"), (Columns(label="c"), "label", "c")],
)
def test_a_given_column_that_is_missing(write: Write, columns: Columns, kind: str, name: str) -> None:
    path = write("a.csv", CSV)
    with pytest.raises(DataError) as caught:
        read_file(path, columns)
    assert caught.value.message == f"{path}: no column {name!r} (asked for as the {kind} column)"
    assert caught.value.hint == "It has: text, label."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset in a folder, with two splits, its classes in an order of their own, and a configuration."""
    folder = tmp_path / "some" / "news"
    (folder / "data").mkdir(parents=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["world", "business", "arts"])}
    )
    for split, labels in {"train": [1, 0, 2], "validation": [2, 1, 1]}.items():
        rows = {"text": ["a", "b", "c"], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    parquet(folder / "data/short.parquet", {"text": ["d"], "label": ["x"]})
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  default: true\n  data_files:\n"
        "  - split: train\n    path: data/train-*\n  - split: validation\n    path: data/validation-*\n"
        "- config_name: short\n  data_files: data/short.parquet\n---\n"
    )
    return folder


def test_a_dataset_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = read_dataset(str(folder), "train")
    assert examples == Examples(
        f"{folder}[train]",
        "text-classification",
        {"text": ["a", "b", "c"]},
        ["business", "world", "arts"],
        ("world", "business", "arts"),
    )
    assert read_dataset(str(folder), "validation").labels == ["arts", "business", "business"]
    assert read_dataset(f"{folder}/all", "train").labels == examples.labels
    assert read_dataset(f"{folder}/short", "train").inputs["text"] == ["d"]
    assert split_names(str(folder)) == ["train", "validation"]
    assert split_names(f"{folder}/short") == ["train"]
    monkeypatch.chdir(folder.parent)
    assert read_dataset("news", "train").source == "news[train]"
    assert read_dataset("news/short", "train").inputs["text"] == ["d"]
    monkeypatch.chdir(folder.parent.parent)
    assert len(read_dataset("some/news", "train")) == 3


def test_a_dataset_folder_without_the_split_or_configuration(folder: Path) -> None:
    for name, split, reason in (
        (folder, "test", "Unknown split \"test\". Should be one of ['train', 'validation']."),
        (folder / "long", "train", "BuilderConfig 'long' not found."),
    ):
        with pytest.raises(DataError) as caught:
            read_dataset(str(name), split)
        assert str(caught.value).startswith(f"{name}: cannot be read: {reason}")
        assert caught.value.hint == "Check its name, its splits and the network."


def test_json_in_a_folder_is_read_as_other_files(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", lines([{"text": "2020-01-01", "label": "2020-01-02"}, {"text": "a", "label": 2**63}]))
    write("test.json", '{"text": {"0": "2020-01-01", "1": "b"}, "label": {"0": true, "1": 1.0}}')
    for split, texts, labels in (
        ("train", ["2020-01-01", "a"], ["2020-01-02", "9223372036854775808"]),
        ("test", ["2020-01-01", "b"], ["True", "1"]),
    ):
        examples = read_dataset(str(tmp_path), split)
        assert (examples.inputs["text"], examples.labels) == (texts, labels)
    write("train.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": "x", "label": "y"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl: line 2: not valid JSON: the key 'label' stands twice"):
        read_dataset(str(tmp_path), "train")
    names = "- name: label\n    dtype:\n      class_label:\n        names:\n          '0': bad\n          '1': good\n"
    (tmp_path / "README.md").write_text(
        f"---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  {names}---\n"
    )
    write("train.jsonl", lines([{"text": "a", "label": 1}, {"text": "b", "label": 0}]))
    write("test.json", lines([{"text": "a", "label": 0}]))
    examples = read_dataset(str(tmp_path), "train")
    assert (examples.labels, examples.label_names) == (["good", "bad"], ("bad", "good"))


def test_a_split_without_examples(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"text": ["x", "y"], "label": ["a", "b"]})
    whole.to_parquet(tmp_path / "train.parquet")
    whole.select([]).to_parquet(tmp_path / "validation.parquet")
    assert len(read_dataset(str(tmp_path), "train")) == 2
    with pytest.raises(DataError) as caught:
        read_dataset(str(tmp_path), "validation")
    assert caught.value.message == f"{tmp_path}[validation]: no examples in it"
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / "validation.parquet")
    assert caught.value.message == f"{tmp_path / 'validation.parquet'}: no examples in it"


def test_rows_without_a_class(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, -1]}, features=features).to_parquet(
        tmp_path / "test.parquet"
    )
    with pytest.raises(DataError, match=r"row 2 has no label \(-1\) in column 'label'") as caught:
        read_dataset(str(tmp_path), "test")
    assert caught.value.hint == f"{GIVE[:-1]}; if none has one, take another split."


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (2, "row 2 has class 2 in column 'C', which names 2 of them. They count from 0 to 1."),
        (2**40, f"row 2 has class {2**40} in column 'C', which names 2 of them. They count from 0 to 1."),
        (-1, f"row 2 has no label (-1) in column 'C'. {GIVE[:-1]}; if none has one, take another split."),
        (-100, f"row 2 has no label (-100) in column 'C'. {GIVE[:-1]}; if none has one, take another split."),
        (None, f"row 2 has no label in column 'C'. {GIVE[:-1]}; if none has one, take another split."),
    ],
)
@pytest.mark.parametrize("lists", [False, True])
def test_numbers_that_name_no_class(tmp_path: Path, number: int | None, message: str, lists: bool) -> None:
    """As files of other tools have them: datasets itself would not write them."""
    pyarrow = pytest.importorskip("pyarrow")
    texts, classes = datasets.Value("string"), datasets.ClassLabel(names=["a", "b"])
    one, column = (datasets.Sequence, "ner_tags") if lists else (lambda feature: feature, "label")
    features = datasets.Features({"tokens" if lists else "text": one(texts), column: one(classes)})
    rows = [[["x"], ["y"]], [[1], [number]]] if lists else [["x", "y"], [1, number]]
    table = pyarrow.table([pyarrow.array(rows[0]), pyarrow.array(rows[1])], schema=features.arrow_schema)
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / "a.parquet")
    assert str(caught.value) == f"{tmp_path / 'a.parquet'}: {message.replace('C', column)}"
    parquet.write_table(table.slice(0, 1), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").labels == [["b"] if lists else "b"]


def test_several_labels_a_row(tmp_path: Path) -> None:
    """As GoEmotions is on the Hub."""
    several = datasets.Sequence(datasets.ClassLabel(names=["joy", "fear"]))
    features = datasets.Features({"text": datasets.Value("string"), "labels": several})
    datasets.Dataset.from_dict({"text": ["x", "y"], "labels": [[0, 1], [1]]}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / "a.parquet")
    assert str(caught.value) == f"{tmp_path / 'a.parquet'}: column 'labels' holds lists, not one label a row. {TAGS}"


@pytest.mark.parametrize("name", ["some-dataset", "user/some-dataset", "user/some-dataset/config"])
def test_the_hub_without_a_network(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(name, "train")
    assert str(caught.value).startswith(f"{name}: cannot be read: Couldn't reach ")
    assert caught.value.hint == "Check its name, its splits and the network."
    assert split_names(name) == []


def test_reading_does_not_import_torch(write: Write) -> None:
    path = write("a.jsonl", lines(OBJECTS))
    code = (
        f"import sys; from maskhub.tasks.data import read_file; read_file({str(path)!r}); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
