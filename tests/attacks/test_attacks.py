from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskhub.container.reader import MaskFile
from tests.attacks.attacks import ACCEPTED, ATTACKS
from tests.attacks.forge import honest, parent_parts, parts

MEMORY = 2 << 30  # address space of the process that reads
SPARE = 200 << 20  # bytes of memory that a file may make it use, beyond 50 times the file's size
SECONDS = 30.0  # a busy machine, too
KINDS = sorted({name.partition(":")[0] for name in ATTACKS})


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parent") / "parent.msk"
    path.write_bytes(honest(parent_parts()))
    return path


def judge(parent: Path, paths: list[Path]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.attacks.judge", str(MEMORY), str(parent), *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"it crashed at file {ran.stdout.count(chr(10))}: {ran.stderr[-1000:]}"
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_files_that_attacks_start_from_are_right(parent: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    path.write_bytes(honest(parts()))
    file = MaskFile(path, [parent])
    file.verify()
    assert all(entry.codec["name"] == name for name, entry in file.manifest.masks.items())


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_end_in_an_error_in_little_memory_and_time(kind: str, parent: Path, tmp_path: Path) -> None:
    names = [name for name in ATTACKS if name.startswith(f"{kind}:")]
    paths = []
    for number, name in enumerate(names):
        paths.append(tmp_path / f"{number}.msk")
        paths[-1].write_bytes(ATTACKS[name][0]())
    verdicts = judge(parent, [parent, *paths])
    before = verdicts.pop(0)["peak"]
    for name, path, verdict in zip(names, paths, verdicts, strict=True):
        said, reason = f"{name}: {verdict['error'][:300]}", ATTACKS[name][1]
        if reason == ACCEPTED:
            assert not verdict["error"], said
        else:
            assert verdict["clean"], said
            assert str(path) in verdict["error"], said
            assert "\n" not in verdict["error"], said
            assert re.search(reason, verdict["error"]), said
            assert len(verdict["error"]) < 2000, said
        assert verdict["seconds"] < SECONDS, said
        assert verdict["peak"] - before < SPARE + 50 * path.stat().st_size, f"{said}: {verdict['peak'] >> 20} MB"
        before = max(before, verdict["peak"])
