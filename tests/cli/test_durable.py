"""What a command has written outlasts a power cut that comes when it has ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskhub
from tests import tiny, toy
from tests.cli import durable

ROOT = Path(__file__).parents[2]


COMMANDS = {
    "pack": ("pack a.msk -o new.msk --codec bits", "new.msk"),
    "pack over its own parent's child": ("pack b.msk -o old.msk --parent a.msk --force", "old.msk"),
    "compose": ("compose a|b a=a.msk b=b.msk --head-from a -o new.msk", "new.msk"),
    "extract": ("extract base dense -o new.msk", "new.msk"),
    "diff": ("diff a.msk b.msk --report report.html --plot plot.png", "report.html plot.png"),
    "plot": ("plot a.msk -o plot.svg", "plot.svg"),
    "export npz": ("export a.msk --to npz -o new.npz", "new.npz"),
    "export safetensors": ("export a.msk --to safetensors -o new.safetensors", "new.safetensors"),
    "export pt": ("export a.msk --to pt -o new.pt", "new.pt"),
    "export h5": ("export a.msk --to h5 -o new.h5", "new.h5"),
    "apply": ("apply base a.msk -o made/for/it", "made/for/it"),
    "apply, shards": ("apply base a.msk -o out --shard-size 1KB --dtype bf16", "out"),
    "apply, several": ("apply base a.msk b.msk -o made", "made/a made/b"),
    "push": ("push a.msk shared", "shared"),
    "push again": ("push a.msk full --name b --force", "full"),
    "pull": ("pull full/b -o new.msk", "new.msk cache"),
}


@pytest.fixture(scope="module")
def given(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands work on."""
    folder = tmp_path_factory.mktemp("given")
    shutil.copytree(base_folder, folder / "base")
    for seed, name in enumerate("ab"):
        maskset = tiny.tiny_maskset(folder / "base", seed=seed)
        maskhub.save(maskset, folder / f"{name}.msk")
    shutil.copy(folder / "a.msk", folder / "old.msk")
    tiny.build(maskhub.open_checkpoint(folder / "base"), maskset, folder / "dense")
    (folder / "shared").mkdir()
    (folder / "full").mkdir()
    maskhub.push(folder / "b.msk", str(folder / "full"))
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_all_that_a_command_wrote_is_synced_before_it_gets_its_name_and_its_folder_after(
    name: str, given: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(given, tmp_path / "work")
    command, outputs = COMMANDS[name]
    before = {path.stat().st_ino for path in durable.files(folder)}
    log = watch(folder, *command.split())
    written = durable.files(*(folder / output for output in outputs.split()))
    made = [path for path in written if path.stat().st_ino not in before]
    assert made
    assert durable.check(log, folder, made) > 0


@pytest.mark.slow
def test_so_is_what_a_training_leaves(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    (folder / "run").mkdir(parents=True)
    toy.write_task(folder)
    files = "--train-file train.jsonl --eval-file eval.jsonl --epochs 1 --max-length 32 --batch-size 8"
    log = watch(folder, "train", tiny_bert, *files.split(), "-o", "run")
    run = folder / "run"
    assert durable.check(log, folder, durable.files(run))


def test_the_check_finds_what_was_not_synced(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write, sync, rename, sync_folder = "file.write('1')", "os.fsync(file)", "os.rename('f', 'new')", "os.fsync(folder)"
    for calls, fault in {
        (write, sync): "written under its own name",
        (write, sync, rename): "its folder was not synced",
        (write, rename, sync, sync_folder): "before it, or a part of it, was synced",
        (sync, write, rename, sync_folder): "before it, or a part of it, was synced",
        (write, sync, sync_folder, rename): "its folder was not synced",
        (write, sync, rename, sync_folder, write): "written to after it was synced",
        (write, sync, rename, sync_folder): None,
    }.items():
        name = "f" if rename in calls else "new"
        opened = f"import os\nfile = open({name!r}, 'w+', buffering=1)\nfolder = os.open('.', os.O_RDONLY)\n"
        flushed = [f"{call}\nfile.flush()\n" for call in calls]
        (tmp_path / "maskhub_cli.py").write_text(opened + "".join(flushed))
        log = watch(folder, first=tmp_path)
        if fault is None:
            assert durable.check(log, folder, [folder / "new"]) == 1
        else:
            with pytest.raises(AssertionError, match=fault):
                durable.check(log, folder, [folder / "new"])


def watch(folder: Path, *arguments: object, first: Path = ROOT) -> Path:
    """Run a command in a folder; what it did there."""
    log, scratch = folder.parent / "log", folder.parent / "scratch"
    log.unlink(missing_ok=True)
    scratch.mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, ROOT / "tests" / "cli" / "watched.py", log, *map(str, arguments)],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (first, ROOT, ROOT / "cli"))),
            "TMPDIR": str(scratch),
            "MASKHUB_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return log
