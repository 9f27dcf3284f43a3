"""The package in docs/extend.md, installed by pip and used by programs that know nothing of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import CodecError, FormatError
from maskhub.masks.mask import Mask, MaskSet
from tests.packages import install, write_package
from tests.toy import write_rows

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extend.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"`([\w/]+\.(?:py|toml))`(?:(?!```).)*?:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
PROJECT = tomllib.loads(FILES["pyproject.toml"])["project"]

Ran = subprocess.CompletedProcess[str]
Python = Callable[..., Ran]


def python_with(packages: Path, script: str, *arguments: object) -> Ran:
    """Runs a script, or the command line, in a fresh process that finds the packages of a folder."""
    return subprocess.run(
        [sys.executable, *(["-c", script] if script else ["-m", "maskhub_cli"]), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(packages), *sys.path])},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """As ``python_with``, with the page's package installed."""
    folder = tmp_path_factory.mktemp("acme")
    modules = {path: text for path, text in FILES.items() if path != "pyproject.toml"}
    package = write_package(
        folder / "package", PROJECT["name"], PROJECT["entry-points"], modules | {"acme_masks/__init__.py": ""}
    )
    install(package, PROJECT["name"], folder / "installed")
    return partial(python_with, folder / "installed")


@pytest.fixture
def rows(maskset: MaskSet) -> MaskSet:
    """Masks of whole rows."""
    rng = np.random.default_rng(0)
    masks = {}
    for name, mask in maskset.masks.items():
        keep = rng.random((mask.shape[0], 1)) < 0.5
        masks[name] = Mask.from_bool(np.broadcast_to(keep, mask.shape))
    return dataclasses.replace(maskset, masks=masks)


def test_the_page_holds_a_whole_package() -> None:
    assert FILES.keys() == {"pyproject.toml", *(f"acme_masks/{part}.py" for part in ("codec", "format", "task"))}


def test_a_codec(python: Python, maskset: MaskSet, rows: MaskSet, tmp_path: Path) -> None:
    save(rows, tmp_path / "rows.msk")
    ran = python("", "pack", tmp_path / "rows.msk", "--codec", "acme-rows", "-o", tmp_path / "acme.msk", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["codecs"] == {"acme-rows": len(rows.masks)}
    verified = python("", "verify", tmp_path / "acme.msk")
    assert verified.returncode == 0, verified.stderr
    again = python("", "pack", tmp_path / "acme.msk", "-o", tmp_path / "again.msk")
    assert again.returncode == 0, again.stderr
    read = maskhub.open(tmp_path / "again.msk")
    assert read.masks == rows.masks
    # A byte a mask would be the smallest, but ``auto`` takes what every reader has.
    assert {entry.codec["name"] for entry in MaskFile(tmp_path / "again.msk").manifest.masks.values()} == {"bits"}
    save(maskset, tmp_path / "task.msk")
    refused = python("", "pack", tmp_path / "task.msk", "--codec", "acme-rows", "-o", tmp_path / "x.msk")
    assert refused.returncode == 1
    assert "a row is neither kept nor dropped as a whole" in refused.stderr
    with pytest.raises(CodecError, match="unknown codec 'acme-rows'"):  # the package is not installed here
        maskhub.open(tmp_path / "acme.msk")


def test_a_format(python: Python, base: Checkpoint, base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    script = """if True:
        import sys, maskhub
        from maskhub import interop
        mask, base, file, packed = sys.argv[1:]
        print(*interop.writable())
        interop.export(maskhub.open(mask), file, "acme")
        maskhub.save(interop.read(file, maskhub.open_checkpoint(base)), packed)
    """
    save(maskset, tmp_path / "task.msk")
    ran = python(script, tmp_path / "task.msk", base_folder, tmp_path / "task.acme", tmp_path / "packed.msk")
    assert (ran.stdout.split(), ran.stderr) == (["npz", "acme", "pt", "safetensors", "h5"], "")
    with np.load(tmp_path / "task.acme") as arrays:
        assert set(arrays) == {f"{name}.keep" for name in maskset.masks}
    packed = maskhub.open(tmp_path / "packed.msk")
    assert packed.masks == maskset.masks
    assert packed.base.root == maskset.base.root
    assert packed.lineage == {"operation": "pack", "source": "acme"}
    with pytest.raises(maskhub.MaskhubError, match="fits no tensor of"):  # without the package: boolean tensors
        interop.read(tmp_path / "task.acme", base)
    ran = python("", "pack", tmp_path / "task.acme", "--base", base_folder, "-o", tmp_path / "cli.msk", "-q")
    assert (ran.returncode, ran.stdout.strip()) == (0, str(tmp_path / "cli.msk"))


def test_a_kind_of_task(python: Python, tmp_path: Path) -> None:
    script = """if True:
        import sys
        from maskhub import tasks
        from maskhub.tasks.data import read_file
        for path in sys.argv[1:]:
            found = read_file(path)
            print(found.task, *found.label_names, *found.inputs)
        print(tasks.REGISTRY[read_file(sys.argv[1]).task].model, *tasks.REGISTRY)
    """
    tickets = [{"subject": f"s{i}", "queue": ("a", "b")[i % 2]} for i in range(3)]
    both = [row | {"text": "t", "label": "x"} for row in tickets]  # text classification could read these, too
    tagged = [row | {"tokens": ["w"], "tags": ["O"], "text": "w"} for row in tickets]
    plain = [{"text": "t", "label": "x"}]
    paths = [write_rows(tmp_path / f"{i}.jsonl", table) for i, table in enumerate((tickets, both, tagged, plain))]
    ran = python(script, *paths)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "acme-tickets a b text",
        "acme-tickets a b text",
        "token-classification O tokens",
        "text-classification x text",
        "AutoModelForSequenceClassification image-classification token-classification multiple-choice regression "
        "acme-tickets text-classification text-generation",
    ]


LIST = """
import json
import numpy as np
from maskhub.interop.bind import Format, bind
from maskhub.masks.mask import Mask

def fits(source, base):
    return source.name.endswith(".list.json")

def read(source, base, progress):
    def decode(entry, shape):
        keep = np.ones(shape, bool)
        keep.reshape(-1)[dropped[entry]] = False
        return Mask.from_bool(keep)

    with open(source.name) as file:
        dropped = json.load(file)
    return bind(source, base, {name: name for name in dropped}, decode, progress=progress)

FORMAT = Format("acme-list", fits, read, kinds=("other",))
"""


def test_a_format_opens_files_of_other_kinds_itself(
    base: Checkpoint, base_folder: Path, maskset: MaskSet, tmp_path: Path
) -> None:
    write_package(tmp_path, "acme", {"maskhub.formats": {"acme-list": "acme:FORMAT"}}, {"acme.py": LIST})
    source, packed = tmp_path / "task.list.json", tmp_path / "task.msk"
    dropped = {name: np.flatnonzero(~mask.to_bool()).tolist() for name, mask in maskset.masks.items()}
    source.write_text(json.dumps(dropped))
    ran = python_with(tmp_path, "", "pack", source, "--base", base_folder, "-o", packed, "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert maskhub.open(packed).masks == maskset.masks
    source.write_text(json.dumps({"a": [0]}))
    ran = python_with(tmp_path, "", "pack", source, "--base", base_folder, "-o", tmp_path / "x.msk")
    assert ran.returncode == 1
    assert f"{source}: a fits no tensor of" in ran.stderr
    with pytest.raises(FormatError, match="of no kind that can be packed"):
        interop.read(source, base)


def test_a_broken_package_is_in_nobodys_way(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    groups = {f"maskhub.{group}": {"bolt": "bolt:BOLT"} for group in ("codecs", "formats", "tasks")}
    write_package(tmp_path, "bolt", groups, {"bolt.py": "import bolts"})
    save(maskset, tmp_path / "task.msk")
    interop.export(maskset, tmp_path / "m.safetensors", "safetensors")
    said = "of the package bolt cannot be loaded: its entry point 'bolt:BOLT' of maskhub"
    ran = python_with(tmp_path, "", "pack", tmp_path / "task.msk", "-o", tmp_path / "auto.msk", "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = python_with(tmp_path, "", "pack", tmp_path / "task.msk", "--codec", "bolt", "-o", tmp_path / "x.msk")
    assert ran.returncode == 1
    assert f"Error: the codec 'bolt' {said}.codecs: No module named 'bolts'" in ran.stderr
    arguments = "pack", tmp_path / "m.safetensors", "--base", base_folder, "-o", tmp_path / "m.msk", "-q"
    ran = python_with(tmp_path, "", *arguments)
    assert ran.returncode == 0
    assert f"the format 'bolt' {said}.formats" in ran.stderr
    assert maskhub.open(tmp_path / "m.msk").masks == maskset.masks
    table = write_rows(tmp_path / "rows.jsonl", [{"text": "t", "label": "x"}])
    ran = python_with(
        tmp_path, "import sys; from maskhub.tasks.data import read_file; print(read_file(sys.argv[1]).task)", table
    )
    assert ran.stdout == "text-classification\n"
    assert f"the kind of task 'bolt' {said}.tasks" in ran.stderr
