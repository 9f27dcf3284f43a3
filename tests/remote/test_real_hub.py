"""The script for the real Hub finds the tests' Hub to be as it expects."""

from __future__ import annotations

import sys

from tests.remote.conftest import TestHub


def test_the_script_on_the_test_hub(hub: TestHub) -> None:
    ran = hub.program([sys.executable, "-m", "tests.remote.real_hub"])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) > 20
    assert lines[-1] == "all as expected"
    assert all(line.startswith("yes") for line in lines[:-1])
    assert hub.control()["repos"] == {}
