"""Parents: loops, long chains, and ones that do not fit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub.container.codecs import pco
from maskhub.container.reader import MAX_CHAIN, MaskFile
from maskhub.errors import CodecError, MaskhubError, ParentError
from tests.attacks.forge import Change, claim, honest, parent_parts, parts


def child(folder: Path, name: str, parent: str, change: Change | None = None) -> tuple[Path, str]:
    """A file whose one mask is coded against ``parent``; its path and id."""
    content = parts()
    content.masks, content.dense = {"delta": content.masks["delta"]}, {}
    masks = {"delta": content.manifest["masks"]["delta"]}
    content.manifest |= {"masks": masks, "dense": {}, "parent": parent, "lineage": {"name": name}}
    if change:
        change(content)
    path = folder / f"{name}.msk"
    path.write_bytes(honest(content))
    return path, content.plain["id"]


def digest(number: int) -> Change:
    return claim("delta", pco.compress(np.array([number % 100]), 16), digest=f"{number:064x}")


def test_a_file_that_is_its_own_parent(tmp_path: Path) -> None:
    _, own = child(tmp_path, "a", "0" * 64)
    path, _ = child(tmp_path, "a", own)
    for parents in ([], [path], [path, path]):
        with pytest.raises(ParentError, match="not at hand"):
            MaskFile(path, parents).verify()


def test_two_files_that_are_each_others_parent(tmp_path: Path) -> None:
    _, first = child(tmp_path, "a", "0" * 64, digest(1))
    two, second = child(tmp_path, "b", first, digest(2))
    one, _ = child(tmp_path, "a", second, digest(1))
    with pytest.raises(MaskhubError):
        MaskFile(one, [one, two]).verify()
    MaskFile(one, [one, two]).chain()


def test_a_loop_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path))
    _, own = child(tmp_path, "a", "0" * 64)
    path, _ = child(tmp_path, own, own)
    with pytest.raises(ParentError, match=f"more than {MAX_CHAIN} masks are coded against one another"):
        MaskFile(path).verify()
    assert len(MaskFile(path).chain()) <= MAX_CHAIN + 1


def test_a_chain_of_2000(tmp_path: Path) -> None:
    paths: list[Path] = []
    above = "0" * 64
    for number in range(2000):
        path, above = child(tmp_path, f"{number}", above, digest(number))
        paths.insert(0, path)
    start = time.monotonic()
    with pytest.raises(ParentError, match=f"more than {MAX_CHAIN} masks are coded against one another"):
        MaskFile(paths[0], paths[1:]).verify()
    assert time.monotonic() - start < 10


def test_a_parent_that_does_not_fit(tmp_path: Path) -> None:
    content = parent_parts()
    lies: dict[str, tuple[dict[str, Any], str]] = {
        "shape": ({"shape": [100, 1]}, r"shape \[100, 1\], not \[10, 10\]"),
        "larger": ({"shape": [1000]}, r"shape \[1000\], not \[10, 10\]"),
        "huge": ({"shape": [1 << 40], "kept": 1 << 39}, r"shape \[1099511627776\], not"),
    }
    for name, (entry, reason) in lies.items():
        content.manifest["masks"]["delta"] |= entry
        parent = tmp_path / f"{name}-parent.msk"
        parent.write_bytes(honest(content))
        path, _ = child(tmp_path, name, content.plain["id"])
        with pytest.raises(CodecError, match=reason):
            MaskFile(path, [parent]).verify()
    content.manifest["masks"], content.masks = {}, {}
    parent.write_bytes(honest(content))
    path, _ = child(tmp_path, "none", content.plain["id"])
    with pytest.raises(CodecError, match="the parent has no mask for this tensor"):
        MaskFile(path, [parent]).verify()


def test_differences_that_do_not_fit(tmp_path: Path) -> None:
    content = parent_parts()
    parent = tmp_path / "parent.msk"
    parent.write_bytes(honest(content))
    huge = 1 << 48
    for name, count, values, reason in (
        ("more", 101, [0] * 101, "101 differences in a tensor of 100"),
        ("terabytes", huge, [0], f"{huge} differences in a tensor of 100"),
        ("fewer numbers", 3, [0, 0], "does not hold 3"),
        ("more numbers", 1, [0, 0], "does not hold 1"),
        ("past the end", 1, [100], "past the end"),
        ("numbers for none", 0, [0], "for no values"),
    ):
        codec = {"name": "delta", "count": count, "width": 16}
        lie = claim("delta", pco.compress(np.array(values), 16), codec=codec)
        path, _ = child(tmp_path, name, content.plain["id"], lie)
        with pytest.raises(CodecError, match=reason):
            MaskFile(path, [parent]).verify()
