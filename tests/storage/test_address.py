"""What masks are called by what people call them with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskhub.storage.address import distinct_names


@pytest.mark.parametrize(
    ("mask", "name"),
    {
        "task.msk": "task",
        "folder/task.v2.msk": "task.v2",
        "folder/50%25.msk": "50%25",
        "shared/task.v2": "task.v2",
        "https://host/a/task.msk?x=/y.msk#z": "task",
        "https://host/my%20task.msk": "my task",
        "https://host/a%2Fb%2F..%2Fc.msk": "c",
        "hf://user/repo@main/task.msk": "task",
        "user/repo": "repo",
        "user/repo/task@main": "task",
        "run/mask.msk": "run-mask",
        "runs/a/mask.msk": "a-mask",
        "/runs/a/../b/mask.msk": "b-mask",
        "mask.msk": "mask",
        "./mask.msk": "mask",
        "https://host/run%2F1/mask.msk": "run-1-mask",
        "user/repo/mask": "repo-mask",
        "s3://bucket/masks/mask.msk": "masks-mask",
        "/.msk": "mask",
    }.items(),
)
def test_the_name_of_one(mask: str, name: str) -> None:
    assert distinct_names([mask]) == [name]


@pytest.mark.parametrize(
    ("masks", "names"),
    [
        ([], []),
        (["a.msk", "b.msk"], ["a", "b"]),
        (["runA/mask.msk", "runB/mask.msk"], ["runA-mask", "runB-mask"]),
        (["x/a.msk", "y/a.msk", "z/b.msk"], ["x-a", "y-a", "b"]),  # only as long as it takes
        (["a.msk", "x/a.msk"], ["a", "x-a"]),
        (["1/x/a.msk", "2/x/a.msk", "2/y/a.msk"], ["1-x-a", "2-x-a", "y-a"]),
        (["p/1/x/mask.msk", "q/1/x/mask.msk", "p/2/x/mask.msk"], ["p-1-x-mask", "q-1-x-mask", "2-x-mask"]),
        (["a.msk", "a.msk", "a.msk"], ["a", "a-2", "a-3"]),
        (["x/a.msk", "y/a.msk", "x/a.msk"], ["x-a", "y-a", "x-a-2"]),
        (["a.msk", "a.msk", "a-2.msk"], ["a", "a-3", "a-2"]),
        (["x-a.msk", "x/a.msk", "y/a.msk"], ["x-a", "x-a-2", "y-a"]),
        (["https://one/a.msk", "https://two/a.msk?token=t"], ["one-a", "two-a"]),
        (["https://me:secret@one/x/a.msk", "x/a.msk"], ["one-x-a", "x-a"]),
        (["ann/masks/a", "bob/masks/a", "ann/masks"], ["ann-masks-a", "bob-masks-a", "masks"]),
        (["ann/masks/a@v1", "ann/masks/a@refs/pr/1", "hf://ann/masks/b.msk"], ["v1-a", "refs-pr-1-a", "b"]),
        (["ann/masks", "bob/masks", "masks.msk"], ["ann-masks", "bob-masks", "masks"]),
        ([Path("ann/masks/a"), "ann/masks/a@v1"], ["masks-a", "v1-a"]),
    ],
)
def test_names_tell_masks_apart(masks: list[str | Path], names: list[str]) -> None:
    assert distinct_names(masks) == names


def test_a_way_up_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert distinct_names(["mask.msk", "../mask.msk"]) == ["mask", "a-mask"]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a-b", "mask", "..", "."]), min_size=1, max_size=4)))
def test_they_are_distinct_and_can_be_folders(paths: list[list[str]]) -> None:
    names = distinct_names(["/".join(path) + ".msk" for path in paths])
    assert len(set(names)) == len(names) == len(paths)
    assert not any("/" in name or name in ("", ".", "..") for name in names)
