"""``maskhub list`` of what is on a Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.remote.conftest import TestHub


@pytest.fixture
def filled(hub: TestHub, hub_mask: Path, mask_path: Path) -> None:
    """Masks of two users for two bases, one of them in a repo without a card, and a model that is none."""
    assert hub("push", hub_mask, "alice/one").status == 0
    assert hub("push", mask_path, "alice/two", "--name", "a").status == 0
    assert hub("push", hub_mask, "alice/two", "--name", "b").status == 0
    assert hub("push", mask_path, "alice/three", "--private").status == 0
    assert hub("push", mask_path, "bob/four", token="hf_bob").status == 0
    hub.put("bob/bare", raw__msk=mask_path.read_bytes(), README__md=b"---\ntags: [maskhub]\n---\n")
    hub.put("bob/model", README__md=b"---\nlibrary_name: transformers\n---\n")
    hub.requests()


def names(hub: TestHub, *arguments: object, **variables: str | None) -> list[str]:
    ran = hub("list", *arguments, "-q", **variables)
    assert ran.status == 0, ran.err
    return ran.out.split()


def test_which(hub: TestHub, filled: None) -> None:
    ours = ["alice/one/spam.msk", "alice/three/task.msk", "alice/two/a.msk", "alice/two/b.msk"]
    theirs = ["bob/bare/raw.msk", "bob/four/task.msk"]
    assert names(hub) == ours + theirs
    assert names(hub, token=None) == [*ours[:1], *ours[2:], *theirs]
    assert names(hub, "--author", "bob") == theirs
    assert names(hub, "--search", "OU") == theirs[1:]
    assert names(hub, "--base", "base/tiny") == ["alice/one/spam.msk", "alice/two/b.msk"]
    assert names(hub, "--base", "base/none") == []
    assert names(hub, "--limit", "2") == ours[:2]
    assert names(hub, "alice/two") == ["alice/two/a.msk", "alice/two/b.msk"]
    assert hub("list", "--base", "base/none").out == "No masks found.\n"
    assert "There may be more: --limit 4" in hub("list", "--limit", "2").err
    ran = hub("list", "alice/none")
    assert ran.status == 1
    assert "no repo alice/none on the Hub" in ran.err


def test_what_it_says(hub: TestHub, filled: None, maskset: MaskSet, mask_path: Path) -> None:
    found = {one["address"]: one for one in json.loads(hub("list", "--json").out)}
    assert len(found) == 6
    card, header = found["bob/four/task.msk"]["entry"], found["bob/bare/raw.msk"]["entry"]
    assert card | {"name": "raw.msk"} == header
    assert (card["id"], card["base"], card["root"]) == (maskset.id, "tiny-bert", maskset.base.root)
    assert (card["bytes"], card["weights"], card["task"]) == (mask_path.stat().st_size, 420, "text-classification")
    assert card["metrics"] == {"accuracy": 0.9}
    assert round(card["bits_per_weight"], 4) == 1.0857
    table = hub("list", "--author", "bob").out.splitlines()
    assert table[1].split() == ["mask", "task", "bytes", "metrics", "base", "bits/weight", "sparsity"]
    assert table[2].split() == [
        "bob/bare/raw.msk", "text-classification", f"{mask_path.stat().st_size:,}", "accuracy", "0.9000", "tiny-bert",
        "1.0857", "0.0667",
    ]  # fmt: skip


def test_cards_take_one_request_for_all(hub: TestHub, filled: None) -> None:
    assert len(names(hub, "--author", "alice")) == 4
    assert hub.lines() == ["GET /api/models"]


def test_a_revision_of_a_repo(hub: TestHub, filled: None, mask_path: Path) -> None:
    """What is listed of another revision is called so that it is found, be it told of in the card or not."""
    assert hub("push", mask_path, "bob/bare/new@next", token="hf_bob").status == 0
    assert names(hub, "bob/bare") == ["bob/bare/raw.msk"]
    assert names(hub, "bob/bare@next") == ["bob/bare/new.msk@next", "bob/bare/raw.msk@next"]
    assert hub("info", "bob/bare/new.msk@next").status == 0


def test_cards_of_strangers(hub: TestHub, base: Checkpoint, tmp_path: Path, mask_path: Path) -> None:
    """What a card claims is shown as text, and what it claims wrongly is read from the header."""
    card = b'---\ntags: [maskhub]\nmaskhub: [{name: x.msk, id: 7}, "x", {name: "\\e[31m"}]\n---\n'
    hub.put("bob/odd", x__msk=mask_path.read_bytes(), README__md=card)
    hub.put("bob/bad", y__msk=b"no mask\0", README__md=b"---\ntags: [maskhub]\n---\n")
    ran = hub("list")
    assert ran.status == 0
    assert "bob/odd/x.msk" in ran.out
    assert "\x1b" not in ran.out
    assert ran.stderr.startswith("Warning: bob/bad/y.msk: ")
    assert ran.stderr.count("\n") == 2
    save(tiny.tiny_maskset(base, name="x|`$(touch y)`<b>"), tmp_path / "z.msk")
    assert hub("push", "z.msk", "alice/masks").status == 0
    text = hub.files("alice/masks")["README.md"].decode()
    assert "|x\\|\\`\\$(touch y)\\`&lt;b&gt;|" in text
    assert "maskhub apply BASE alice/masks" in text
