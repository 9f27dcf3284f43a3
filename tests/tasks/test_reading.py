"""What each kind of task reads, how it is found from the columns, and what it refuses. Without torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub.errors import DataError
from maskhub.tasks import REGISTRY
from maskhub.tasks.data import read_dataset, read_file
from maskhub.tasks.examples import Columns, label_ids
from tests import toy

datasets = pytest.importorskip("datasets")

Row = dict[str, Any]
WORDS: Row = {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}
CHOICE: Row = {"prompt": "it", "choices": ["flies", "swims"], "label": 1}
SWAG: Row = {
    "sent1": "A man sits.", "sent2": "He", "ending0": "stands.", "ending1": "sleeps.", "ending2": "runs.", "label": 2,
}  # fmt: skip


def write(folder: Path, *rows: Row) -> Path:
    return toy.write_rows(folder / "a.jsonl", list(rows))


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"text": "x", "label": "a"}, "text-classification"),
        ({"text": "x", "label": 1.0}, "text-classification"),
        ({"text": "x", "label": 2.5}, "regression"),
        ({"sentence1": "x", "sentence2": "y", "score": 2.5}, "regression"),
        (WORDS, "token-classification"),
        ({"words": ["x"], "pos_tags": ["NOUN"]}, "token-classification"),
        (CHOICE, "multiple-choice"),
        (SWAG, "multiple-choice"),
        ({"question_propmt": "it", "candidate_answers": ["a", "b"], "correct_answer_idx": 0}, "multiple-choice"),
        ({"ctx": "it", "endings": ["a", "b"], "label": "1"}, "multiple-choice"),
        ({"text": "x"}, "text-generation"),
    ],
)
def test_found_by_the_columns(row: Row, task: str, tmp_path: Path) -> None:
    examples = read_file(write(tmp_path, row))
    assert (examples.task, len(examples)) == (task, 1)
    assert read_file(write(tmp_path, row), task=task) == examples


def test_the_task_that_is_asked_for(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": 1, "more": "y"}, {"text": "z", "label": 2, "more": "y"}]
    path = write(tmp_path, *rows)
    assert read_file(path, task="regression").labels == [1.0, 2.0]
    assert read_file(path, task="text-generation").inputs == {"text": ["x", "z"]}
    assert read_file(path).labels == ["1", "2"]


def test_tags(tmp_path: Path) -> None:
    examples = read_file(write(tmp_path, WORDS, {"tokens": ["Paris"], "tags": ["B-LOC"]}))
    assert examples.inputs == {"tokens": [["EU", "rejects"], ["Paris"]]}
    assert examples.labels == [["B-ORG", "O"], ["B-LOC"]]
    assert examples.label_names == ("B-LOC", "B-ORG", "O")
    assert label_ids(examples, ("O", "B-ORG", "B-LOC")) == [[1, 0], [2]]
    with pytest.raises(DataError, match=r"row 2 has the label 'B-LOC', which the task does not know\. It knows: "):
        label_ids(examples, ("O", "B-ORG"))


def test_tags_that_are_class_labels(tmp_path: Path) -> None:
    """As CoNLL-2003 is on the Hub, with several kinds of tags."""
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "pos_tags": datasets.Sequence(datasets.ClassLabel(names=["NN", "VB"])),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    rows = {"tokens": [["a", "b"]], "pos_tags": [[0, 1]], "ner_tags": [[1, 0]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    examples = read_dataset(str(tmp_path), "train")
    assert (examples.labels, examples.label_names) == ([["B-PER", "O"]], ("O", "B-PER"))
    examples = read_dataset(str(tmp_path), "train", Columns(label="pos_tags"))
    assert (examples.labels, examples.label_names) == ([["NN", "VB"]], ("NN", "VB"))


@pytest.mark.parametrize("columns", ["tokens,ner_tags", "tokens,labels", "words,tags"])
@pytest.mark.parametrize(
    "write_list",
    [
        str, json.dumps, lambda value: str(value).replace("'", '"'), lambda value: str(tuple(value)),
        lambda value: str(np.array(value)), lambda value: str(np.array(value)).replace(" ", "\n "),
    ],
)  # fmt: skip
def test_lists_that_are_written_as_texts(columns: str, write_list: Callable[[Any], str], tmp_path: Path) -> None:
    rows = [(["Ann", "don't", "go"], ["B-PER", "O", "O"]), (["Rome"], ["B-LOC"])]
    if '"' in write_list(["a"]) and write_list is not json.dumps:
        rows[0] = (["Ann", "went", "home"], ["B-PER", "O", "O"])
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerow([*columns.split(","), "other"])
        csv.writer(file).writerows([*map(write_list, row), "x"] for row in rows)
    examples = read_file(tmp_path / "a.csv")
    assert examples.task == "token-classification"
    assert examples.inputs == {"tokens": [row[0] for row in rows]}
    assert (examples.labels, examples.label_names) == ([row[1] for row in rows], ("B-LOC", "B-PER", "O"))
    with pytest.raises(DataError, match="holds lists, not one label a row"):
        read_file(
            tmp_path / "a.csv", Columns(columns.split(",")[0], label=columns.split(",")[1]), "text-classification"
        )


def test_numbers_of_tags_as_numpy_writes_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("""tokens,tags\n"['a' 'b'\n 'c']",[3 0 1]\n"['d']",[1.]\n""")
    examples = read_file(tmp_path / "a.csv")
    assert (examples.inputs["tokens"], examples.labels) == ([["a", "b", "c"], ["d"]], [["3", "0", "1"], ["1"]])


@pytest.mark.parametrize(
    "written",
    [
        "['a' 'b' ... 'y' 'z']", "['a''b', 'c']", "['a' 'b', 'c']", "[np.str_('a'), np.str_('b')]",
        "array(['a', 'b'], dtype=object)", "['a', b]", "['a', 'b'", "['a\\']",
    ],
)  # fmt: skip
def test_lists_that_cannot_be_read_are_refused(written: str, tmp_path: Path) -> None:
    """None is a class, and none loses or joins what it holds."""
    good = """['a', 'b']","['O', 'O']"""
    for table, what in (
        (f'tokens,tags\n"{good}"\n"{written}","[\'O\', \'O\']"\n', "row 2 has no list of texts in column 'tokens'"),
        (f'tokens,tags\n"{good}"\n"[\'a\', \'b\']","{written}"\n', "row 2 has no list of labels in column 'tags'"),
    ):
        (tmp_path / "a.csv").write_text(table)
        with pytest.raises(DataError) as caught:
            read_file(tmp_path / "a.csv")
        assert str(caught.value) == f"{tmp_path / 'a.csv'}: {what}. {LISTS}"
    if written.endswith(("]", ")")):
        (tmp_path / "a.csv").write_text(f'text,label\nx,"{written}"\n')
        with pytest.raises(DataError, match="column 'label' holds lists, not one label a row"):
            read_file(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["(1)", "('a')", "[deleted]", "(it's)", "[1-2]", "[a] 'b'"])
def test_texts_in_brackets_are_no_lists(text: str, tmp_path: Path) -> None:
    examples = read_file(write(tmp_path, {"text": text, "label": text}))
    assert (examples.inputs["text"], examples.labels) == ([text], [text])


def test_numbers_that_are_written_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,3.1\nb,-3.10\nc,1e3\nd, .5\n")
    assert read_file(path).task == "text-classification"
    assert read_file(path, task="regression").labels == [3.1, -3.1, 1000.0, 0.5]
    path.write_text("sentence1,sentence2,score\na,b,3\nc,d,4\n")
    assert read_file(path).labels == [3.0, 4.0]
    for column, task in (("label", "regression"), ("score", "regression"), ("score", None), ("Rating", None)):
        for wrong in ("3,5", "1_000", "nan", "inf", "1e999", "0x10", "three", "", "50%", "n/a", " "):
            path.write_text(f'text,{column}\na,1.5\nb,"{wrong}"\n')
            with pytest.raises(DataError) as caught:
                read_file(path, task=task)
            what = f"{path}: row 2 has {wrong!r} in column {column!r}, which is no number to learn"
            assert str(caught.value) == f"{what}. {NUMBER} --label-column {column!r}."


@pytest.mark.parametrize("column", ["score", "Rating", "similarity"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("numbers", [[1, 3], [1.0, 3.0], [0.5, 2], [-1, 2**60]])
def test_scores_are_numbers_in_every_file(column: str, kind: str, numbers: list[float], tmp_path: Path) -> None:
    table = pytest.importorskip("pandas").DataFrame({"text": ["x", "y"], column: numbers})
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        table.to_csv(path)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    examples = read_file(path)
    assert (examples.task, examples.labels) == ("regression", numbers)
    named = table.rename(columns={column: "label"})
    named.to_json(path.with_suffix(".jsonl"), orient="records", lines=True)
    whole = all(number % 1 == 0 for number in numbers)
    assert read_file(path.with_suffix(".jsonl")).task == ("text-classification" if whole else "regression")


def test_a_rating_in_words_is_a_class(tmp_path: Path) -> None:
    rows = [{"text": "x", "rating": "good"}, {"text": "y", "rating": "bad"}]
    examples = read_file(write(tmp_path, *rows), Columns(label="rating"))
    assert (examples.task, examples.labels) == ("text-classification", ["good", "bad"])
    with pytest.raises(DataError, match=r"no label column found among text, rating\. Name it with --label-column\."):
        read_file(write(tmp_path, *rows))
    features = {"text": datasets.Value("string"), "rating": datasets.ClassLabel(names=["1", "2"])}
    table = datasets.Dataset.from_dict({"text": ["x", "y"], "rating": [1, 0]}, features=datasets.Features(features))
    table.to_parquet(tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet", Columns(label="rating")).labels == ["2", "1"]


def test_decimals(tmp_path: Path) -> None:
    """As databases have them."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for numbers, task, labels in (
        (["1.00", "2.00"], "text-classification", ["1", "2"]), (["0.50", "2.00"], "regression", [0.5, 2.0]),
    ):  # fmt: skip
        table = pyarrow.table({"text": ["x", "y"], "label": [Decimal(number) for number in numbers]})
        parquet.write_table(table, tmp_path / "a.parquet")
        examples = read_file(tmp_path / "a.parquet")
        assert (examples.task, examples.labels) == (task, labels)


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", "01"])
def test_an_index_however_it_is_written(value: Any, tmp_path: Path) -> None:
    assert read_file(write(tmp_path, CHOICE | {"label": value})).labels == [1]


@pytest.mark.parametrize("value", [0.5, True, "1.5", "b", None, 2.0, -1.0])
def test_what_is_no_index(value: Any, tmp_path: Path) -> None:
    path = write(tmp_path, CHOICE, CHOICE | {"label": value})
    with pytest.raises(DataError, match=r"row 2 has .* in column 'label', which is no index of its 2 choices"):
        read_file(path)


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"Premise": "x", "Hypothesis": "y", "Label": "a"}, "text-classification"),
        ({"Tokens": ["x"], "NER_tags": ["O"]}, "token-classification"),
        ({"Prompt": "it", "Choices": ["a", "b"], "Label": 1}, "multiple-choice"),
        ({"Text": "x", "Score": 2}, "regression"),
        ({"Text ": "x"}, "text-generation"),
    ],
)
def test_usual_names_in_other_capitals(row: Row, task: str, tmp_path: Path) -> None:
    examples = read_file(write(tmp_path, row))
    assert (examples.task, examples.columns) == (task, tuple(row))
    usual = {name.strip().lower(): value for name, value in row.items()}
    assert read_file(write(tmp_path, usual)) == examples


def test_choices(tmp_path: Path) -> None:
    examples = read_file(write(tmp_path, CHOICE, CHOICE | {"label": 0}))
    assert examples.inputs == {"prompt": ["it", "it"], "choices": [["flies", "swims"]] * 2}
    assert (examples.labels, examples.label_names) == ([1, 0], ())


def test_swags_own_columns(tmp_path: Path) -> None:
    """Each ending goes on the second sentence; numbers of endings count as numbers."""
    examples = read_file(write(tmp_path, SWAG | {f"ending{i}": str(i) for i in range(11)}))
    assert examples.inputs["prompt"] == ["A man sits."]
    assert examples.inputs["choices"] == [[f"He {i}" for i in range(11)]]
    assert examples.labels == [2]


def test_numbers(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": 2.5}, {"sentence1": "c", "sentence2": "d", "label": 3.0}]
    examples = read_file(write(tmp_path, *rows))
    assert examples.inputs == {"text": ["a", "c"], "pair": ["b", "d"]}
    assert (examples.labels, examples.label_names) == ([2.5, 3.0], ())


def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = toy.write_images(tmp_path / "some [1]", 5)
    examples = read_file(folder)
    assert examples.task == "image-classification"
    assert examples.label_names == ("blue", "red")
    assert sorted(examples.labels) == ["blue", "blue", "red", "red", "red"]
    assert [Path(i["path"]).parent.name for i in examples.inputs["image"]] == examples.labels
    assert len(examples.head(2)) == 2
    toy.write_images(tmp_path / "both" / "train", 4)
    toy.write_images(tmp_path / "both" / "test", 2)
    assert len(read_dataset(str(tmp_path / "both"), "test")) == 2


def test_classes_called_like_splits(tmp_path: Path) -> None:
    for name in ("train", "test"):
        toy.write_images(tmp_path / "images", 1)
        (tmp_path / "images/red").rename(tmp_path / "images" / name)
    assert read_file(tmp_path / "images").label_names == ("test", "train")


GIVE = "Give each row one, or leave it out."
NUMBER = "Write numbers such as 0.5, leave rows without one out, or learn classes with --task text-classification"
LISTS = """Write lists as JSON has them: ["a", "b"]."""
BAD: list[tuple[list[Row], str | None, str, str | None]] = [
    (
        [WORDS, WORDS | {"tags": ["O"]}], None,
        "row 2 has 2 tokens in column 'tokens' and 1 tags in column 'tags'", "Give each token one tag.",
    ),
    (
        [WORDS | {"tags": ["O"] * 3}], None,
        "row 1 has 2 tokens in column 'tokens' and 3 tags in column 'tags'", "Give each token one tag.",
    ),
    ([WORDS, {"tokens": [], "tags": []}], None, "row 2 has no list of texts in column 'tokens'", GIVE),
    ([WORDS | {"tags": ["O", None]}], None, "row 1 has no label in column 'tags'", GIVE),
    ([WORDS | {"tags": "O O"}], None, "column 'tags' holds no lists: a tag is needed for each token", LISTS),
    ([{"tokens": ["x"], "marks": ["O"]}], None, "no label column found among tokens, marks", "Name it with --label-"),
    (
        [{"text": "x", "label": "a"}], "token-classification",
        "column 'text' holds no lists: a tag is needed for each token", LISTS,
    ),
    ([CHOICE, CHOICE | {"choices": ["a"] * 3}], None, "row 2 has 3 choices, and row 1 has 2", "Give all rows the same"),
    ([CHOICE | {"choices": ["a"], "label": 0}], None, "row 1 has one choice only; two or more are needed", None),
    (
        [CHOICE, CHOICE | {"label": 2}], None,
        "row 2 has 2 in column 'label', which is no index of its 2 choices", "It counts from 0 to 1.",
    ),
    ([CHOICE | {"label": -1}], None, "row 1 has -1 in column 'label', which is no index of its 2 choices", "It counts"),
    ([CHOICE | {"label": "b"}], None, "row 1 has 'b' in column 'label', which is no index of its 2 choices", "It"),
    ([SWAG | {"label": None}], None, "row 1 has None in column 'label', which is no index of its 3 choices", "It"),
    ([{"choices": ["a", "b"], "label": 0}], None, "no text column found among choices, label", "Name it with --text-"),
    ([{"prompt": "a", "label": 0}], "multiple-choice", "no pair column found among prompt, label", "Name it with"),
    (
        [{"text": "x", "label": "a"}], "regression",
        "row 1 has 'a' in column 'label', which is no number to learn", NUMBER,
    ),
    ([{"text": "x", "label": 0.5}, {"text": "y", "label": None}], None, "row 2 has None in column 'label'", NUMBER),
    ([{"text": "x", "label": True}], "regression", "row 1 has True in column 'label', which is no number", NUMBER),
    (
        [{"text": "x", "label": 0.5}], "text-classification",
        "column 'label' holds numbers (0.5 in row 1), not classes",
        "To learn numbers, give --task regression; write classes as texts.",
    ),
    ([{"text": "x", "label": ["a"]}], None, "column 'label' holds lists, not one label a row", "To learn a tag"),
    ([{"image": "a.png", "label": "a"}], "image-classification", "column 'image' holds no images", "Name a folder of"),
    ([{"text": None}], "text-generation", "row 1 has no text in column 'text'", GIVE),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "task", "message", "hint"), BAD)
def test_rows_that_cannot_be_used(
    rows: list[Row], task: str | None, message: str, hint: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(DataError) as caught:
        read_file(path, task=task)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert (caught.value.hint or "").startswith(hint or "")
    assert (hint is None) == (caught.value.hint is None)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none(number: float, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0.5, number]}).to_parquet(path)
    with pytest.raises(DataError, match=f"row 2 has {number} in column 'label', which is no number to learn"):
        read_file(path)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    folder = toy.write_images(tmp_path / "images", 4)
    whole = (folder / "red/002.png").read_bytes()
    for damaged in (b"", b"no picture", whole[: len(whole) // 2]):
        (folder / "red/002.png").write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            read_file(folder)
        assert str(caught.value).startswith(f"{folder}: row 4: image {folder}/red/002.png: cannot be read: ")
        assert "\n" not in str(caught.value)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/a.png").write_bytes(whole)
    with pytest.raises(DataError, match=r"flat: no label column found among image"):
        read_file(tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: "):
        read_file(tmp_path / "empty")


def test_every_task_says_what_it_reads_and_measures() -> None:
    assert list(REGISTRY) == [kind.name for kind in REGISTRY.values()]
    for kind in REGISTRY.values():
        assert kind.columns
        assert kind.metrics(("a", "b"))
        assert kind.ensembles[0] == "logits"


def test_reading_imports_no_torch(tmp_path: Path) -> None:
    toy.write_images(tmp_path / "images", 2)
    paths = [str(write(tmp_path, WORDS)), str(tmp_path / "images")]
    code = (
        "import sys; from maskhub.tasks.data import read_file\n"
        f"print([read_file(path).task for path in {paths}], 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("['token-classification', 'image-classification'] False\n", "")
