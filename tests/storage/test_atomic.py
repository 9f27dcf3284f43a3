from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from maskhub.errors import MissingError, OutputError
from maskhub.storage.atomic import atomic_file, atomic_folders, claim_file, claim_folder, make_folder, write_atomic


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".tmp"))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "f"
    with atomic_file(target) as file:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "f", b"")
        with atomic_folders([tmp_path / "d"]):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_file(target) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("output", [atomic_file, lambda path: atomic_folders([path])])
def test_what_another_file_raises_in_the_block_is_not_blamed_on_the_output(tmp_path: Path, output: Any) -> None:
    with pytest.raises(FileNotFoundError) as caught, output(tmp_path / "out"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folders([tmp_path / "d"]) as [folder]:  # noqa: PT012
        folder.write("half", b"half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_what_the_block_raises_stays_itself_also_beside_what_was_not_written_yet(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), atomic_file(tmp_path / "f") as file:  # noqa: PT012
        file.write(b"half")
        file.no_such_thing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(OSError, match="of another file"), atomic_folders([tmp_path / "d"]) as [folder]:  # noqa: PT012
        folder.create("half").write(b"half")
        raise OSError("of another file")
    assert os.listdir(tmp_path) == []


HIDDEN = """
import resource, sys
from maskhub.storage.atomic import atomic_file
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_file(sys.argv[1]) as file:
        try:
            file.write(bytes(200_000))
        except OSError:
            raise RuntimeError("the stream ended unexpectedly")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_write_that_failed_is_told_also_where_a_library_hides_it(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", HIDDEN, tmp_path / "f"], capture_output=True, text=True, check=True)
    assert child.stdout == f"OutputError {tmp_path / 'f'}: cannot be written: File too large\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("taken", ["file", "full folder", "link", "third"])
def test_several_folders_appear_all_or_none(tmp_path: Path, taken: str) -> None:
    paths = [tmp_path / name for name in ("new/a", "b", "c")]
    paths[1].mkdir(mode=0o750)
    with pytest.raises(OSError, match=r"c: cannot be written"), atomic_folders(paths) as folders:  # noqa: PT012
        for folder in folders:
            folder.write("weights", b"1")
        match taken:
            case "file":
                paths[2].write_bytes(b"another's")
            case "full folder":
                paths[2].mkdir()
                (paths[2] / "x").write_bytes(b"another's")
            case "link":
                paths[2].symlink_to(tmp_path)
            case "third":
                next(tmp_path.glob(".c.*")).rename(tmp_path / "gone")
    assert sorted(os.listdir(tmp_path)) == sorted(["b", "gone" if taken == "third" else "c"])
    assert os.listdir(tmp_path / "b") == []
    assert stat.S_IMODE(paths[1].stat().st_mode) == 0o750
    if taken == "file":
        assert paths[2].read_bytes() == b"another's"
    if taken == "full folder":
        assert os.listdir(paths[2]) == ["x"]


def test_an_interrupt_between_two_names_takes_the_first_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def interrupted(*arguments: Any, **options: Any) -> None:
        rename(*arguments, **options)
        monkeypatch.setattr(os, "rename", rename)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_folders([tmp_path / "a", tmp_path / "b"]) as folders:  # noqa: PT012
        for folder in folders:
            folder.write("weights", b"1")
        monkeypatch.setattr(os, "rename", interrupted)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("output", [atomic_file, lambda path: atomic_folders([path])])
def test_an_interrupt_at_the_very_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Any
) -> None:
    def interrupted(*arguments: Any) -> None:
        assert len(os.listdir(tmp_path / "new")) == 1
        raise KeyboardInterrupt

    (tmp_path / "new").mkdir()
    monkeypatch.setattr("fcntl.flock", interrupted)
    with pytest.raises(KeyboardInterrupt), output(tmp_path / "new" / "out"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path / "new") == []


def test_a_folder_made_for_an_output_may_be_made_by_another_one_meanwhile(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: make_folder(tmp_path / "a" / "b" / "c" / str(i)), range(32)))
    assert len(os.listdir(tmp_path / "a" / "b" / "c")) == 32
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        make_folder(tmp_path / "file" / "below")


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "f").symlink_to("other")
    write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert not (tmp_path / "f").is_symlink()
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_folder_is_made_with_its_parents_and_may_fill_an_empty_one(tmp_path: Path) -> None:
    with atomic_folders([tmp_path / "a" / "b"]) as [folder]:
        folder.write("x", b"1")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"
    (tmp_path / "empty").mkdir()
    with atomic_folders([tmp_path / "empty"]) as [folder]:
        folder.write("x", b"2")
    assert (tmp_path / "empty" / "x").read_bytes() == b"2"
    assert leftovers(tmp_path) == leftovers(tmp_path / "a") == []


def test_a_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, reason in {
        "full": "exists and is not empty",
        "file": "exists and is not a folder",
        "link": "exists and is a link",
        "dangling": "exists and is a link",
        "file/below": r"file is a file",
        "file/below/deeper": r"file is a file",
    }.items():
        with pytest.raises(OutputError, match=reason), atomic_folders([tmp_path / name]):
            pytest.fail("the block must not run")
    assert os.listdir(tmp_path / "empty") == []
    assert sorted(os.listdir(tmp_path)) == ["dangling", "empty", "file", "full", "link"]
    claim_folder(tmp_path / "empty")


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, reason in {
        "folder": "Is a directory",
        "file/below": "Not a directory",
        "absent/below": "No such file or directory",
    }.items():
        with pytest.raises(OSError, match=f"{name}: cannot be written: {reason}"):
            write_atomic(tmp_path / name, b"x")
    with pytest.raises(MissingError, match="cannot be written"):
        write_atomic("/proc/maskhub", b"x")
    with pytest.raises(MissingError, match="cannot be written"), atomic_folders(["/proc/maskhub"]):
        pytest.fail("the block must not run")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_claim_file_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    claim_file(tmp_path / "new")
    claim_file(tmp_path / "file", force=True)
    for path, reason in {
        tmp_path: "the output is a folder",
        tmp_path / "file": "the output file exists",
        tmp_path / "link": "the output file exists",
        tmp_path / "absent" / "f": "there is no folder",
    }.items():
        with pytest.raises(FileNotFoundError if "no folder" in reason else FileExistsError, match=reason):
            claim_file(path)


KILLED = """
import sys
from maskhub.storage.atomic import atomic_file, atomic_folders
with atomic_file(sys.argv[1]) if {kind!r} == "file" else atomic_folders([sys.argv[1]]) as out:
    (out[0].create("weights") if {kind!r} == "folder" else out).write(b"half" * 100_000)
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_process_leaves_the_old_state(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_bytes(b"old")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(kind=kind), target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"writing\n"
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    if kind == "file":
        assert target.read_bytes() == b"old"
    else:
        assert not target.exists()
    # What is left is hidden, and does not hinder the next try.
    assert all(name.startswith(".target.") for name in leftovers(tmp_path))
    if kind == "file":
        write_atomic(target, b"new")
    else:
        with atomic_folders([target]):
            pass
    assert target.exists()


LIMITED = """
import resource, sys
from maskhub.storage.atomic import write_atomic
from maskhub.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomic(sys.argv[1], bytes(200_000))
except OutputError as error:
    print(error)
"""


def test_a_file_too_large_to_write_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    child = subprocess.run([sys.executable, "-c", LIMITED, target], capture_output=True, text=True, check=True)
    assert child.stdout == f"{target}: cannot be written: File too large\n"
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["target"]


def test_many_may_write_one_file_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(100):
            write_atomic(tmp_path / "file", bytes([number]) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))  # none fails because another one sweeps up
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
