"""The local cache gives bits and nothing else, and only such as a file's own digests confirm."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.container import cache
from maskhub.container.manifest import MANIFEST
from maskhub.container.reader import MaskFile, find_cached
from maskhub.errors import ParentError
from maskhub.masks.mask import MaskSet


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def twins(maskset: MaskSet, tmp_path: Path) -> tuple[Path, Path]:
    """Two files of one id: they differ in the base's name, metrics and lineage."""
    maskhub.save(maskset, tmp_path / "a.msk")
    other = dataclasses.replace(maskset.with_base_name("other"), metrics={"accuracy": 0.1}, lineage={"by": "b"})
    maskhub.save(other, tmp_path / "b.msk")
    assert maskhub.open(tmp_path / "a.msk").id == maskhub.open(tmp_path / "b.msk").id
    return tmp_path / "a.msk", tmp_path / "b.msk"


def without_payloads(path: Path) -> None:
    file = MaskFile(path)._file
    with path.open("r+b") as changed:
        for name in file.tensors.keys() - {MANIFEST}:
            changed.seek(file.tensors[name].start)
            changed.write(bytes(file.tensors[name].nbytes))


def same(one: MaskSet, other: MaskSet) -> bool:
    fields = ("base", "task", "metrics", "lineage", "initial", "extra", "id")
    return (
        all(getattr(one, field) == getattr(other, field) for field in fields)
        and all(np.array_equal(one[name].bits, other[name].bits) for name in one)
        and all(np.array_equal(one.dense[n].data, other.dense[n].data) for n in one.dense)
    )


def test_names_and_metrics_are_those_of_the_file_that_was_opened(twins: tuple[Path, Path]) -> None:
    for path in twins:
        opened = maskhub.open(path, cached=True)
        assert same(opened, maskhub.open(path))
        assert opened.stored is not None
        assert opened.stored.path == str(path)


def test_bits_do_come_from_the_cache(twins: tuple[Path, Path]) -> None:
    maskhub.open(twins[0], cached=True)
    opened = maskhub.open(twins[1], cached=True)
    without_payloads(twins[1])
    assert all(np.array_equal(opened[name].bits, maskhub.open(twins[0])[name].bits) for name in opened)


def entry(path: Path) -> Path:
    found = cache.path(maskhub.open(path).id)
    assert found is not None
    return found


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another", "folder link"])
def test_a_bad_entry_is_made_anew(twins: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    maskhub.open(twins[0], cached=True)
    kept = entry(twins[0])
    good = kept.read_bytes()
    match damage:
        case "flipped":
            kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        case "cut":
            os.truncate(kept, len(good) // 2)
        case "empty":
            kept.write_bytes(b"")
        case "another":  # a right file of another mask, misnamed
            maskhub.save(~maskhub.open(twins[0]), kept, codec="bits", force=True)
        case "folder link":
            kept.unlink()
            kept.symlink_to("/dev/zero")
    assert find_cached(maskhub.open(twins[0]).id) is None
    assert same(maskhub.open(twins[1], cached=True), maskhub.open(twins[1]))
    assert find_cached(maskhub.open(twins[0]).id, verify=True) is not None
    assert not kept.is_symlink()


def test_an_entry_that_is_damaged_after_it_was_opened_is_done_without(twins: tuple[Path, Path]) -> None:
    opened = maskhub.open(twins[0], cached=True)
    kept = entry(twins[0])
    without_payloads(kept)
    assert same(opened, maskhub.open(twins[0]))


def test_a_parent_is_not_taken_from_a_bad_entry(maskset: MaskSet, tmp_path: Path) -> None:
    maskhub.save(maskset, tmp_path / "a.msk")
    maskhub.save(~maskset, tmp_path / "b.msk", codec="delta", parent=maskset)
    maskhub.verify(tmp_path / "a.msk", cache=True)
    kept = entry(tmp_path / "a.msk")
    maskhub.verify(tmp_path / "b.msk")
    content = kept.read_bytes()
    for bad in (content[:-1] + bytes([content[-1] ^ 1]), content[:-9]):
        kept.write_bytes(bad)
        with pytest.raises(ParentError, match="not at hand"):
            maskhub.verify(tmp_path / "b.msk")
    maskhub.save(~maskset, kept, force=True)  # misnamed
    with pytest.raises(ParentError, match="not at hand"):
        maskhub.verify(tmp_path / "b.msk")
    maskhub.verify(tmp_path / "a.msk", cache=True)  # mends it
    maskhub.verify(tmp_path / "b.msk")


def test_verify_makes_an_entry_anew_that_is_wrong(maskset: MaskSet, tmp_path: Path) -> None:
    maskhub.save(maskset, tmp_path / "a.msk")
    kept = maskhub.verify(tmp_path / "a.msk", cache=True).cached
    assert kept is not None
    good = kept.read_bytes()
    kept.write_bytes(good[:-1])
    assert maskhub.verify(tmp_path / "a.msk", cache=True).cached == kept
    assert find_cached(maskset.id, verify=True) is not None
