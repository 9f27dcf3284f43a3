"""The commands on masks at URLs, from a real server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import maskhub
from maskhub.masks.mask import MaskSet
from tests.cli.conftest import Run, fields
from tests.storage import rangeserver
from tests.storage.rangeserver import RangeServer


@pytest.fixture
def server(mask_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RangeServer() as server:
        server.files["a/spam.msk"] = mask_path.read_bytes()
        yield server


def test_info(program: Run, server: RangeServer, maskset: MaskSet) -> None:
    url = server.url("a/spam.msk")
    ran = program("info", server.url("a/spam.msk", login="bob:secret@") + "?token=hidden")
    assert ran.status == 0
    assert ran.out.splitlines()[0] == url
    assert fields(ran.out)["id"] == maskset.id
    assert ran.err == f"Next: maskhub apply tiny-bert {url}"
    assert server.requests[0].path == "/a/spam.msk?token=hidden"
    data = json.loads(program("info", url, "--json").out)
    assert (data["file"], data["id"]) == (url, maskset.id)


def test_verify(run: Run, server: RangeServer, base_folder: Path) -> None:
    url = server.url("a/spam.msk")
    ran = run("verify", url, "--base", base_folder)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0] == f"{url}: verified"
    server.files["a/spam.msk"] = server.files["a/spam.msk"][:-1] + b"\xff"
    ran = run("verify", url)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        f"Error: {url}: the file was changed or damaged after it was written (seal). "
        "Get the file again from where it came."
    )


def test_apply_names_its_output_by_the_url(run: Run, server: RangeServer, base_folder: Path, mask_path: Path) -> None:
    ran = run("apply", base_folder, server.url("a/spam.msk?token=hidden"), "-q")
    assert (ran.status, ran.out, ran.err) == (0, "spam\n", "")
    assert run("apply", base_folder, mask_path, "-o", "local").status == 0
    assert Path("spam/model.safetensors").read_bytes() == Path("local/model.safetensors").read_bytes()


def test_pack_codes_it_anew(run: Run, server: RangeServer, maskset: MaskSet) -> None:
    ran = run("pack", server.url("a/spam.msk?token=hidden"), "--codec", "bits", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "spam.msk\n", "")
    assert maskhub.open("spam.msk").id == maskset.id


def test_evaluate(run: Run, server: RangeServer, tiny_bert: Path) -> None:
    from maskhub.container.writer import save
    from tests import tiny

    save(tiny.tiny_maskset(tiny_bert), "x.msk")
    server.files["x.msk"] = Path("x.msk").read_bytes()
    Path("test.csv").write_text("text,label\nfree prize,spam\nwho is it,ham\n")
    url = server.url("x.msk")
    there, here = (run("evaluate", tiny_bert, mask, "--file", "test.csv") for mask in (url + "?t=1", "x.msk"))
    assert there.status == 0, there.err
    assert there.out.splitlines()[0] == f"{url} on 2 examples of test.csv"
    assert fields(there.out) == fields(here.out)
    assert server.given == len(server.files["x.msk"])


def test_errors_are_one_line(run: Run, server: RangeServer, base_folder: Path) -> None:
    server.answers[0] = rangeserver.status(403)
    for arguments in (["info"], ["verify"], ["apply", base_folder], ["pack"]):
        ran = run(*arguments, server.url("b/spam.msk", login="bob:secret@") + "?token=hidden")
        assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1)
        assert ran.err == (
            f"Error: {server.url('b/spam.msk')}: the server answers 403 Forbidden. "
            "A login or a token is missing, wrong or too old."
        )
    assert os.listdir() == []
