"""Shared folders, on this machine's disk, in fsspec's memory, and on a file system that has to move files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

import maskhub
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import (
    ArgumentError,
    FormatError,
    IntegrityError,
    MaskhubError,
    MissingError,
    RemoteError,
    SignatureError,
)
from maskhub.masks.binding import Task
from maskhub.storage import remotefile
from tests import tiny

# Processes with the library imported already.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["maskhub.remote.folder", "filelock", "huggingface_hub.repocard"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has an empty folder, and a cache, for itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def masks(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Several masks of one base."""
    place = tmp_path_factory.mktemp("masks")
    paths = [place / f"{name}.msk" for name in "abcdefgh"]
    for seed, path in enumerate(paths):
        save(tiny.tiny_maskset(base_folder, seed=seed), path)
    return paths


class ArrowLocal(ArrowFSWrapper):  # type: ignore[misc]
    """The disk through Arrow: what is written shows as it grows, and a move replaces a file at once."""

    protocol = "arrowlocal"

    def __init__(self, **options: Any) -> None:
        from pyarrow.fs import LocalFileSystem

        super().__init__(LocalFileSystem(), **options)


@pytest.fixture(params=["folder", "file", "memory", "arrowlocal"])
def shared(request: pytest.FixtureRequest, here: Path) -> Iterator[str]:
    """A shared folder of every kind."""
    (here / "shared").mkdir()
    fsspec.register_implementation("arrowlocal", ArrowLocal, clobber=True)
    memory = fsspec.filesystem("memory")
    yield {
        "folder": "shared",
        "file": f"file://{here}/shared",
        "memory": "memory://team/masks",
        "arrowlocal": f"arrowlocal://{here}/shared/",  # Arrow calls a folder unreadable
    }[request.param]
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def id_of(path: Path | str) -> str:
    return MaskFile(path).manifest.id


def files(place: str) -> dict[str, bytes]:
    system, path = fsspec.url_to_fs(place)
    found = system.find(path)
    return {str(Path(name).relative_to(path)): system.cat_file(name) for name in found}


def test_the_whole_way(shared: str, masks: list[Path]) -> None:
    first, second = masks[:2]
    pushed = maskhub.push(first, shared)
    assert (pushed.changed, pushed.id) == (True, id_of(first))
    assert pushed.address == f"{shared.rstrip('/')}/a.msk"
    assert maskhub.push(second, f"{shared.rstrip('/')}/other.msk").changed
    assert maskhub.push(second, shared, name="third").changed

    listed = maskhub.list_masks(shared)
    assert [one.address for one in listed] == [f"{shared.rstrip('/')}/{n}.msk" for n in ("a", "other", "third")]
    entry = listed[0].entry
    assert entry is not None
    assert (entry.id, entry.base, entry.task, entry.metrics) == (
        id_of(first), "tiny-bert", "text-classification", {"accuracy": 0.9},
    )  # fmt: skip
    assert entry.bytes == first.stat().st_size

    for name in ("a.msk", "a"):
        address = f"{shared.rstrip('/')}/{name}"
        pulled = maskhub.pull(address, "out.msk", force=True)
        assert pulled.id == id_of(first)
        assert Path("out.msk").read_bytes() == first.read_bytes()
        opened = MaskFile(address)
        opened.verify()
        assert opened.manifest.id == id_of(first)
        assert str(opened.path) == address
    assert maskhub.open(f"{shared.rstrip('/')}/third").id == id_of(second)


def test_what_lies_where(shared: str, masks: list[Path]) -> None:
    maskhub.push(masks[0], shared)
    found = files(shared)
    content = masks[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = json.loads(found["index/a.json"])
    assert set(found) == {"index/a.json", f"objects/{sha256}.msk", f"objects/{pointer['card']}.md"}
    assert found[f"objects/{sha256}.msk"] == content
    text = found[f"objects/{pointer['card']}.md"]
    assert hashlib.sha256(text).hexdigest() == pointer["card"]
    assert pointer["mask"] == sha256
    assert pointer["format"] == "maskhub-index-1"
    assert "library_name: maskhub" in text.decode()
    assert f"maskhub pull {shared.rstrip('/')}/a.msk" in text.decode()


def test_what_is_there_already_is_left_as_it_is(shared: str, masks: list[Path]) -> None:
    maskhub.push(masks[0], shared)
    before = files(shared)
    assert not maskhub.push(masks[0], shared).changed
    assert files(shared) == before


def test_another_mask_does_not_take_a_name(shared: str, masks: list[Path]) -> None:
    maskhub.push(masks[0], shared, name="task")
    before = files(shared)
    with pytest.raises(RemoteError) as caught:
        maskhub.push(masks[1], shared, name="task")
    assert caught.value.message == (
        f"{shared.rstrip('/')}/task.msk: the name is taken by another mask, {id_of(masks[0])[:16]}"
    )
    assert caught.value.hint == "Take another name with --name, or replace it with --force."
    assert files(shared) == before
    assert maskhub.push(masks[1], shared, name="task", force=True).changed
    assert maskhub.pull(f"{shared.rstrip('/')}/task").id == id_of(masks[1])


def test_the_same_mask_coded_anew_takes_the_name(shared: str, masks: list[Path], here: Path) -> None:
    maskhub.push(masks[0], shared)
    save(maskhub.open(masks[0]), here / "a.msk", codec="gaps")
    assert maskhub.push(here / "a.msk", shared).changed
    maskhub.pull(f"{shared.rstrip('/')}/a", "out.msk")
    assert Path("out.msk").read_bytes() == (here / "a.msk").read_bytes() != masks[0].read_bytes()


OTHERWISE = {
    "metrics": {"accuracy": 0.1},
    "lineage": {"operation": "train", "seed": 77},
}


@pytest.mark.parametrize("field", OTHERWISE)
def test_the_same_weights_with_other_notes_are_another_file(
    shared: str, masks: list[Path], here: Path, field: str
) -> None:
    maskhub.push(masks[0], shared)
    changes: dict[str, Any] = {field: OTHERWISE[field]}
    other = maskhub.save(dataclasses.replace(maskhub.open(masks[0]), **changes), here / "a.msk")
    assert id_of(other) == id_of(masks[0])
    before = files(shared)
    address = f"{shared.rstrip('/')}/a.msk"
    with pytest.raises(RemoteError) as caught:
        maskhub.push(other, shared)
    assert caught.value.message == f"{address}: the name is taken by the same weights with other notes ({field})"
    assert files(shared) == before
    assert maskhub.push(other, shared, force=True).changed
    maskhub.pull(address, "out.msk")
    assert Path("out.msk").read_bytes() == other.read_bytes() != masks[0].read_bytes()


def test_the_same_weights_for_another_task_are_another_mask(shared: str, masks: list[Path], here: Path) -> None:
    maskhub.push(masks[0], shared)
    task = Task("text-classification", "BertForSequenceClassification", {"id2label": {"0": "no", "1": "yes"}})
    other = maskhub.save(dataclasses.replace(maskhub.open(masks[0]), task=task), here / "a.msk")
    with pytest.raises(RemoteError, match=f"the name is taken by another mask, {id_of(masks[0])[:16]}"):
        maskhub.push(other, shared)


def test_a_mask_that_needs_a_parent_does_not_replace_one_that_does_not(masks: list[Path], here: Path) -> None:
    (here / "shared").mkdir()
    maskhub.push(masks[0], "shared")
    save(maskhub.open(masks[0]), here / "a.msk", codec="delta", parent=maskhub.open(masks[1]))
    with pytest.raises(RemoteError, match=r"taken by the same weights with other notes \(parent\)"):
        maskhub.push(here / "a.msk", "shared", parent=[masks[1]])


def test_a_folder_with_one_mask_needs_no_name(shared: str, masks: list[Path]) -> None:
    maskhub.push(masks[0], shared)
    assert maskhub.pull(shared).id == maskhub.open(shared).id == id_of(masks[0])
    maskhub.push(masks[1], shared)
    for call in (maskhub.pull, maskhub.open):
        with pytest.raises(RemoteError) as caught:
            call(shared)
        assert caught.value.message == f"{shared}: the folder has several masks: a, b"
        assert caught.value.hint == f"Name one: {shared.rstrip('/')}/a"


def test_what_people_wrote_into_a_card_stays(masks: list[Path], here: Path) -> None:
    shared = here / "shared"
    shared.mkdir()
    maskhub.push(masks[0], str(shared), name="task")
    (card,) = shared.glob("objects/*.md")
    card.write_text(card.read_text() + "\nTrained on the messages of 2025.\n")
    maskhub.push(masks[1], str(shared), name="task", force=True)
    pointer = json.loads((shared / "index/task.json").read_text())
    text = (shared / "objects" / f"{pointer['card']}.md").read_text()
    assert "Trained on the messages of 2025." in text
    assert id_of(masks[1]) in text
    assert id_of(masks[0]) not in text


def test_lists_are_filtered(shared: str, masks: list[Path], base_folder: Path, here: Path) -> None:
    maskhub.push(masks[0], shared, name="spam-en")
    maskhub.push(masks[1], shared, name="topics")
    save(tiny.tiny_maskset(base_folder, name="another/base"), here / "x.msk")
    maskhub.push(here / "x.msk", shared, name="Spam-de")

    def names(**filters: Any) -> list[str]:
        return [one.address.rpartition("/")[2] for one in maskhub.list_masks(shared, **filters)]

    assert names() == ["Spam-de.msk", "spam-en.msk", "topics.msk"]
    assert names(base="tiny-bert") == ["spam-en.msk", "topics.msk"]
    assert names(base="another/base") == ["Spam-de.msk"]
    assert names(search="SPAM") == ["Spam-de.msk", "spam-en.msk"]
    assert names(search="spam", base="tiny-bert") == ["spam-en.msk"]
    assert names(limit=1) == ["Spam-de.msk"]
    assert names(search="nothing") == []


def test_a_plain_file_can_be_pulled_too(shared: str, masks: list[Path]) -> None:
    system, path = fsspec.url_to_fs(shared)
    system.makedirs(path, exist_ok=True)
    system.pipe_file(f"{path.rstrip('/')}/plain.msk", masks[0].read_bytes())
    assert maskhub.pull(f"{shared.rstrip('/')}/plain.msk").id == id_of(masks[0])


# Hostile and damaged folders


@pytest.fixture
def pushed(here: Path, masks: list[Path]) -> Path:
    """A folder here with one mask, ``a``."""
    (here / "shared").mkdir()
    maskhub.push(masks[0], "shared")
    return here / "shared"


@pytest.mark.parametrize(
    "change",
    [
        {"mask": "../../../etc/passwd"},
        {"mask": "/etc/passwd"},
        {"mask": "0" * 63 + "/"},
        {"mask": "A" * 64},
        {"mask": "0" * 64 + "\n"},
        {"mask": None},
        {"card": "../x"},
        {"format": "maskhub-index-2"},
        {"entry": None},
        {"entry": {"name": 5}},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_of_lies_is_refused(pushed: Path, change: dict[str, Any], masks: list[Path]) -> None:
    place = pushed / "index/a.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    message = r"shared/index/a.json: not an entry of an index of masks: "
    with pytest.raises(FormatError, match=message) as caught:
        maskhub.pull("shared/a")
    assert caught.value.hint == "Push the mask anew with --force."
    (listed,) = maskhub.list_masks("shared")
    assert listed.entry is None
    assert re.match(message, listed.problem or "")
    with pytest.raises(FormatError, match=message):
        maskhub.push(masks[0], "shared")
    assert maskhub.push(masks[0], "shared", force=True).changed
    assert maskhub.pull("shared/a").id == id_of(masks[0])


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"[" * 100_000, b'{"format": "maskhub-index-1", "mask": "'])
def test_an_index_of_noise_is_refused(pushed: Path, content: bytes) -> None:
    (pushed / "index/a.json").write_bytes(content)
    for call in (maskhub.pull, maskhub.open):
        with pytest.raises(FormatError, match=r"shared/index/a.json: not an entry of an index of masks: ") as caught:
            call("shared/a")
        assert "\n" not in str(caught.value)


def test_a_huge_entry_is_not_read(pushed: Path) -> None:
    with open(pushed / "index/a.json", "r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(RemoteError, match=r"shared/index/a.json: larger than 1,048,576 bytes"):
        maskhub.pull("shared/a")


def test_names_never_become_paths(pushed: Path, masks: list[Path], here: Path) -> None:
    entry = json.loads((pushed / "index/a.json").read_text())
    entry["entry"]["name"] = "../../../tmp/evil\n\0.msk"
    for name in ("a.json", "b c.json", "..json", ".hidden.json", "-x.json", "x\ny.json", "é.json", "a.json.tmp"):
        (pushed / "index" / name).write_text(json.dumps(entry))
    (pushed / "index" / "folder").mkdir()
    odd, listed = maskhub.list_masks("shared")[:0], None
    for one in maskhub.list_masks("shared"):
        if one.entry:
            assert listed is None
            listed = one
        else:
            odd.append(one)
    assert listed is not None
    assert listed.address == "shared/a.msk"
    assert listed.entry is not None
    assert listed.entry.name == "a.msk"
    assert sorted(one.problem or "" for one in odd) == [
        f"shared: {name!r}: not a name for a mask in a folder; left out" for name in ("-x", "b c", "x\ny", "é")
    ]
    maskhub.pull("shared")
    assert {p.name for p in here.iterdir()} == {"shared", "cache"}
    for name in ("../x", "x/y", ".x", "x y", "é", "x" * 101, "x\0"):
        before = files("shared")
        with pytest.raises(RemoteError, match="not a name for a mask"):
            maskhub.push(masks[0], "shared", name=name)
        assert files("shared") == before


def test_what_an_index_says_must_be_true(pushed: Path, masks: list[Path]) -> None:
    place = pushed / "index/a.json"
    pointer = json.loads(place.read_text())
    place.write_text(json.dumps(pointer | {"entry": pointer["entry"] | {"id": "0" * 64}}))
    with pytest.raises(IntegrityError, match=r"^shared/a: not the mask that the index says\. "):
        maskhub.pull("shared/a", "out.msk")
    other = masks[1].read_bytes()
    (pushed / "objects" / f"{pointer['mask']}.msk").write_bytes(other)
    place.write_text(json.dumps(pointer))
    remove_cache()
    with pytest.raises(IntegrityError, match=r"^shared/a: damaged: not the file that the index says") as caught:
        maskhub.pull("shared/a", "out.msk")
    assert caught.value.hint == "Push it again with --force."
    assert not Path("out.msk").exists()


def remove_cache() -> None:
    shutil.rmtree(os.environ["MASKHUB_CACHE"], ignore_errors=True)


def test_any_changed_byte_is_found_and_mended(pushed: Path, masks: list[Path]) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    content = stored.read_bytes()
    for place in (0, 8, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        stored.write_bytes(changed)
        remove_cache()
        with pytest.raises(IntegrityError, match="damaged: not the file that the index says"):
            maskhub.pull("shared/a", "out.msk")
        assert not Path("out.msk").exists()
    for wrong in (content[:-1], content + b"\0"):
        stored.write_bytes(wrong)
        with pytest.raises(IntegrityError, match="damaged: not the file that the index says"):
            maskhub.pull("shared/a", "out.msk")
        assert maskhub.push(masks[0], "shared").changed  # its size shows it
        stored.write_bytes(content[:-1])
    assert maskhub.push(masks[0], "shared", force=True).changed
    assert maskhub.pull("shared/a", "out.msk").id == id_of(masks[0])


def test_a_wrong_entry_is_mended_by_a_push_of_the_right_mask(pushed: Path, masks: list[Path]) -> None:
    """An index that lies about the file is not taken for what is there already."""
    place = pushed / "index/a.json"
    right = json.loads(place.read_text())
    for wrong in ({"metrics": {"accuracy": 1.0}}, {"id": "0" * 64}, {"bytes": 7}, {"task": None}):
        place.write_text(json.dumps(right | {"entry": right["entry"] | wrong}))
        assert maskhub.push(masks[0], "shared").changed
        assert json.loads(place.read_text())["entry"] == right["entry"]
    assert not maskhub.push(masks[0], "shared").changed


def test_an_object_of_the_right_size_is_not_taken_for_the_right_one(pushed: Path, masks: list[Path]) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    stored.write_bytes(bytes(stored.stat().st_size))
    assert maskhub.push(masks[0], "shared").changed
    assert stored.read_bytes() == masks[0].read_bytes()


def test_an_object_that_is_gone_or_no_mask_keeps_its_name(pushed: Path, masks: list[Path]) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    for what, change in {
        "what is no mask": lambda: stored.write_bytes(b"x"),
        "a mask that is gone": stored.unlink,
    }.items():
        change()
        with pytest.raises(RemoteError, match=f"^shared/a.msk: the name is taken by {what}. Take another name "):
            maskhub.push(masks[1], "shared", name="a")


@pytest.mark.parametrize("said", [0, 7, 10**15, 1 << 62])
def test_what_an_index_says_of_the_size_limits_nothing(
    pushed: Path, masks: list[Path], said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small number must not cut an honest file, and a large one allows nothing."""
    monkeypatch.setattr(remotefile, "WHOLE", 1000)  # bytes that are read at once
    place = pushed / "index/a.json"
    pointer = json.loads(place.read_text())
    place.write_text(json.dumps(pointer | {"entry": pointer["entry"] | {"bytes": said}}))
    assert maskhub.pull("shared/a", "out.msk").bytes == masks[0].stat().st_size
    assert Path("out.msk").read_bytes() == masks[0].read_bytes()


def test_a_file_that_would_fill_the_disk_is_refused_before_it_is_written(pushed: Path, here: Path) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    Path("plain.msk").touch()
    for path in (stored, Path("plain.msk")):
        os.truncate(path, min(shutil.disk_usage(here).free, 1 << 40))
    for address in ("shared/a", "./plain.msk"):
        with pytest.raises(
            RemoteError, match=r"no room for its [\d,]+ bytes: the disk of \S+/downloads has "
        ) as caught:
            maskhub.pull(address, "out.msk")
        assert caught.value.hint == "The variables MASKHUB_CACHE and TMPDIR name other folders."
    os.truncate("plain.msk", (1 << 40) + 1)
    with pytest.raises(RemoteError, match="said to have 1,099,511,627,777 bytes, which no mask has"):
        maskhub.pull("./plain.msk", "out.msk")
    assert not [path for path in (here / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")  # whose path must be short
    os.replace("socket", path)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo, "a socket": make_socket, "a device": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip


@pytest.fixture
def soon() -> Iterator[None]:
    """A test that waits for a pipe fails."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("what", ["index/a.json", "objects/*.msk", "objects/*.md", "objects/*.sig"])
def test_what_is_no_file_is_neither_waited_for_nor_read(
    soon: None, pushed: Path, masks: list[Path], keys: tuple[Path, Path], what: str, kind: str
) -> None:
    private, public = keys
    maskhub.push(masks[0], "shared", sign=private)
    maskhub.push(masks[1], "shared")
    (place,) = [p for p in pushed.glob(what) if p.name.startswith(("a.", *_objects_of(pushed)))]
    place.unlink()
    NO_FILES[kind](place)

    (first, second) = maskhub.list_masks("shared")
    assert second.entry is not None
    assert (first.entry is None) == (what == "index/a.json")
    refusal = f"{place.relative_to(pushed.parent)}: {kind}, not a file"
    if what == "index/a.json":
        assert first.problem == refusal
    if what != "objects/*.md":
        for call in (
            lambda: maskhub.pull("shared/a", require_signature=public),
            lambda: maskhub.push(masks[0], "shared", sign=private),
        ):
            with pytest.raises(MaskhubError) as caught:
                call()
            assert caught.value.message == refusal
    assert maskhub.push(masks[0], "shared", sign=private, force=True).changed
    assert maskhub.pull("shared/a", require_signature=public).id == id_of(masks[0])
    assert [one.problem for one in maskhub.list_masks("shared")] == [None, None]


def _objects_of(folder: Path) -> tuple[str, str]:
    """How the names of the objects of ``a`` start."""
    pointer = json.loads((folder / "index/a.json").read_text())
    return pointer["mask"], pointer["card"]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(pushed: Path, masks: list[Path]) -> None:
    cached = maskhub.pull("shared/a").path
    cached.write_bytes(masks[1].read_bytes())
    assert maskhub.pull("shared/a").path == cached
    assert cached.read_bytes() == masks[0].read_bytes()


def test_an_object_that_is_gone(pushed: Path) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    stored.unlink()
    with pytest.raises(MaskhubError, match="no such file"):
        maskhub.pull("shared/a")
    with pytest.raises(MaskhubError, match="no such file"):
        maskhub.open("shared/a")


def test_a_name_that_a_folder_of_masks_does_not_have(pushed: Path) -> None:
    with pytest.raises(MissingError, match=r"^shared/zzz: no such file") as caught:
        maskhub.pull("shared/zzz")
    assert caught.value.hint == "What is there: maskhub list shared/"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(pushed: Path, limit: int) -> None:
    with pytest.raises(ArgumentError, match=f"^limit: {limit} is not at least 1$"):
        maskhub.list_masks("shared", limit=limit)


def test_what_is_no_folder_of_masks(here: Path, masks: list[Path]) -> None:
    with pytest.raises(MissingError, match=r"^nowhere: no folder of masks: it has no index") as caught:
        maskhub.list_masks("nowhere")
    assert caught.value.hint == "Masks get there by: maskhub push MASK nowhere"
    with pytest.raises(MissingError, match=r"^nowhere: no such folder or bucket") as caught:
        maskhub.push(masks[0], "nowhere")
    assert caught.value.hint == "Make it first."
    assert {p.name for p in here.iterdir()} <= {"cache"}
    with pytest.raises(MissingError, match=r"^./nowhere/a: no such file") as caught:
        maskhub.pull("./nowhere/a")
    assert caught.value.hint == "What is there: maskhub list ./nowhere/"
    Path("file").write_text("x")
    with pytest.raises(
        RemoteError, match=r"file/(index/a\.json: cannot be read|objects/\w+\.msk: cannot be written): Not a directory"
    ):
        maskhub.push(masks[0], "./file")


@pytest.mark.parametrize(
    "place",
    ["https://u:secret@host/masks", "http://host/masks/", "zip://x::memory://y.zip", "s3://b/masks?token=secret"],
)
def test_where_nothing_can_be_pushed(place: str, masks: list[Path]) -> None:
    with pytest.raises(RemoteError, match="masks cannot be pushed there, only read") as caught:
        maskhub.push(masks[0], place)
    assert "secret" not in str(caught.value)


def test_a_file_system_without_moves_is_not_written_to(masks: list[Path], here: Path) -> None:
    class Growing(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "growing"

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
            raise FileNotFoundError(path)

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            raise FileNotFoundError(path)

    fsspec.register_implementation("growing", Growing, clobber=True)
    with pytest.raises(RemoteError, match=r"^growing://x: masks cannot be pushed there, only read\. "):
        maskhub.push(masks[0], "growing://x")


def test_options_of_the_hub_are_refused(here: Path, masks: list[Path]) -> None:
    asked: list[dict[str, Any]] = [{"private": True}, {"create_pr": True}, {"revision": "dev"}]
    for options in asked:
        with pytest.raises(ArgumentError, match="--private, --create-pr and --revision are for the Hub"):
            maskhub.push(masks[0], "./shared", **options)
    with pytest.raises(ArgumentError, match="--author is for the Hub"):
        maskhub.list_masks("./shared", author="ann")


def test_a_mask_in_memory_is_pushed_by_a_name(here: Path, masks: list[Path]) -> None:
    Path("shared").mkdir()
    maskset = maskhub.open(masks[0])
    pushed = maskhub.push(maskset, "shared", name="made")
    assert (pushed.address, pushed.id) == ("shared/made.msk", maskset.id)
    assert maskhub.push(maskset, "./shared/too.msk").address == "./shared/too.msk"
    assert maskhub.pull("shared/too", "too.msk").id == maskset.id
    with pytest.raises(ArgumentError, match="a mask in memory has no name"):
        maskhub.push(maskset, "shared")


# Signatures


@pytest.fixture
def keys(here: Path) -> tuple[Path, Path]:
    from tests.remote.keys import pair

    return pair()


def test_signatures_lie_beside_their_masks(shared: str, masks: list[Path], keys: tuple[Path, Path]) -> None:
    private, public = keys
    address = f"{shared.rstrip('/')}/a"
    maskhub.push(masks[0], shared)
    with pytest.raises(SignatureError, match=f"^{re.escape(address)}: not signed"):
        maskhub.pull(address, "out.msk", require_signature=public)
    assert not Path("out.msk").exists()
    assert maskhub.push(masks[0], shared, sign=private).changed
    assert not maskhub.push(masks[0], shared, sign=private).changed
    assert [name for name in files(shared) if name.endswith(".msk.sig")] == [
        f"objects/{hashlib.sha256(masks[0].read_bytes()).hexdigest()}.msk.sig"
    ]
    assert maskhub.pull(address, "out.msk", require_signature=public).id == id_of(masks[0])
    maskhub.push(masks[1], shared, name="a", force=True)
    with pytest.raises(SignatureError, match="not signed"):
        maskhub.pull(address, "out.msk", force=True, require_signature=public)
    assert Path("out.msk").read_bytes() == masks[0].read_bytes()


def test_a_huge_signature_is_not_read(pushed: Path, keys: tuple[Path, Path]) -> None:
    (stored,) = pushed.glob("objects/*.msk")
    with open(f"{stored}.sig", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RemoteError, match="larger than 4,096 bytes"):
        maskhub.pull("shared/a", require_signature=keys[1])


# Several processes


def _killed_at(stage: int, mask: Path, place: str) -> None:
    """Push, and die without warning when the ``stage``-th file is about to get its name."""
    left = [stage]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    maskhub.push(mask, place, name="task", force=True)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_push_that_is_killed_leaves_the_old_state(stage: int, here: Path, masks: list[Path]) -> None:
    (here / "shared").mkdir()
    place = str(here / "shared")
    maskhub.push(masks[0], place, name="task")
    before = files(place)
    process = PROCESSES.Process(target=_killed_at, args=(stage, masks[1], place))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    after = files(place)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + stage  # what was written before, and a temporary file
    (listed,) = maskhub.list_masks(place)
    assert listed.entry is not None
    assert listed.entry.id == id_of(masks[0])
    assert maskhub.pull(f"{place}/task").id == id_of(masks[0])
    maskhub.push(masks[1], place, name="task", force=True)
    assert maskhub.pull(f"{place}/task").id == id_of(masks[1])
    assert not [name for name in files(place) if name.endswith(".tmp")]


def _alternate(masks: list[Path], place: str) -> None:
    for _ in range(100_000):  # it is killed long before
        for mask in masks:
            maskhub.push(mask, place, name="task", force=True)


def test_kills_at_any_time_leave_one_of_the_masks(here: Path, masks: list[Path]) -> None:
    (here / "shared").mkdir()
    maskhub.push(masks[0], "shared", name="task")
    rng = random.Random(6)
    for _ in range(20):
        process = PROCESSES.Process(target=_alternate, args=(masks[:2], str(here / "shared")))
        process.start()
        time.sleep(0.1 + rng.random() / 5)
        process.kill()
        process.join(60)
        (listed,) = maskhub.list_masks("shared")
        pulled = maskhub.pull("shared/task", "out.msk", force=True)
        assert listed.entry is not None
        assert pulled.id == listed.entry.id in {id_of(masks[0]), id_of(masks[1])}
        MaskFile("out.msk").verify()


def _push_all(masks: list[Path], place: str, start: Event) -> None:
    start.wait(60)
    for mask in masks:
        maskhub.push(mask, place)
        maskhub.push(mask, place, name="task", force=True)


def _pull_always(place: str, cache: str, start: Event, stop: Event) -> None:
    os.environ["MASKHUB_CACHE"] = cache
    start.wait(60)
    deadline = time.monotonic() + 120
    while not stop.is_set():
        assert time.monotonic() < deadline
        maskhub.pull(f"{place}/task")
        for one in maskhub.list_masks(place):
            assert one.entry is not None, one.problem


def test_writers_and_readers_at_once(here: Path, masks: list[Path]) -> None:
    """Six write the same and different names, two read all the time; nobody sees anything but whole masks."""
    (here / "shared").mkdir()
    place = str(here / "shared")
    maskhub.push(masks[0], place, name="task")
    start, stop = PROCESSES.Event(), PROCESSES.Event()
    readers = [
        PROCESSES.Process(target=_pull_always, args=(place, str(here / f"cache-{i}"), start, stop)) for i in range(2)
    ]
    for process in readers:
        process.start()
    writers = [
        PROCESSES.Process(target=_push_all, args=(masks[i:] + masks[:i], place, start)) for i in range(6)
    ]  # fmt: skip
    for process in writers:
        process.start()
    start.set()
    for process in writers:
        process.join(120)
    stop.set()
    for process in readers:
        process.join(60)
    assert [process.exitcode for process in writers + readers] == [0] * 8
    assert [one.address for one in maskhub.list_masks(place)] == [
        f"{place}/{name}.msk" for name in (*"abcdefgh", "task")
    ]
    for mask in masks:
        maskhub.pull(f"{place}/{mask.stem}", "out.msk", force=True)
        assert Path("out.msk").read_bytes() == mask.read_bytes()
    assert maskhub.pull(f"{place}/task").id in map(id_of, masks)
    assert not [name for name in files(place) if name.endswith(".tmp")]


def _pull(place: str, cache: Path, output: Path) -> None:
    os.environ["MASKHUB_CACHE"] = str(cache)
    maskhub.pull(place, output)


def test_eight_pulls_at_once(here: Path, masks: list[Path]) -> None:
    (here / "shared").mkdir()
    place = str(here / "shared")
    maskhub.push(masks[0], place)
    outputs = [here / f"out-{i}.msk" for i in range(8)]
    pulls = [PROCESSES.Process(target=_pull, args=(f"{place}/a", here / "cache", path)) for path in outputs]
    for process in pulls:
        process.start()
    for process in pulls:
        process.join(60)
    assert [process.exitcode for process in pulls] == [0] * 8
    assert {path.read_bytes() for path in outputs} == {masks[0].read_bytes()}
    assert len(list((here / "cache" / "downloads").glob("*.msk"))) == 1
