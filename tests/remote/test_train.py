"""A training whose base others know by another name, and whose mask goes to the Hub when it is learned."""

from __future__ import annotations

import sys
from pathlib import Path

import maskhub
from tests import toy
from tests.remote.conftest import TestHub


def test_the_base_is_named_and_the_mask_pushed(hub: TestHub, tiny_bert: Path, tmp_path: Path) -> None:
    toy.write_task(tmp_path)
    weights = (tiny_bert / "model.safetensors").read_bytes()
    hub.put("ann/tiny", model__safetensors=weights)
    command = [sys.executable, "-m", "maskhub_cli", "train", str(tiny_bert), "--train-file", "train.jsonl", "-o", "run"]
    options = ["--max-length", "32", "--epochs", "0.2", "--base-name", "ann/tiny", "--push-to-hub", "alice/toy", "-q"]
    ran = hub.program([*command, *options])
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "run/mask.msk\n", "")
    assert hub.files("alice/toy")["mask.msk"] == (tmp_path / "run" / "mask.msk").read_bytes()
    base = maskhub.open(tmp_path / "run" / "mask.msk").base
    assert base.name == "ann/tiny"
    assert base.hub is not None
    assert base.hub.commit == hub.control()["repos"]["ann/tiny"]["refs"]["main"]
    assert hub("pull", "alice/toy", "--base", "ann/tiny").status == 0  # known by its files, not downloaded
    warned = hub.program([*command[:-1], "again", "--max-length", "32", "--dry-run"])
    assert f"Warning: others cannot find the base {tiny_bert}: name it by --base-name user/repo\n" in warned.stderr
    refused = hub.program([*command[:-1], "again", "--push-to-hub", "./here"])
    assert (refused.returncode, "push_to_hub: './here' is no repo on the Hub" in refused.stderr) == (2, True)
