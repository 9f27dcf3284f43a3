"""A short run of the comparison of both readers, which ``make fuzz`` runs at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import compare


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))


def test_both_readers_judge_changed_files_alike(tmp_path: Path) -> None:
    found, counts = compare.compare(400, 0, tmp_path)
    assert found == []
    assert counts["accepted by both"] > 50
    assert len(counts) > 40  # as many reasons to refuse a file


def test_it_finds_a_reader_that_lacks_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare.reader, "SKIPPED", {"base.tensors"})
    found, _ = compare.compare(150, 0, tmp_path)
    assert found
