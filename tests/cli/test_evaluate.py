from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields
from tests.cli.warm import error, maskhub

EXAMPLES = "text,label\nfree prize,spam\nwho is it,ham\nwin now,spam\nwhere is the city,ham\nfree,spam\n"


@pytest.fixture
def mask(tiny_bert: Path, folder: Path) -> MaskSet:
    """``task.msk`` and ``test.csv`` in the present folder."""
    mask = tiny.tiny_maskset(tiny_bert, name=str(tiny_bert))
    save(mask, folder / "task.msk")
    (folder / "test.csv").write_text(EXAMPLES)
    return mask


def test_the_metrics(program: Run, tiny_bert: Path, mask: MaskSet) -> None:
    ran = program("evaluate", tiny_bert, "task.msk", "--file", "test.csv")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.out.splitlines()[0] == "task.msk on 5 examples of test.csv"
    shown = fields(ran.out)
    assert list(shown) == ["accuracy", "f1", "matthews correlation", "f1 ham", "f1 spam", "majority accuracy"]
    assert shown["majority accuracy"] == "0.6000"

    ran = maskhub("evaluate", tiny_bert, "task.msk", "--file", "test.csv", "--json")
    assert (ran.status, ran.stderr) == (0, "")
    data = json.loads(ran.out)
    metrics = data.pop("metrics")
    assert data == {"mask": mask.id, "file": "test.csv", "examples": 5}
    assert {name.replace("_", " "): f"{value:.4f}" for name, value in metrics.items()} == shown

    ran = maskhub("evaluate", tiny_bert, "task.msk", "--file", "test.csv", "-q")
    assert (ran.status, ran.out, ran.stderr) == (0, f"{metrics['accuracy']}\n", "")


def test_several_masks(tiny_bert: Path, mask: MaskSet) -> None:
    other = tiny.tiny_maskset(tiny_bert, seed=1, name=str(tiny_bert))
    save(other, "other.msk")
    command = ("evaluate", tiny_bert, "task.msk", "other.msk", "--file", "test.csv")
    each = [
        json.loads(maskhub("evaluate", tiny_bert, name, "--file", "test.csv", "--json").out)
        for name in ("task.msk", "other.msk")
    ]
    ran = maskhub(*command, "--json")
    assert (ran.status, ran.stderr) == (0, "")
    assert json.loads(ran.out) == each
    ran = maskhub(*command, "-q")
    assert ran.out.splitlines() == [str(one["metrics"]["accuracy"]) for one in each]
    ran = maskhub(*command)
    assert ran.out.splitlines()[0] == "2 masks on 5 examples of test.csv"
    assert [line.split()[0] for line in ran.out.splitlines()[-2:]] == ["task.msk", "other.msk"]
    ran = maskhub(*command, "--ensemble", "vote", "--json")
    assert (ran.status, ran.stderr) == (0, "")
    data = json.loads(ran.out)
    assert data.pop("metrics")["majority_accuracy"] == 0.6
    assert data == {"masks": [mask.id, other.id], "ensemble": "vote", "file": "test.csv", "examples": 5}
    ran = maskhub(*command, "--ensemble", "logits")
    assert ran.out.splitlines()[0] == "2 masks together by logits on 5 examples of test.csv"
    assert error(maskhub(*command, "--ensemble", "mean"), 2) == (
        "ensemble of text-classification masks: there is no 'mean'. It is one of: logits, probs, vote."
    )


def test_columns_given(tiny_bert: Path, mask: MaskSet) -> None:
    Path("odd.tsv").write_text("body\tkind\nwho\tham\n")
    ran = maskhub(
        "evaluate", tiny_bert, "task.msk", "--file", "odd.tsv", "--text-column", "body", "--label-column", "kind", "-q"
    )
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.out in ("0.0\n", "1.0\n")


def test_input_that_cannot_be_used(tiny_bert: Path, mask: MaskSet) -> None:
    Path("other.csv").write_text("text,label\nx,ham\ny,eggs\n")
    Path("odd.csv").write_text("body,label\nx,ham\n")
    tiny.tiny_model("bert", Path("other"), seed=1)
    nameless = tiny.tiny_maskset(tiny_bert)
    save(MaskSet(base=nameless.base, masks=nameless.masks), "nameless.msk")
    for arguments, message in {
        (tiny_bert, "task.msk", "no.csv"): "no.csv: no such file",
        (tiny_bert, "task.msk", "odd.csv"): "odd.csv: no text column found among body, label. Name it with --text-",
        (tiny_bert, "task.msk", "other.csv"): "other.csv: row 2 has the label 'eggs', which the task does not know. "
        "It knows: ham, spam.",
        (tiny_bert, "no.msk", "test.csv"): "no.msk: no such file",
        (tiny_bert, "test.csv", "test.csv"): "test.csv: ",
        (tiny_bert, "nameless.msk", "test.csv"): "the mask names no task, so it cannot be evaluated",
        ("/no/base", "task.msk", "test.csv"): "/no/base: no such folder",
        ("other", "task.msk", "test.csv"): "other: not the base this mask was made for: it differs in ",
    }.items():
        base, path, file = arguments
        assert error(maskhub("evaluate", base, path, "--file", file)).startswith(message)
