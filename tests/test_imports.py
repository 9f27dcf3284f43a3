"""What does not need a model imports neither torch nor transformers."""

from __future__ import annotations

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


def test_the_core_needs_no_torch(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    script = """if True:
        import sys, maskhub
        from maskhub.container.reader import MaskFile
        base, mask, folder = sys.argv[1:]
        checkpoint = maskhub.open_checkpoint(base)
        MaskFile(mask).verify()
        maskset = maskhub.open(mask)
        maskhub.apply(checkpoint, maskset, folder + "/dense")
        pruned = maskhub.from_pruned(checkpoint, maskhub.open_checkpoint(folder + "/dense"))
        maskhub.save(pruned, folder + "/x.msk")
        assert maskhub.open(folder + "/x.msk").id == maskset.id
        maskhub.save(~maskset, folder + "/y.msk")
        maskhub.diff(maskset, maskhub.open(folder + "/y.msk"))
    """
    packages = loaded(script, base_folder, mask_path, tmp_path)
    assert "maskhub" in packages
    assert not packages & {*HEAVY, "huggingface_hub"}


def test_public_names_are_listed_and_found() -> None:
    assert {"open", "save", "apply", "from_pruned", "Mask", "MaskSet", "MaskhubError", "__version__"} <= set(
        dir(maskhub)
    )
    assert maskhub.open.__name__ == "open_mask"
    with pytest.raises(AttributeError, match="module 'maskhub' has no attribute 'nothing'"):
        maskhub.nothing  # noqa: B018
