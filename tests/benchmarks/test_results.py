"""The tables of the documents are made from the results that are kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.accuracy.plan import RESULTS, Job
from benchmarks.accuracy.sweep import sweep_markdown

ROOT = Path(__file__).parents[2]


def test_results_have_the_budget_of_the_plan_and_lie_where_it_looks() -> None:
    for path in RESULTS.glob("*/*.json"):
        result = json.loads(path.read_text())
        job = Job(**result["job"])
        assert result["budget"] == asdict(job.budget), path.name
        assert job.path == path


@pytest.mark.parametrize(("page", "table"), [("docs/training.md", sweep_markdown)])
def test_a_page_shows_the_results(page: str, table: object) -> None:
    assert callable(table)
    assert table() in (ROOT / page).read_text()
