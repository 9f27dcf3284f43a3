"""The lowest versions that the project asks for are those that it is tried with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
USERS = ("train", "plot", "interop", "s3", "sign")  # extras that are not for developers


def test_the_oldest_versions_are_the_lowest_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in USERS for one in project["optional-dependencies"][extra])]
    lowest = dict(requirement.partition(",")[0].split(">=") for requirement in asked)
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tried.keys() == lowest.keys()
    newer = {name: version for name, version in tried.items() if not re.fullmatch(rf"{lowest[name]}(\.0)*", version)}
    assert newer == {"torch": (ROOT / "constraints.txt").read_text().strip().removeprefix("torch==")}
