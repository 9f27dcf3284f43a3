"""The tables of the documents are made from the results that are kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.accuracy.plan import RESULTS, Job
from benchmarks.accuracy.sweep import sweep_markdown
from benchmarks.accuracy.table import brief, markdown

ROOT = Path(__file__).parents[2]


def test_results_have_the_budget_of_the_plan() -> None:
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        assert result["budget"] == asdict(Job(**result["job"]).budget), path.name


@pytest.mark.parametrize(
    ("page", "table"), [("README.md", brief), ("docs/training.md", markdown), ("docs/training.md", sweep_markdown)]
)
def test_a_page_shows_the_results(page: str, table: object) -> None:
    assert callable(table)
    assert table() in (ROOT / page).read_text()
