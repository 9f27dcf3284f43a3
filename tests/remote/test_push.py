"""``maskhub push`` to a Hub, by the real client."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.remote.conftest import TestHub
from tests.remote.keys import pair


def front(card: bytes) -> dict[str, object]:
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", card.decode(), re.DOTALL)
    assert match
    return yaml.safe_load(match[1])  # type: ignore[no-any-return]


def test_a_new_repo_gets_the_mask_and_its_card_in_one_commit(hub: TestHub, hub_mask: Path, maskset: MaskSet) -> None:
    ran = hub("push", hub_mask, "alice/masks")
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0] == "alice/masks/spam.msk"
    assert ran.stderr == "Next: maskhub pull alice/masks/spam.msk\n"
    repo = hub.control()["repos"]["alice/masks"]
    assert (repo["commits"], repo["private"]) == (2, False)  # the first one makes the repo
    files = hub.files("alice/masks")
    assert files["spam.msk"] == hub_mask.read_bytes()
    card = front(files["README.md"])
    assert card["library_name"] == "maskhub"
    assert card["tags"] == ["maskhub"]
    assert (card["base_model"], card["base_model_relation"]) == ("base/tiny", "adapter")
    assert card["pipeline_tag"] == "text-classification"
    assert card["model-index"] == [
        {
            "name": "masks",
            "results": [
                {
                    "task": {"type": "text-classification"},
                    "dataset": {"name": "evaluation examples", "type": "unknown"},
                    "metrics": [
                        {
                            "type": "accuracy",
                            "value": 0.9,
                            "name": "accuracy, spam.msk",
                            "args": {"mask": "spam.msk"},
                        }
                    ],
                }
            ],
        }
    ]
    text = files["README.md"].decode()
    assert (
        f"|spam.msk|text-classification|base/tiny|{hub_mask.stat().st_size:,}|420|1.086|6.67%|accuracy 0.9000|" in text
    )
    usage = text.partition("```bash\n")[2].partition("```")[0].splitlines()
    assert usage == [
        "pip install maskhub",
        "maskhub pull alice/masks --base base/tiny",
        "maskhub apply base/tiny alice/masks",
    ]


def test_what_is_there_already_is_left_alone(hub: TestHub, mask_path: Path) -> None:
    assert hub("push", mask_path, "alice/masks").status == 0
    before = hub.control()["repos"]
    ran = hub("push", mask_path, "alice/masks")
    assert ran.status == 0
    assert "alice/masks/task.msk: is there already, nothing changed" in ran.out
    assert json.loads(hub("push", mask_path, "alice/masks", "--json").out)["changed"] is False
    assert hub.control()["repos"] == before


def test_several_masks_under_names(hub: TestHub, mask_path: Path, base: Checkpoint, tmp_path: Path) -> None:
    save(tiny.tiny_maskset(base, seed=5), tmp_path / "other.msk")
    assert hub("push", mask_path, "alice/masks", "--name", "spam").status == 0
    assert hub("push", tmp_path / "other.msk", "alice/masks/toxic/v2", "-q").out == "alice/masks/toxic/v2.msk\n"
    files = hub.files("alice/masks")
    assert {"spam.msk", "toxic/v2.msk"} <= set(files)
    card = front(files["README.md"])
    assert [mask["name"] for mask in card["maskhub"]] == ["spam.msk", "toxic/v2.msk"]  # type: ignore[attr-defined]
    metrics = card["model-index"][0]["results"][0]["metrics"]  # type: ignore[index]
    assert [metric["args"]["mask"] for metric in metrics] == ["spam.msk", "toxic/v2.msk"]
    for command in ("pull", "info"):
        ran = hub(command, "alice/masks")
        assert ran.status == 1
        assert ran.err == (
            "Error: alice/masks: the repo has several masks: spam.msk, toxic/v2.msk. Name one: alice/masks/spam.msk"
        )
    assert hub("pull", "alice/masks/toxic/v2", "-o", "x.msk").status == 0
    assert (tmp_path / "x.msk").read_bytes() == (tmp_path / "other.msk").read_bytes()
    assert hub("push", mask_path, "alice/masks/a", "--name", "b").status == 2


OWN = b"""---\r
license: mit\r
language:\r
- en\r
tags:\r
- mine\r
library_name: transformers\r
pipeline_tag: fill-mask\r
odd: [1, {a: b}]\r
model-index:\r
- name: Mine\r
  results:\r
  - task: {type: fill-mask}\r
    dataset: {type: wiki, name: Wiki}\r
    metrics: [{type: perplexity, value: 3.5}]\r
---\r
# My title\r
\r
My own words, with <!-- a comment -->.\r
"""


def test_a_card_keeps_its_own_words(hub: TestHub, mask_path: Path, base: Checkpoint, tmp_path: Path) -> None:
    hub.put("alice/masks", README__md=OWN)
    assert hub("push", mask_path, "alice/masks").status == 0
    card = hub.files("alice/masks")["README.md"]
    data = front(card)
    assert (data["license"], data["language"], data["odd"]) == ("mit", ["en"], [1, {"a": "b"}])
    assert (data["library_name"], data["pipeline_tag"], data["tags"]) == (
        "transformers",
        "fill-mask",
        ["mine", "maskhub"],
    )
    assert data["model-index"][0]["name"] == "Mine"  # type: ignore[index]
    types = [r["metrics"][0]["type"] for r in data["model-index"][0]["results"]]  # type: ignore[index]
    assert types == ["perplexity", "accuracy"]
    own = OWN.split(b"---\r\n", 2)[2]
    assert own in card
    assert b"\n" not in card.replace(b"\r\n", b"")

    # What people write around the section stays where it is, and the section is written anew.
    changed = card.replace(b"My own words", b"My own new words") + b"\r\nAn end.\r\n"
    hub.put("alice/masks", README__md=changed)
    save(tiny.tiny_maskset(base, seed=5), tmp_path / "other.msk")
    assert hub("push", tmp_path / "other.msk", "alice/masks").status == 0
    card = hub.files("alice/masks")["README.md"]
    assert b"My own new words" in card
    assert card.endswith(b"\r\nAn end.\r\n")
    assert card.count(b"## Masks") == 1
    assert b"|other.msk|" in card
    assert b"|task.msk|" in card


def test_a_card_that_cannot_be_read_is_not_overwritten(hub: TestHub, mask_path: Path) -> None:
    for broken in (b"---\na: [\n---\ntext", b"---\n- a\n---\n", b"---\nmodel-index: 3\n---\n"):
        hub.put("alice/masks", README__md=broken)
        ran = hub("push", mask_path, "alice/masks")
        assert ran.status == 1
        assert ran.stderr.count("\n") == 1
        assert ran.err.startswith("Error: alice/masks: the metadata of README.md cannot be read: ")
        assert hub.files("alice/masks") == {"README.md": broken}


def test_a_taken_name_needs_force(hub: TestHub, mask_path: Path, base: Checkpoint, tmp_path: Path) -> None:
    assert hub("push", mask_path, "alice/masks").status == 0
    other = tiny.tiny_maskset(base, seed=5)
    save(other, tmp_path / "task.msk")
    ran = hub("push", tmp_path / "task.msk", "alice/masks")
    assert ran.status == 1
    assert ran.stderr.count("\n") == 1
    assert "alice/masks/task.msk: the name is taken by another mask, " in ran.err
    assert "--force" in ran.err
    assert hub.files("alice/masks")["task.msk"] == mask_path.read_bytes()
    assert hub("push", tmp_path / "task.msk", "alice/masks", "--force").status == 0
    card = hub.files("alice/masks")["README.md"]
    assert other.id in card.decode()
    assert card.count(b"|task.msk|") == 1

    # The same mask coded anew may take the place of the old one.
    save(other, tmp_path / "task.msk", codec="zstd", force=True)
    assert hub("push", tmp_path / "task.msk", "alice/masks").status == 0
    assert hub.files("alice/masks")["task.msk"] == (tmp_path / "task.msk").read_bytes()


def test_the_same_weights_with_other_notes_are_another_file(hub: TestHub, mask_path: Path, tmp_path: Path) -> None:
    assert hub("push", mask_path, "alice/masks").status == 0
    maskset = maskhub.open(mask_path)
    other = maskhub.save(dataclasses.replace(maskset, metrics={"accuracy": 0.1}), tmp_path / "other.msk")
    assert maskhub.open(other).id == maskset.id
    before = hub.files("alice/masks")
    ran = hub("push", other, "alice/masks/task")
    assert (ran.status, ran.out, ran.stderr) == (1, "", (
        "Error: alice/masks/task.msk: the name is taken by the same weights with other notes (metrics). "
        "Take another name with --name, or replace it with --force.\n"
    ))  # fmt: skip
    assert hub.files("alice/masks") == before
    assert "is there already" not in hub("push", other, "alice/masks/task", "--force").out
    assert hub.files("alice/masks")["task.msk"] == other.read_bytes()


def test_a_key_that_cannot_be_used_is_found_before_anything_else(hub: TestHub, tmp_path: Path) -> None:
    tiny.megabyte(tmp_path / "big.msk")
    hub.put("alice/big", big__msk=(tmp_path / "big.msk").read_bytes())
    (tmp_path / "junk").write_text("no key")
    hub.requests()
    for key, says in (("none.pem", "none.pem: no such file"), ("junk", "junk: not a p")):
        for command in (
            ("push", "alice/big/big", "alice/copy", "--sign", key),
            ("pull", "alice/big", "-o", "x.msk", "--require-signature", key),
        ):
            ran = hub(*command)
            assert (ran.status, ran.stderr.count("\n")) == (1, 1), ran.stderr
            assert ran.err.startswith(f"Error: {says}")
    assert hub.requests() == []


def test_an_unsigned_mask_is_downloaded_once(hub: TestHub, mask_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub.folder)
    _, public = pair()
    hub.put("alice/masks", spam__msk=mask_path.read_bytes())
    assert "not signed" in hub("pull", "alice/masks", "--require-signature", public).err
    assert sum(line.startswith("GET /cdn/") for line in hub.lines()) == 1


def test_private_revision_pull_request_and_message(hub: TestHub, mask_path: Path) -> None:
    assert hub("push", mask_path, "alice/hidden", "--private").status == 0
    assert hub.control()["repos"]["alice/hidden"]["private"] is True
    assert hub("pull", "alice/hidden", token="hf_bob").status == 1
    assert hub("pull", "alice/hidden", "--token", "hf_alice", token="hf_bob").status == 0

    hub.put("alice/open", README__md=b"# Open\n")
    ran = hub("push", mask_path, "alice/open", "--private")
    assert ran.status == 1
    assert "alice/open: the repo exists, and is public" in ran.err
    ran = hub("push", mask_path, "alice/open", "--create-pr", "--json", token="hf_bob")  # of another user
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["url"].endswith("/alice/open/discussions/1")
    assert hub("pull", json.loads(ran.out)["address"], token="hf_bob").status == 0
    assert set(hub.files("alice/open")) == {"README.md"}
    assert "task.msk" in hub.files("alice/open", "refs/pr/1")
    assert hub("info", "alice/open@refs/pr/1", "-q").status == 0
    assert hub("pull", "hf://alice/open@refs/pr/1/task.msk").status == 0

    assert hub("push", mask_path, "alice/open", "--revision", "trial/2", "--message", "Why not").status == 0
    assert "task.msk" in hub.files("alice/open", "trial/2")
    assert "task.msk" not in hub.files("alice/open")
    assert hub("pull", "alice/open/task@trial/2").status == 0
    assert hub("push", mask_path, "alice/open@trial/2", "-q").out == "alice/open/task.msk@trial/2\n"
    assert hub("push", mask_path, "alice/open@trial/2", "--revision", "main").status == 2


def test_a_push_takes_few_requests_more_than_hf_upload(hub: TestHub, tmp_path: Path) -> None:
    """Counted at the server: a repo that exists, and a mask of a megabyte."""
    tiny.megabyte(tmp_path / "big.msk")
    hub.put("alice/one", README__md=b"# One\n")
    hub.put("alice/two", README__md=b"# Two\n")
    hub.requests()
    upload = [sys.executable, "-m", "huggingface_hub.cli.hf", "upload", "alice/one", "big.msk"]
    ran = hub.program(upload)
    assert ran.returncode == 0, ran.stderr
    theirs = hub.lines()
    assert hub("push", "big.msk", "alice/two").status == 0
    ours = hub.lines()
    assert len(ours) <= len(theirs) + 3, (ours, theirs)
    assert hub.files("alice/one")["big.msk"] == hub.files("alice/two")["big.msk"]


def test_many_push_to_one_repo_at_once(hub: TestHub, base: Checkpoint, tmp_path: Path) -> None:
    """Each commit is built on the one before: no card loses what another one said."""
    for i in range(4):
        save(tiny.tiny_maskset(base, seed=i), tmp_path / f"m{i}.msk")
    commands = [[sys.executable, "-m", "maskhub_cli", "push", f"m{i}.msk", "alice/masks"] for i in range(4)]
    running = [
        subprocess.Popen(c, cwd=tmp_path, env=hub.environment(), stderr=subprocess.PIPE, text=True) for c in commands
    ]
    for one in running:
        _, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
    files = hub.files("alice/masks")
    masks = front(files["README.md"])["maskhub"]
    assert [m["name"] for m in masks] == [f"m{i}.msk" for i in range(4)]  # type: ignore[attr-defined]
    assert all(files[f"m{i}.msk"] == (tmp_path / f"m{i}.msk").read_bytes() for i in range(4))


def test_a_damaged_mask_is_not_pushed(hub: TestHub, mask_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.msk").write_bytes(mask_path.read_bytes()[:-1] + b"\xff")
    assert hub("push", "bad.msk", "alice/masks").status == 1
    assert hub.control()["repos"] == {}
    assert hub.requests() == []
