"""The reference pages in ``docs/`` are what the program and the package say of themselves, and leave nothing out."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import maskhub.training
from maskhub_cli.app import app

pytest.importorskip("torch")  # the public names of training need it

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = typer.main.get_command(app).list_commands(None)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The names in ``docs/reference.py``, which is a script."""
    return runpy.run_path(str(DOCS / "reference.py"))


@pytest.mark.parametrize("page", ["cli.md", "python.md"])
def test_the_pages_are_the_generated_ones(reference: dict[str, Any], page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == reference["pages"]()[page], "run `make docs`"


def test_every_public_name_says_what_it_is_for(reference: dict[str, Any]) -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    for module in (maskhub, maskhub.training):
        for name in reference["public"](module):
            assert re.search(rf"^- `{re.escape(module.__name__)}\.{name}`: \S.*\.$", page, re.MULTILINE), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_the_help_is_on_the_page(command: str) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, "--help"]).stdout
    options = set(re.findall(r"^\W*(--[a-z0-9-]+)", shown, re.MULTILINE)) - {"--help"}
    assert {"--json"} <= options
    assert {option for option in options if not re.search(rf"^- .*`{option}`.*: \S", section, re.MULTILINE)} == set()
