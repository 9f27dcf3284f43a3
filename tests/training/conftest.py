from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny, toy

Base = Callable[[str], Path]


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Tiny models by family, of larger weights than usual, so that masking can change what they say."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made: dict[str, Path] = {}

    def base_of(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("lively") / f"lively-{family}"
            made[family] = tiny.tiny_model(family, folder, initializer_range=0.1)
        return made[family]

    return base_of


@pytest.fixture(scope="session")
def bert(base_of: Base) -> Path:
    return base_of("bert")


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and eval.jsonl: single texts of two classes."""
    folder = tmp_path_factory.mktemp("task")
    toy.write_task(folder)
    return folder
