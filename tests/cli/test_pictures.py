"""Pictures and reports of ``maskhub diff``. (That of one mask is tested with ``maskhub info``.)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from maskhub.masks.compare import diff
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields

pytest.importorskip("matplotlib")


@pytest.fixture
def other(base: Checkpoint, folder: Path) -> MaskSet:
    """Saved as other.msk and, with yet another seed, third.msk."""
    maskset = tiny.tiny_maskset(base, seed=1, sparsity=0.3)
    save(maskset, "other.msk")
    save(tiny.tiny_maskset(base, seed=2), "third.msk")
    return maskset


def test_of_two(run: Run, mask_path: Path, maskset: MaskSet, other: MaskSet) -> None:
    asked = ("diff", mask_path, "other.msk", "--measure", "jaccard", "--plot", "d.svg", "--report", "d.html")
    ran = run(*asked)
    assert (ran.status, fields(ran.out)["picture"], fields(ran.out)["report"]) == (0, "d.svg", "d.html")
    cells = diff(maskset, other).cells.values()
    drawn, page = Path("d.svg").read_text(), Path("d.html").read_text()
    assert all(f"<!-- {overlap.jaccard:.4f} -->" in drawn for overlap in cells)
    assert all(f">{overlap.jaccard_dropped:.4f}<" in page for overlap in cells)
    run("diff", mask_path, "other.msk", "--plot", "e.svg")
    drawn = Path("e.svg").read_text()
    assert all(f"<!-- {overlap.jaccard_dropped:.4f} -->" in drawn for overlap in cells), "unless another is asked for"
    assert "<title>task: text-classification (ham, spam) and other: text-classification (ham, spam)</title>" in page
    assert json.loads(run(*asked, "--force", "--json").out) == json.loads(run(*asked[:5], "--json").out)


def test_of_many(run: Run, mask_path: Path, other: MaskSet) -> None:
    asked = ("diff", mask_path, "other.msk", "third.msk")
    ran = run(*asked, "--plot", "d.svg", "--report", "d.html")
    assert (ran.status, fields(ran.out)["picture"], fields(ran.out)["report"]) == (0, "d.svg", "d.html")
    values = json.loads(run(*asked, "--json").out)["values"]
    drawn, page = Path("d.svg").read_text(), Path("d.html").read_text()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert f"<!-- {values[i][j]:.4f} -->" in drawn
        assert page.count(f'data-value="{values[i][j]!r}"') >= 1


def test_what_cannot_be_written(run: Run) -> None:
    """It is refused before a mask is read."""
    Path("there.html").write_text("mine")
    Path("there.png").write_text("mine")
    for option, name, message in (
        ("--plot", "d.gif", "d.gif: cannot tell what kind of picture this is. Name it .png, .svg or .pdf."),
        ("--plot", "there.png", "there.png: the output file exists. Name another one, or replace it with --force."),
        ("--report", "d.svg", "d.svg: a report is a page. Name it .html."),
        ("--report", "there.html", "there.html: the output file exists. Name another one, or replace it with --force."),
        ("--report", "no/d.html", "no/d.html: there is no folder no. Make it first."),
    ):
        ran = run("diff", "no-a.msk", "no-b.msk", option, name)
        status = 2 if name in ("d.gif", "d.svg") else 1
        assert (ran.status, ran.out, ran.err) == (status, "", f"Error: {message}")
    assert {path.name: path.read_text() for path in Path().iterdir()} == {"there.html": "mine", "there.png": "mine"}
