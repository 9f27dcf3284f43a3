"""The tables of the documents are made from the results that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy.sweep import sweep_markdown
from benchmarks.accuracy.table import brief, markdown

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("page", "table"), [("README.md", brief), ("docs/training.md", markdown), ("docs/training.md", sweep_markdown)]
)
def test_a_page_shows_the_results(page: str, table: object) -> None:
    assert callable(table) and table() in (ROOT / page).read_text()
