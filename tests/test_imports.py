"""What does not need a model imports neither torch nor transformers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskhub

HEAVY = {"torch", "transformers", "datasets", "sklearn", "matplotlib", "accelerate"}


def loaded(script: str, *arguments: Path) -> set[str]:
    """The top-level packages that a fresh interpreter has after ``script``."""
    script += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_but_itself() -> None:
    assert not loaded("import maskhub") & {*HEAVY, "numpy", "safetensors", "huggingface_hub"}


def test_other_systems_than_posix_are_refused() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import os; os.name = 'nt'; import maskhub"], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stderr.endswith("\nImportError: MaskHub runs on Linux and macOS. On Windows, install it in WSL.\n")


def test_the_core_needs_no_torch(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    script = """if True:
        import sys, maskhub
        base, mask, folder = sys.argv[1:]
        maskhub.verify(mask, base=base)
        maskhub.apply(base, mask, folder + "/dense")
        assert maskhub.extract(base, folder + "/dense", folder + "/x.msk").id == maskhub.info(mask).id
        maskhub.save(~maskhub.open(mask), folder + "/y.msk")
        maskhub.diff(mask, folder + "/y.msk")
    """
    packages = loaded(script, base_folder, mask_path, tmp_path)
    assert "maskhub" in packages
    assert not packages & {*HEAVY, "huggingface_hub"}


def test_public_names_are_listed_and_found() -> None:
    assert {"open", "save", "apply", "extract", "Mask", "MaskSet", "MaskhubError"} <= set(dir(maskhub))
    assert all(getattr(maskhub, name).__name__.rpartition(".")[2] == name for name in maskhub.__all__)
    with pytest.raises(AttributeError, match="No maskhub attribute nothing"):
        maskhub.nothing  # noqa: B018


ROOT = Path(__file__).parents[1]


def test_data_flows_one_way(tmp_path: Path) -> None:
    """What each place may import is in pyproject.toml; an import that runs up is found."""
    for name in ("maskhub", "cli", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    assert lint_imports(tmp_path) == 0
    with open(tmp_path / "maskhub/masks/mask.py", "a") as file:
        file.write("\n\ndef up() -> None:\n    from maskhub.container import reader as reader\n")
    assert lint_imports(tmp_path) == 1


def lint_imports(folder: Path) -> int:
    program = Path(sys.executable).parent / "lint-imports"
    path = os.pathsep.join(map(str, (folder, folder / "cli")))
    done = subprocess.run(
        [program, "--no-cache"], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "data flows one way" in done.stdout, done.stdout + done.stderr
    return done.returncode
