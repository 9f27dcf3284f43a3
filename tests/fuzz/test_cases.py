"""What fuzzing (``make fuzz``) once found, and the seeds that it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import cases

KEPT = sorted(cases.CASES.iterdir())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_what_was_found_stays_fixed(path: Path, tmp_path: Path) -> None:
    if path.suffix == ".msk":
        cases.read(tmp_path / "x.msk", path.read_bytes())
    else:
        cases.decode(path.read_bytes())


def test_seeds_are_right(tmp_path: Path) -> None:
    for seed in cases.file_seeds():
        cases.read(tmp_path / "x.msk", seed)
    for seed in cases.codec_seeds():
        cases.decode(seed)
