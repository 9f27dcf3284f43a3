"""``hf mask``, as ``docs/hf-extension.md`` sets it up, with the real ``hf``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from maskhub.container.reader import MaskFile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hf-extension.md").read_text()
HF = Path(sys.executable).parent / "hf"


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    path = f"{home / 'bin'}:{HF.parent}:{os.environ['PATH']}"
    variables = {"HOME": str(home), "PATH": path, "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=home, env=os.environ | variables
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the extension, set up by the page's own commands."""
    if not HF.exists():
        pytest.skip("no hf beside this Python")
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    # What pip writes for the entry point; an older installation has none yet.
    program = home / "bin" / "hf-mask"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom maskhub_cli.main import hf_mask\nsys.exit(hf_mask())\n")
    program.chmod(0o755)
    (script,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    ran = run(["bash", "-e", "-c", script.replace("python - ", f"{sys.executable} - ")], home)
    assert ran.returncode == 0, ran.stderr
    assert "Usage: hf mask [OPTIONS] COMMAND" in ran.stdout
    return home


def test_the_entry_point_is_what_hf_wants() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["hf-mask"] == "maskhub_cli.main:hf_mask"
    for found in entry_points(group="console_scripts", name="hf-mask"):
        assert callable(found.load())


def test_commands_work(home: Path, mask_path: Path) -> None:
    ran = run([str(HF), "mask", "info", str(mask_path), "-q"], home)
    assert (ran.returncode, ran.stdout.strip()) == (0, MaskFile(mask_path).manifest.id), ran.stderr
    assert "mask" in run([str(HF), "extensions", "list"], home).stdout
    assert "local/hf-mask" in run([str(HF), "--help"], home).stdout


def test_hints_errors_and_status_are_those_of_hf_mask(home: Path, mask_path: Path) -> None:
    ran = run([str(HF), "mask", "info", str(mask_path)], home)
    assert f"Next: hf mask apply tiny-bert {mask_path}" in ran.stderr
    ran = run([str(HF), "mask", "list", "./nowhere"], home)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "Error: ./nowhere: no folder of masks: it has no index. Masks get there by: hf mask push MASK ./nowhere\n"
    )
    ran = run([str(HF), "mask", "pull"], home)
    assert (ran.returncode, ran.stderr) == (2, "Error: Missing argument 'MASK'. Help: hf mask pull --help\n")


def test_it_goes_away_again(home: Path) -> None:
    assert run([str(HF), "extensions", "remove", "mask"], home).returncode == 0
    assert not (home / ".local/share/hf/extensions/hf-mask").exists()
