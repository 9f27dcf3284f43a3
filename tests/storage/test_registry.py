from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskhub.errors import MaskhubError
from maskhub.storage.registry import Registry
from tests.packages import write_package

GROUP = "maskhub.test-tools"


@dataclass(frozen=True)
class Tool:
    name: str


HERE = Tool("brought")
OTHER = Tool("another")


def registry() -> Registry[Tool]:
    return Registry(GROUP, "tool", (Tool("hammer"), Tool("saw")), (Tool("glue"),))


def bring(folder: Path, package: str, entries: dict[str, str], files: dict[str, str] | None = None) -> None:
    write_package(folder, package, {GROUP: entries}, files or {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages written here are installed."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_what_is_built_in_needs_no_packages() -> None:
    code = (
        "import sys\nfrom maskhub.container import codecs\nfrom maskhub import tasks\n"
        "codecs.encoder('nm:2:4'), codecs.encoder('auto'), tasks.REGISTRY['regression'], 'bits' in codecs.REGISTRY\n"
        "next(tasks.REGISTRY.usable())\nprint('importlib.metadata' in sys.modules)\n"
        "codecs.REGISTRY.get('none')\nprint('importlib.metadata' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_what_a_package_brings_is_found_between_the_built_in(folder: Path) -> None:
    bring(folder, "acme", {"brought": f"{__name__}:HERE", "another": f"{__name__}:OTHER"})
    tools = registry()
    assert list(tools) == ["hammer", "saw", "another", "brought", "glue"]
    assert len(tools) == 5
    assert tools["brought"] is HERE
    assert tools.get("none") is None
    assert "another" in tools
    assert "none" not in tools
    assert list(tools.usable()) == [Tool("hammer"), Tool("saw"), OTHER, HERE, Tool("glue")]
    assert list(tools.built_in) == ["hammer", "saw", "glue"]
    with pytest.raises(KeyError):
        tools["none"]


def test_a_built_in_name_cannot_be_taken(folder: Path) -> None:
    bring(folder, "acme", {"saw": f"{__name__}:HERE"})
    tools = registry()
    assert tools["saw"] == Tool("saw")
    said = "the tool 'saw' of the package acme is left out: one of that name is built in"
    with pytest.warns(UserWarning, match=said):
        assert list(tools) == ["hammer", "saw", "glue"]


def test_one_name_from_two_packages_is_neither(folder: Path) -> None:
    bring(folder, "acme", {"brought": f"{__name__}:HERE"})
    bring(folder, "bolt", {"brought": f"{__name__}:HERE", "another": f"{__name__}:OTHER"})
    tools = registry()
    said = "the tool 'brought' is brought by more than one package: acme, bolt"
    with pytest.raises(MaskhubError, match=said) as caught:
        tools["brought"]
    assert caught.value.hint == "Uninstall all but one."
    with pytest.warns(UserWarning, match=f"{said}; it is left out"):
        assert list(tools.usable()) == [Tool("hammer"), Tool("saw"), OTHER, Tool("glue")]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("acme_none:TOOL", "No module named 'acme_none'"),
        ("acme_broken:TOOL", "division by zero"),
        ("acme_fine:NONE", "module 'acme_fine' has no attribute 'NONE'"),
        (f"{__name__}:OTHER", "what it names is called 'another'"),
        ("acme_fine", "module 'acme_fine' has no attribute 'name'"),
    ],
)
def test_a_package_that_does_not_load_is_named(folder: Path, entry: str, reason: str) -> None:
    bring(folder, "acme", {"brought": entry}, {"acme_broken.py": "1 / 0\n", "acme_fine.py": "TOOL = 1\n"})
    tools = registry()
    said = f"the tool 'brought' of the package acme cannot be loaded: its entry point '{entry}' of {GROUP}: {reason}"
    with pytest.raises(MaskhubError) as caught:
        tools["brought"]
    assert str(caught.value).startswith(said)
    assert caught.value.hint == "Update the package, or uninstall it."
    assert "brought" in tools
    assert list(tools) == ["hammer", "saw", "brought", "glue"]
    with pytest.warns(UserWarning, match="; it is left out$"):
        assert [tool.name for tool in tools.usable()] == ["hammer", "saw", "glue"]
