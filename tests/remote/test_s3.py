"""Shared folders on S3: s3fs against moto's server, both real, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

import maskhub
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import IntegrityError, RemoteError, SignatureError
from maskhub_cli.app import app
from tests import tiny
from tests.cli.conftest import Ran
from tests.remote.keys import pair
from tests.remote.s3 import Fault, Proxy, moto

pytest.importorskip("s3fs")
SECRET = "wJalrXUtnFEMI-the-secret-key"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["maskhub.remote.folder", "filelock", "huggingface_hub.repocard", "s3fs"])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto() as port:
        yield port


@pytest.fixture
def s3(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server; ``s3://bucket`` is there, and empty."""
    monkeypatch.chdir(tmp_path)
    with Proxy(port) as proxy:
        for name, value in environment(proxy.url, tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        system = fsspec.filesystem("s3")
        if system.exists("bucket"):
            system.rm("bucket", recursive=True)
        system.mkdir("bucket")
        proxy.requests.clear()
        yield proxy


def environment(url: str, cache: Path) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "MASKHUB_CACHE": str(cache),
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def masks(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("masks") / f"{name}.msk" for name in "abcd"]
    for seed, path in enumerate(paths):
        save(tiny.tiny_maskset(base_folder, seed=seed), path)
    return paths


def id_of(path: Path | str) -> str:
    return MaskFile(path).manifest.id


def test_the_whole_way(s3: Proxy, masks: list[Path]) -> None:
    assert maskhub.push(masks[0], "s3://bucket/masks/").changed
    assert not maskhub.push(masks[0], "s3://bucket/masks").changed
    assert maskhub.push(masks[1], "s3://bucket/masks/other.msk").changed
    listed = maskhub.list_masks("s3://bucket/masks")
    assert [one.address for one in listed] == ["s3://bucket/masks/a.msk", "s3://bucket/masks/other.msk"]
    assert [one.entry and one.entry.id for one in listed] == [id_of(masks[0]), id_of(masks[1])]
    for address in ("s3://bucket/masks/other", "s3://bucket/masks/other.msk"):
        maskhub.pull(address, "out.msk", force=True)
        assert Path("out.msk").read_bytes() == masks[1].read_bytes()
        assert maskhub.open(address).id == id_of(masks[1])
    with pytest.raises(RemoteError, match=r"^s3://bucket/masks: the folder has several masks: a, other\. "):
        maskhub.pull("s3://bucket/masks")
    with pytest.raises(RemoteError, match="the name is taken by another mask"):
        maskhub.push(masks[2], "s3://bucket/masks/other.msk")


def test_a_plain_file(s3: Proxy, masks: list[Path]) -> None:
    fsspec.filesystem("s3").pipe_file("bucket/deep/plain.msk", masks[0].read_bytes())
    assert maskhub.pull("s3://bucket/deep/plain.msk", "out.msk").id == id_of(masks[0])
    assert maskhub.push("s3://bucket/deep/plain.msk", "s3://bucket/masks").address == "s3://bucket/masks/plain.msk"


def test_how_often_the_server_is_asked(s3: Proxy, masks: list[Path]) -> None:
    maskhub.push(masks[0], "s3://bucket/masks")
    assert [line.split()[0] for line in s3.requests].count("PUT") == 3  # mask, card, name
    assert s3.requests[-1] == "PUT /bucket/masks/index/a.json"
    s3.requests.clear()
    maskhub.push(masks[0], "s3://bucket/masks")
    assert not [line for line in s3.requests if line.startswith("PUT")]
    s3.requests.clear()
    maskhub.pull("s3://bucket/masks/a")
    assert len([line for line in s3.requests if re.match(r"GET /bucket/masks/objects/\w+.msk", line)]) == 1
    s3.requests.clear()
    maskhub.pull("s3://bucket/masks/a")
    assert not [line for line in s3.requests if "objects" in line]  # it is in the cache


def test_others_writes_are_seen(s3: Proxy, masks: list[Path]) -> None:
    """s3fs keeps what it has listed."""
    maskhub.push(masks[0], "s3://bucket/masks")
    assert len(maskhub.list_masks("s3://bucket/masks")) == 1
    start(_push, masks[1]).join(60)
    assert len(maskhub.list_masks("s3://bucket/masks")) == 2
    assert maskhub.pull("s3://bucket/masks/task").id == id_of(masks[1])
    start(_push, masks[2]).join(60)
    assert maskhub.pull("s3://bucket/masks/task").id == id_of(masks[2])


def test_signatures(s3: Proxy, masks: list[Path]) -> None:
    private, public = pair()
    maskhub.push(masks[0], "s3://bucket/masks", name="task", sign=private)
    assert maskhub.pull("s3://bucket/masks/task", "out.msk", require_signature=public).id == id_of(masks[0])
    maskhub.push(masks[1], "s3://bucket/masks", name="task", force=True)
    with pytest.raises(SignatureError, match=r"^s3://bucket/masks/task: not signed\. "):
        maskhub.pull("s3://bucket/masks/task", "other.msk", require_signature=public)
    assert not Path("other.msk").exists()


def run(*arguments: object) -> Ran:
    """A command in this process, with a connection of its own."""
    fsspec.filesystem("s3").clear_instance_cache()
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="maskhub")
    return Ran(result.exit_code, result.stdout, result.stderr)


def test_every_command_takes_a_name_on_s3(s3: Proxy, masks: list[Path], base_folder: Path) -> None:
    ran = run("push", masks[0], "s3://bucket/masks/", "-q")
    assert (ran.status, ran.out, ran.stderr) == (0, "s3://bucket/masks/a.msk\n", "")
    address = ran.out.strip()
    for command in (
        ["info", address],
        ["info", "s3://bucket/masks"],
        ["verify", address, "--base", base_folder],
        ["apply", base_folder, address, "-o", "dense"],
        ["export", address, "--to", "npz", "-o", "x.npz"],
        ["pack", address, "--codec", "gaps", "-o", "x.msk"],
        ["pull", address, "-o", "y.msk", "--base", base_folder],
        ["list", "s3://bucket/masks/"],
    ):
        ran = run(*command, "-q")
        assert ran.status == 0, (command, ran.stderr)
        assert ran.out.strip() in {id_of(masks[0]), "dense", "x.npz", "x.msk", "y.msk", address}
    assert Path("y.msk").read_bytes() == masks[0].read_bytes()
    assert id_of("x.msk") == id_of(masks[0])


# Bad input


def failed(ran: Ran) -> str:
    assert (ran.status, ran.out) == (1, ""), ran.stderr
    assert ran.stderr.startswith("Error: ")
    assert ran.stderr.count("\n") == 1
    assert SECRET not in ran.stderr
    return ran.stderr.removeprefix("Error: ").rstrip("\n")


def test_what_is_missing(s3: Proxy, masks: list[Path]) -> None:
    assert failed(run("push", masks[0], "s3://nowhere/masks")) == (
        "s3://nowhere/masks: no such folder or bucket. Make it first."
    )
    assert failed(run("pull", "s3://bucket/masks/none")) == (
        "s3://bucket/masks/none: no such file. What is there: maskhub list s3://bucket/masks/"
    )
    assert failed(run("list", "s3://bucket/masks")) == (
        "s3://bucket/masks: no folder of masks: it has no index. "
        "Masks get there by: maskhub push MASK s3://bucket/masks"
    )
    assert failed(run("info", "s3://bucket/x.msk")) == "s3://bucket/x.msk: no such file"


def test_without_credentials(s3: Proxy, masks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for command in (["pull", "s3://bucket/masks/a"], ["push", masks[0], "s3://bucket/masks"], ["list", "s3://bucket"]):
        message = failed(run(*command))
        assert re.match(r"s3://bucket\S*: cannot be read: Unable to locate credentials\. For S3 they are in ", message)


def test_with_wrong_credentials(s3: Proxy, masks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with moto(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{strict}")
        for command in (["pull", "s3://bucket/a"], ["push", masks[0], "s3://bucket/masks"], ["list", "s3://bucket"]):
            message = failed(run(*command))
            assert re.match(r"s3://bucket\S*: cannot be read: ", message), message
            advice = (
                "does not exist in our records. You lack the rights, or credentials are missing or wrong. For S3 they"
            )
            assert advice in message


def test_without_s3fs_the_error_names_the_package(s3: Proxy, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/s3fs.py").write_text("raise ModuleNotFoundError(\"No module named 's3fs'\", name='s3fs')")
    ran = subprocess.run(
        [sys.executable, "-m", "maskhub_cli", "info", "s3://bucket/x.msk"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": f"{tmp_path}/without"},
    )  # fmt: skip
    message = failed(Ran(ran.returncode, ran.stdout, ran.stderr))
    assert message == "s3://bucket/x.msk: cannot be read: Install s3fs to access S3"


# Faults


def test_a_damaged_mask_is_refused(s3: Proxy, masks: list[Path]) -> None:
    maskhub.push(masks[0], "s3://bucket/masks")
    system = fsspec.filesystem("s3")
    (stored,) = system.glob("bucket/masks/objects/*.msk")
    content = bytearray(masks[0].read_bytes())
    content[-1] ^= 1
    system.pipe_file(stored, bytes(content))
    with pytest.raises(IntegrityError, match=r"^s3://bucket/masks/a: damaged: not the file that the index says\. "):
        maskhub.pull("s3://bucket/masks/a", "out.msk")
    assert not Path("out.msk").exists()
    maskhub.push(masks[0], "s3://bucket/masks", force=True)
    assert maskhub.pull("s3://bucket/masks/a").id == id_of(masks[0])


@pytest.mark.parametrize("what", [r"\S+objects/\w+\.msk", r"\S+objects/\w+\.md", r"\S+index/task.json"])
def test_a_push_that_is_killed_leaves_the_old_state(s3: Proxy, masks: list[Path], what: str) -> None:
    maskhub.push(masks[0], "s3://bucket/masks", name="task")
    s3.faults.append(Fault(f"PUT {what}", after=1200, hold=True))  # in the middle of the body
    process = PROCESSES.Process(target=_push, args=(masks[1], dict(os.environ)))
    process.start()
    assert s3.held.wait(60)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (listed,) = maskhub.list_masks("s3://bucket/masks")
    assert listed.entry is not None
    assert listed.entry.id == id_of(masks[0])
    assert maskhub.pull("s3://bucket/masks/task").id == id_of(masks[0])
    maskhub.push(masks[1], "s3://bucket/masks", name="task", force=True)
    assert maskhub.pull("s3://bucket/masks/task").id == id_of(masks[1])


def _push(mask: Path, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    maskhub.push(mask, "s3://bucket/masks", name="task", force=True)


def _pull(output: Path, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    maskhub.pull("s3://bucket/masks/task", output)


def start(target: Any, *arguments: object) -> Any:
    process = PROCESSES.Process(target=target, args=(*arguments, dict(os.environ)))
    process.start()
    return process


def test_eight_pulls_at_once_are_one_download(s3: Proxy, masks: list[Path], tmp_path: Path) -> None:
    maskhub.push(masks[0], "s3://bucket/masks", name="task")
    s3.requests.clear()
    outputs = [tmp_path / f"out-{i}.msk" for i in range(8)]
    pulls = [start(_pull, output) for output in outputs]
    for process in pulls:
        process.join(120)
    assert [process.exitcode for process in pulls] == [0] * 8
    assert {path.read_bytes() for path in outputs} == {masks[0].read_bytes()}
    assert len([line for line in s3.requests if re.match(r"GET \S+objects/\w+\.msk", line)]) == 1


def test_writers_at_once(s3: Proxy, masks: list[Path]) -> None:
    pushes = [start(_push, masks[i % 4]) for i in range(8)]
    for process in pushes:
        process.join(120)
    assert [process.exitcode for process in pushes] == [0] * 8
    (listed,) = maskhub.list_masks("s3://bucket/masks")
    assert listed.entry is not None
    assert maskhub.pull("s3://bucket/masks/task").id == listed.entry.id in set(map(id_of, masks))


@pytest.mark.slow
def test_faults_at_random(s3: Proxy, masks: list[Path], tmp_path: Path) -> None:
    """Resets and truncations at any byte, and kills at any time: the state is one of two, and a retry succeeds."""
    known = {id_of(path): path for path in masks[:2]}
    maskhub.push(masks[0], "s3://bucket/masks", name="task")
    rng = random.Random(6)
    broken = 0
    for number in range(12):
        s3.faults[:] = [
            Fault(
                rng.choice(["PUT", "GET", "HEAD", r"\w+ \S+objects", r"\w+ \S+index"]),
                after=rng.randrange(3000),
                answer=rng.random() < 0.5,
                times=rng.choice([1, 3, 20]),
            )
        ]
        output = tmp_path / f"{number}.msk"
        process = start(_push, masks[number % 2]) if number % 3 else start(_pull, output)
        process.join(rng.random() * 3)
        process.kill()
        process.join(60)
        broken += process.exitcode != 0
        s3.faults.clear()
        if output.exists():
            MaskFile(output).verify()
        maskhub.pull("s3://bucket/masks/task", output, force=True)
        assert output.read_bytes() == known[id_of(output)].read_bytes()
        maskhub.push(masks[number % 2], "s3://bucket/masks", name="task", force=True)
        assert maskhub.pull("s3://bucket/masks/task").id == id_of(masks[number % 2])
    assert broken


def test_a_server_that_is_gone(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    message = failed(run("info", "s3://bucket/x.msk"))
    assert message.startswith("s3://bucket/x.msk: cannot be read: Could not connect to the endpoint URL")
