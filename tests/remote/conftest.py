"""A Hub in a process of its own, and commands that talk to it with the real client."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib import request

import pytest

from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, HubRevision
from maskhub.masks.mask import MaskSet
from tests.cli.conftest import Ran

ROOT = Path(__file__).parents[2]


@dataclass
class TestHub:
    """A running test Hub. Each test has one for itself, and a cache and a folder of its own."""

    __test__ = False

    url: str
    folder: Path
    workers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def __call__(self, *arguments: object, **variables: str | None) -> Ran:
        """Run a ``maskhub`` command, in a process that other commands of the test with these ``variables`` share."""
        environment = self.environment(**variables)
        worker = self.workers.get(key := json.dumps(variables))
        if worker is None:
            command = [sys.executable, "-c", WORKER]
            worker = self.workers[key] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder, env=environment
            )
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(json.dumps([str(a) for a in arguments]) + "\n")
        worker.stdin.flush()
        return Ran(*json.loads(worker.stdout.readline()))

    def program(self, command: list[str], **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run a program of its own."""
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=self.folder, env=self.environment(**variables)
        )

    def environment(self, *, token: str | None = "hf_alice", **variables: str | None) -> dict[str, str]:
        wanted = {
            **os.environ,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": None,
            "HF_HUB_DISABLE_XET": "1",  # the real Hub's other way to store; the test Hub has LFS only
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MASKHUB_CACHE": str(self.folder / "maskhub"),
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
            **variables,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def control(self, **asked: Any) -> dict[str, Any]:
        """What the server has and was asked for; see ``hubserver``."""
        body = json.dumps(asked).encode()
        with request.urlopen(request.Request(f"{self.url}/_test", body, method="POST")) as response:
            return json.load(response)  # type: ignore[no-any-return]

    def put(self, repo: str, **files: bytes) -> None:
        """Make a commit behind everybody's back; ``__`` in a name is a dot."""
        named = {name.replace("__", "."): base64.b64encode(content).decode() for name, content in files.items()}
        self.control(files={repo: named})

    def files(self, repo: str, ref: str = "main") -> dict[str, bytes]:
        found = self.control(contents=True)["repos"][repo]["files"][ref]
        return {name: base64.b64decode(content) for name, content in found.items()}

    def requests(self) -> list[dict[str, Any]]:
        """Those since the last call."""
        return self.control(clear=True)["log"]  # type: ignore[no-any-return]

    def lines(self) -> list[str]:
        """What the requests since the last call were for."""
        return [request["line"].partition("?")[0] for request in self.requests()]


# huggingface_hub reads its variables when it is imported, so commands run in other processes than the tests.
WORKER = """if True:
    import json, sys
    from typer.testing import CliRunner
    from maskhub_cli.app import app
    for line in sys.stdin:
        ran = CliRunner().invoke(app, json.loads(line), prog_name="maskhub")
        print(json.dumps([ran.exit_code, ran.stdout, ran.stderr]), flush=True)
"""


@contextlib.contextmanager
def start(folder: Path) -> Iterator[TestHub]:
    """A Hub, and commands that run in ``folder``."""
    command = [sys.executable, "-m", "tests.remote.hubserver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            hub = TestHub(process.stdout.readline().strip(), folder)
            yield hub
            for worker in hub.workers.values():
                with worker:
                    worker.kill()
        finally:
            process.kill()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    with start(tmp_path) as hub:
        yield hub


@pytest.fixture
def hub_mask(maskset: MaskSet, tmp_path: Path) -> Path:
    """A mask whose base came from the Hub."""
    base = maskset.base
    there = HubRevision("base/tiny", "c" * 40, {"model.safetensors": "a" * 64})
    bound = BaseBinding(base.name, base.root, base.tensors, base.parameter_prefix, base.parameters, there)
    save(dataclasses.replace(maskset, base=bound), tmp_path / "spam.msk")
    return tmp_path / "spam.msk"
