from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
TAGS = "To learn a tag for each token, give --task token-classification."

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
        ([True, False, True], ["true", "false", "true"], ("false", "true")),
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
    ("value", "name"), [(1, "1"), (1.0, "1"), (True, "true"), ("1", "1"), ("1.0", "1.0"), ("x", "x")]
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
        ("a.json", '{"n": 2, "r": [{"label": "yes", "text": "alpha beta"}, {"text": "gamma, delta", "label": "no"}]}'),
        ("a.json", '{"text": ["alpha beta", "gamma, delta"], "label": ["yes", "no"]}'),
        ("a.json", '{"text": "alpha beta", "label": "yes"}\n{"text": "gamma, delta", "label": "no"}\n'),
        ("a.jsonl", '{"text": "alpha beta", "label": "yes"}\n{"text": "gamma, delta", "label": "no"}'.encode("utf-16")),
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
        (["Spam", "ham", "spam", "SPAM"], "'Spam' (row 1) and 'spam' (row 3) and 'SPAM' (row 4)"),
    ],
)
def test_labels_that_look_the_same_are_told(write: Write, labels: list[str], told: str) -> None:
    path = write("a.csv", "text,label\n" + "".join(f"t,{label}\n" for label in labels))
    with pytest.warns(UserWarning, match="look the same") as caught:
        assert read_file(path).labels == labels
    assert [str(one.message) for one in caught] == [f"{path}: column 'label' has labels that look the same: {told}"]


def test_many_different_numbers_are_told_of(write: Write) -> None:
    path = write("a.csv", "text,label\n" + "".join(f"t,{i}.5\n" for i in range(30)))
    with pytest.warns(UserWarning, match=r"holds 30 different numbers, .* give --task regression"):
        assert read_file(path).labels[3] == "3.5"


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
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "row 1 has half a character in column 'text'", GIVE),
        ("a.jsonl", '{"text": ["x"], "label": 1}\n', "row 1 has no text in column 'text'", GIVE),
        ("a.jsonl", '{"text": "x", "label": [1]}\n', "column 'label' holds lists, not one label a row", TAGS),
        ("a.csv", 'text,label\n"x,1\n', "row 1 (line 2) has a quote that is never closed", QUOTES),
        ("a.csv", 'text,label\na,1\n\n"b,2\nc,1\n', "row 2 (line 4) has a quote that is never closed", QUOTES),
        ("a.csv", 'text,label\n"a,1\nb",c",2\n', "row 1 (line 2) has 3 cells", "Put texts that hold a ',' in quotes."),
        ("a.csv", 'text,label\n"a,1\n"b",2\n', "row 1 (line 2) has a quote inside a cell", QUOTES),
        ("a.csv", '"text,label\na,1\n', "the header has a quote that is never closed", QUOTES),
        (
            "a.csv", "text,label\nx,1\n\ny, or z,1\n",
            "row 2 (line 4) has 3 cells, and the header names 2 columns", "Put texts that hold a ',' in quotes.",
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
        ("a.parquet", "PAR1 and no more", "cannot be read: Could not open Parquet", None),
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


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.csv"
    with pytest.raises(MissingError, match=f"^{path}: no such file"):
        read_file(path)


def test_a_truncated_gzip(tmp_path: Path) -> None:
    data = gzip.compress(b"text,label\n" + b"".join(b"row %d,%d\n" % (i * i, i % 2) for i in range(9999)))
    (tmp_path / "a.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read: Compressed file ended before"):
        read_file(tmp_path / "a.csv.gz")


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
    with pytest.raises(DataError, match="column 'label' has rows without a label") as caught:
        read_dataset(str(tmp_path), "test")
    assert caught.value.hint == GIVE


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
