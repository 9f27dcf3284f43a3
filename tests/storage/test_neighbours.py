"""Outputs in folders that others can write in, too: what a neighbour does there does not lead us elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskhub.errors import OutputError
from maskhub.storage.atomic import MARK, atomic_file, atomic_folders, locked, write_atomic

# As soon as something hidden appears in the folder, a link to the victim's file or folder is put in its place.
NEIGHBOUR = """
import os, sys
folder, victim = sys.argv[1:]
os.chdir(folder)
print("ready", flush=True)
number = 0
while True:
    for name in os.listdir():
        if name.endswith(".tmp") and not os.path.islink(name):
            number += 1
            try:
                os.rename(name, f"stolen{number}")
                os.symlink(victim, name)
            except OSError:
                pass
"""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the user's, which the neighbour cannot write in."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "weights").write_bytes(b"precious")
    (folder / "weights").chmod(0o600)
    return folder


def untouched(victim: Path) -> bool:
    file = victim / "weights"
    return os.listdir(victim) == ["weights"] and file.read_bytes() == b"precious" and file.stat().st_mode % 512 == 0o600


@contextlib.contextmanager
def neighbour(folder: Path, victim: Path) -> Iterator[None]:
    command = [sys.executable, "-c", NEIGHBOUR, str(folder), str(victim)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_a_neighbour_cannot_have_another_file_overwritten(shared: Path, victim: Path) -> None:
    met = 0
    with neighbour(shared, victim / "weights"):
        for _ in range(300):
            try:
                write_atomic(shared / "task.msk", b"new" * 10_000)
            except OutputError:
                met += 1
    assert met > 0
    assert untouched(victim)


def test_a_neighbour_cannot_have_another_folder_written_to(shared: Path, victim: Path) -> None:
    met = 0
    with neighbour(shared, victim):
        for i in range(200):
            try:
                with atomic_folders([shared / f"dense{i}"]) as [folder]:
                    folder.write("weights", b"new" * 10_000)
                    folder.write("other", b"new")
            except OutputError:
                met += 1
    assert met > 0
    assert untouched(victim)


def test_what_is_taken_away_while_it_is_written_is_told(shared: Path, victim: Path) -> None:
    said = r"task: cannot be written: another program moved or replaced \.task\..*\.tmp beside it\. Write to a folder"
    with pytest.raises(OutputError, match=said), atomic_file(shared / "task") as file:  # noqa: PT012
        [hidden] = shared.glob(".task.*")
        hidden.rename(shared / "stolen")
        hidden.symlink_to(victim / "weights")
        file.write(b"new")
    assert untouched(victim)
    assert (shared / "stolen").read_bytes() == b"new"
    assert sorted(os.listdir(shared)) == sorted([hidden.name, "stolen"])
    with pytest.raises(OutputError, match=said), atomic_folders([shared / "task"]) as [folder]:  # noqa: PT012
        [hidden] = {path for path in shared.glob(".task.*") if not path.is_symlink()}
        hidden.rename(shared / "stolen folder")
        hidden.symlink_to(victim)
        folder.write("weights", b"new")
    assert untouched(victim)
    assert not (shared / "task").exists()


def test_a_sweep_leaves_alone_what_a_neighbour_called_like_a_leftover(shared: Path, victim: Path) -> None:
    (shared / ".task.00000001.tmp").symlink_to(victim / "weights")
    (shared / ".task.00000002.tmp").symlink_to(victim)
    os.mkfifo(shared / ".task.00000003.tmp")
    os.link(victim / "weights", shared / ".task.00000004.tmp")
    (shared / ".task.00000005.tmp").mkdir()  # moved there: it has no mark of ours
    (shared / ".task.00000005.tmp" / "letters").write_bytes(b"")
    (shared / ".task.mine.tmp").write_bytes(b"")
    before = sorted(os.listdir(shared))
    (shared / ".task.00000006.tmp").write_bytes(b"")  # what a killed process left
    (shared / ".task.00000007.tmp").mkdir()
    (shared / ".task.00000008.tmp").mkdir()
    for name in ("model.safetensors", MARK):
        (shared / ".task.00000008.tmp" / name).write_bytes(b"")
    write_atomic(shared / "task", b"new")
    assert sorted(os.listdir(shared)) == sorted([*before, "task"])
    assert os.listdir(shared / ".task.00000005.tmp") == ["letters"]
    assert untouched(victim)


def test_a_sweep_takes_no_lock_of_another_program(shared: Path, victim: Path) -> None:
    """One that looks meanwhile whether its file is free must find it so."""
    os.link(victim / "weights", shared / ".task.00000001.tmp")
    (shared / ".task.00000002.tmp").symlink_to(victim / "weights")
    script = (
        "import fcntl, sys\nfile = open(sys.argv[1])\nprint('ready', flush=True)\n"
        "while not sys.stdin.closed:\n"
        "    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.flock(file, fcntl.LOCK_UN)\n"
        "    except BlockingIOError: sys.exit('taken')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, victim / "weights"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(300):
            write_atomic(shared / "task", b"new")
        assert process.poll() is None
        process.kill()


def test_a_lock_is_not_taken_through_a_link(shared: Path, victim: Path) -> None:
    (shared / "lock").symlink_to(victim / "weights")
    with pytest.raises(OutputError), locked(shared / "lock"):
        pytest.fail("the block must not run")
    assert untouched(victim)


def test_a_lock_keeps_other_processes_out(shared: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom maskhub.storage.atomic import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True)\n"
    )
    with locked(shared / "lock"):
        process = subprocess.Popen([sys.executable, "-c", script, shared / "lock"], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
    assert process.communicate(timeout=30)[0] == b"in\n"


def _modes(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mode, path.stat().st_gid) for path in folder.rglob("*")}


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("mode", [0o755, 0o2775])
def test_permissions_and_group_are_what_the_system_gives(shared: Path, mask: int, mode: int) -> None:
    group = 12_345 if os.geteuid() == 0 else os.getgroups()[-1]
    for name in ("plain", "ours"):
        (shared / name).mkdir()
        os.chown(shared / name, -1, group)
        (shared / name).chmod(mode)  # 2775: what is made in it gets its group
    old = os.umask(mask)
    try:
        (shared / "plain" / "file").write_bytes(b"")
        (shared / "plain" / "folder").mkdir()
        (shared / "plain" / "folder" / "inner").write_bytes(b"")
        write_atomic(shared / "ours" / "file", b"")
        with atomic_folders([shared / "ours" / "folder"]) as [folder]:
            folder.write("inner", b"")
    finally:
        os.umask(old)
    assert _modes(shared / "ours") == _modes(shared / "plain")
    assert len(_modes(shared / "ours")) == 3


WATCHED = """
import sys, threading
from pathlib import Path
from maskhub.storage.atomic import atomic_folders, write_atomic

def write(number):
    for i in range(40):
        write_atomic(folder / f"{number}", b"1")
        with atomic_folders([folder / f"{number}-{i}"]) as [new]:
            new.write("file", b"1")

folder = Path(sys.argv[1])
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
seen = set()
while any(thread.is_alive() for thread in threads):
    status = Path("/proc/self/status").read_text()
    seen.add(next(line.split()[1] for line in status.splitlines() if line.startswith("Umask:")))
print(*seen)
"""


def test_no_thread_ever_sees_another_umask(shared: Path) -> None:
    command = [sys.executable, "-c", WATCHED, str(shared)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, umask=0o027)
    assert ran.stdout == "0027\n"
    assert {path.stat().st_mode % 512 for path in shared.glob("?")} == {0o640}


def test_a_folder_that_cannot_be_listed_can_be_written_to(shared: Path) -> None:
    """As a letter box can."""
    script = (
        "import os, sys\nfrom maskhub.storage.atomic import atomic_folders, write_atomic\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(12_345); os.setuid(12_345)\n"
        "write_atomic('file', b'1')\n"
        "with atomic_folders(['folder']) as [folder]: folder.write('inner', b'2')\n"
    )
    shared.chmod(0o333)
    for folder in shared.parents:  # pytest's own are for this user alone
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    try:
        subprocess.run([sys.executable, "-c", script, shared], check=True)
    finally:
        shared.chmod(0o700)
    assert (shared / "folder" / "inner").read_bytes() == b"2"
    assert sorted(os.listdir(shared)) == ["file", "folder"]


def test_where_a_folder_cannot_be_synced_the_output_is_written_all_the_same(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    code = [0]

    def refusing(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code[0], os.strerror(code[0]))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    for number in (22, 95):  # EINVAL, ENOTSUP: file systems of a network, or that a program serves
        code[0] = number
        write_atomic(shared / "file", b"1")
        with atomic_folders([shared / f"new{number}" / "folder"]) as [folder]:
            folder.write("inner", b"2")
    code[0] = 5  # EIO: the disk is ill
    with pytest.raises(OutputError, match="file: cannot be written: Input/output error"):
        write_atomic(shared / "file", b"3")
    with pytest.raises(OutputError, match="bad: cannot be written: Input/output error"):  # noqa: SIM117
        with atomic_folders([shared / "bad"]) as [folder]:
            folder.write("inner", b"2")
    assert sorted(os.listdir(shared)) == ["file", "new22", "new95"]


def test_a_leftover_that_somebody_holds_is_left_to_them(shared: Path) -> None:
    left = shared / ".task.00000001.tmp"
    with left.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomic(shared / "task", b"1")
        assert left.exists()
    write_atomic(shared / "task", b"1")
    assert not left.exists()
