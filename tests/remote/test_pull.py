"""``maskhub pull``, and every command on masks that lie on a Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, HubRevision
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.remote.conftest import TestHub
from tests.remote.keys import pair
from tests.waiting import until


def blobs(hub: TestHub) -> list[Path]:
    """The large files in the Hub's cache, which are called by their SHA-256."""
    return [path for path in hub.folder.glob("hf/hub/models--*/blobs/*") if len(path.name) == 64]


@pytest.fixture
def there(hub: TestHub, mask_path: Path) -> bytes:
    """A mask at ``alice/masks``; its content."""
    content = mask_path.read_bytes()
    hub.put("alice/masks", spam__msk=content, README__md=b"# Masks\n")
    return content


def test_into_the_cache_and_into_a_file(hub: TestHub, there: bytes, maskset: MaskSet) -> None:
    data = json.loads(hub("pull", "alice/masks", "--json", token=None).out)
    assert (data["id"], data["bytes"], data["base"]) == (maskset.id, len(there), None)
    assert data["address"].startswith("alice/masks/spam.msk@")
    assert Path(data["path"]).read_bytes() == there
    assert Path(data["path"]).resolve() in blobs(hub)
    ran = hub("pull", "alice/masks/spam.msk@main", "-o", "x.msk", token=None)
    assert ran.status == 0
    assert ran.out.startswith("x.msk\n")
    assert ran.stderr == "Next: maskhub apply tiny-bert x.msk\n"
    assert (hub.folder / "x.msk").read_bytes() == there
    ran = hub("pull", "alice/masks", "-o", "x.msk", token=None)
    assert ran.status == 1
    assert "x.msk: the output file exists" in ran.err
    assert hub("pull", "alice/masks", "-o", "x.msk", "--force", token=None).status == 0


def test_every_command_takes_it(hub: TestHub, there: bytes, base_folder: Path, maskset: MaskSet) -> None:
    for address in ("alice/masks", "alice/masks/spam", "alice/masks/spam.msk@main", "hf://alice/masks/spam.msk"):
        assert hub("info", address, "-q").out == maskset.id + "\n"
    assert hub("verify", "alice/masks", "--base", base_folder).status == 0
    assert hub("apply", base_folder, "alice/masks", "-q").out == "masks\n"
    assert hub("apply", base_folder, "alice/masks/spam@main", "-q").out == "spam\n"
    assert hub("pack", "alice/masks/spam.msk@main", "--codec", "zstd", "-q").out == "spam.msk\n"
    assert hub("export", "alice/masks", "--to", "npz", "-o", "x.npz").status == 0
    script = "import maskhub; print(maskhub.open('alice/masks').id)"
    assert hub.program([sys.executable, "-c", script]).stdout == maskset.id + "\n"
    (hub.folder / "alice" / "masks").mkdir(parents=True)  # what is here is meant
    assert hub("info", "alice/masks").status == 1


def test_a_pipeline_from_the_hub(hub: TestHub, tiny_bert: Path, tmp_path: Path) -> None:
    save(tiny.tiny_maskset(tiny_bert), tmp_path / "x.msk")
    hub.put("alice/masks", x__msk=(tmp_path / "x.msk").read_bytes())
    script = """if True:
        import sys, maskhub
        (answer,) = maskhub.pipeline("alice/masks", base=sys.argv[1])("free prize")
        model = maskhub.load_model(sys.argv[1], "alice/masks/x.msk")
        print(answer["label"], type(model).__name__)
    """
    ran = hub.program([sys.executable, "-c", script, str(tiny_bert)])
    assert ran.stdout.split()[0] in ("ham", "spam"), ran.stderr
    assert ran.stdout.split()[1] == "BertForSequenceClassification"
    assert len(blobs(hub)) == 1  # what is needed whole comes through the cache


def test_live_tasks_from_the_hub(hub: TestHub, tiny_bert: Path, tmp_path: Path) -> None:
    """All masks of a repo, one of it, and several by name; each is downloaded once."""
    masks = {name: tiny.tiny_maskset(tiny_bert, seed=seed) for seed, name in enumerate(("a", "b"))}
    for name, maskset in masks.items():
        save(maskset, tmp_path / f"{name}.msk")
    hub.put("alice/masks", **{f"{name}__msk": (tmp_path / f"{name}.msk").read_bytes() for name in masks})
    script = """if True:
        import sys, json, maskhub
        ways = ["alice/masks", "alice/masks/b.msk", {"x": "alice/masks/b.msk", "y": "alice/masks/a.msk"}]
        live = [maskhub.load_tasks(sys.argv[1], way) for way in ways]
        print(json.dumps([{name: tasks.mask(name).id for name in tasks} for tasks in live]))
        live[0].load_task("alice/masks/a.msk", "again")
        print(live[0].predict("free prize", "again") == live[0].predict("free prize", "a"))
    """
    hub.requests()
    ran = hub.program([sys.executable, "-c", script, str(tiny_bert)])
    assert ran.returncode == 0, ran.stderr
    told, same = ran.stdout.splitlines()
    a, b = masks["a"].id, masks["b"].id
    assert json.loads(told) == [{"a": a, "b": b}, {"b": b}, {"x": b, "y": a}]
    assert same == "True"
    assert len(blobs(hub)) == 2


def test_info_reads_little(hub: TestHub, tmp_path: Path) -> None:
    """Of a megabyte under 20 KB, all answers counted; and nothing stays in the cache."""
    tiny.megabyte(tmp_path / "big.msk")
    hub.put("alice/big", big__msk=(tmp_path / "big.msk").read_bytes())
    hub.requests()
    ran = hub("info", "alice/big", "--tensors")
    assert ran.status == 0, ran.err
    assert "8,410,000" in ran.out
    log = hub.requests()
    assert sum(request["sent"] for request in log) < 20_000
    assert len(log) == 3  # which masks, which commit and where, the bytes
    assert [r["auth"] for r in log] == [True, True, False]  # the CDN gets no token
    assert hub("info", "alice/big/big").status == 0
    assert [r["auth"] for r in hub.requests()] == [True, False]  # two for a mask that is named
    # Later parts are asked of the Hub, as the CDN's places are not for long.
    script = "import maskhub; print(next(iter(maskhub.open('alice/big/big').values())).bits.size)"
    assert hub.program([sys.executable, "-c", script]).returncode == 0
    assert [r["auth"] for r in hub.requests()] == [True, False, True, False]
    assert blobs(hub) == []
    # What is needed whole comes through the cache; then one look at the Hub is enough.
    assert hub("verify", "alice/big/big").status == 0
    assert len(blobs(hub)) == 1
    hub.requests()
    assert hub("info", "alice/big/big").status == 0
    assert [request["line"].partition(" ")[0] for request in hub.requests()] == ["HEAD"]


def test_a_private_mask_is_read_with_the_token_only(hub: TestHub, there: bytes) -> None:
    hub.control(repos={"alice/masks": {"private": True}})
    assert hub("info", "alice/masks", token="hf_bob").status == 1
    assert hub("info", "alice/masks", token=None).status == 1
    assert hub("info", "alice/masks", "--token", "hf_alice", token=None).status == 0
    assert hub("verify", "alice/masks", "--token", "hf_alice", token=None).status == 0


def test_the_token_is_for_parents_too(hub: TestHub, there: bytes, maskset: MaskSet, tmp_path: Path) -> None:
    hub.control(repos={"alice/masks": {"private": True}})
    save(maskset, tmp_path / "child.msk", codec="delta", parent=maskset)
    for command in (
        ("verify", "child.msk"), ("push", "child.msk", "alice/child"), ("pull", "alice/child"),
        ("pack", "child.msk", "-o", "again.msk"),
    ):  # fmt: skip
        asked = (*command, "--parent", "alice/masks/spam", "--token", "hf_alice")
        ran = hub(*asked, token=None)
        assert ran.status == 0, ran.err


def test_a_pull_takes_few_requests_more_than_hf_download(hub: TestHub, tmp_path: Path) -> None:
    tiny.megabyte(tmp_path / "big.msk")
    hub.put("alice/one", big__msk=(tmp_path / "big.msk").read_bytes())
    hub.put("alice/two", big__msk=(tmp_path / "big.msk").read_bytes() + b"")
    hub.requests()
    ran = hub.program([sys.executable, "-m", "huggingface_hub.cli.hf", "download", "alice/one", "big.msk"])
    assert ran.returncode == 0, ran.stderr
    theirs = hub.lines()
    assert hub("pull", "alice/two").status == 0
    ours = hub.lines()
    assert len(ours) <= len(theirs) + 3, (ours, theirs)


def test_eight_at_once_download_it_once(hub: TestHub, tmp_path: Path) -> None:
    tiny.megabyte(tmp_path / "big.msk")
    content = (tmp_path / "big.msk").read_bytes()
    hub.put("alice/big", big__msk=content)
    hub.requests()
    command = [sys.executable, "-m", "maskhub_cli", "pull", "alice/big", "-q"]
    running = [
        subprocess.Popen(command, cwd=tmp_path, env=hub.environment(), stdout=-1, stderr=-1, text=True)
        for _ in range(8)
    ]
    paths = set()
    for one in running:
        out, err = one.communicate(timeout=120)
        assert (one.returncode, err) == (0, "")
        paths.add(out.strip())
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == content
    assert sum(line.startswith("GET /cdn/") for line in hub.lines()) == 1


def test_offline_from_the_cache(hub: TestHub, there: bytes, maskset: MaskSet) -> None:
    offline = {"HF_HUB_OFFLINE": "1"}
    for command in ("pull", "info", "verify"):
        ran = hub(command, "alice/masks/spam", **offline)
        assert ran.status == 1
        assert ran.stderr.count("\n") == 1
        assert "alice/masks/spam.msk: not in the Hub's cache, and offline mode is on. Unset HF_HUB_OFFLINE." in ran.err
    assert hub("pull", "alice/masks").status == 0
    hub.requests()
    for address in ("alice/masks", "alice/masks/spam"):
        assert hub("pull", address, "-o", "x.msk", "--force", **offline).status == 0
        assert hub("info", address, "-q", **offline).out == maskset.id + "\n"
        assert hub("verify", address, **offline).status == 0
    assert hub.requests() == []
    # So it is where the Hub is down.
    for faults in ([{"kind": "reset", "times": 99}], [{"kind": "status", "times": 99}]):
        hub.control(faults=faults)
        assert hub("pull", "alice/masks/spam").status == 0
        assert hub("info", "alice/masks", "-q").out == maskset.id + "\n"


def test_a_damaged_copy_in_the_cache_is_fetched_anew(hub: TestHub, there: bytes) -> None:
    for damaged in (there[:-1] + b"\xff", there[:1000], b"", bytes(len(there))):
        assert hub("pull", "alice/masks").status == 0
        (blob,) = blobs(hub)
        blob.write_bytes(damaged)
        assert hub("info", "alice/masks/spam").status == 1
        ran = hub("pull", "alice/masks", "-o", "x.msk", "--force")
        assert ran.status == 0, ran.err
        assert (hub.folder / "x.msk").read_bytes() == blob.read_bytes() == there


def test_a_mask_damaged_on_the_hub(hub: TestHub, there: bytes) -> None:
    for damaged in (there[:-1] + b"\xff", there[:1000], b"\0text"):
        hub.put("alice/masks", spam__msk=damaged)
        ran = hub("pull", "alice/masks", "-o", "x.msk")
        assert (ran.status, ran.stderr.count("\n")) == (1, 1), ran.stderr
        assert not (hub.folder / "x.msk").exists()


def test_the_answer_breaks_off(hub: TestHub, there: bytes, tmp_path: Path) -> None:
    """The client goes on where the connection ended, in pieces of 10 MB; what is too short for good is refused."""
    tiny.megabyte(tmp_path / "big.msk", 24)
    content = (tmp_path / "big.msk").read_bytes()
    hub.put("alice/big", big__msk=content)
    hub.control(faults=[{"kind": "truncate", "match": "GET /cdn/", "times": 1}])
    hub.requests()
    ran = hub("pull", "alice/big", "-o", "x.msk")
    assert ran.status == 0, ran.err
    assert (tmp_path / "x.msk").read_bytes() == content
    sent = [request["sent"] for request in hub.requests() if "/cdn/" in request["line"]]
    assert len(sent) == 2
    assert sum(sent) < len(content) + (10 << 20)
    for blob in blobs(hub):
        blob.unlink()
    hub.control(faults=[{"kind": "short", "match": "GET /cdn/", "times": 99}])
    ran = hub("pull", "alice/big", "-o", "y.msk")
    assert (ran.status, ran.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "y.msk").exists()
    assert ran.err == ("Error: alice/big: cannot be reached, or broke off: the file ended early. Run it again.")
    hub.control(faults=[{"kind": "wrong", "match": "GET /cdn/", "times": 1}])
    assert hub("pull", "alice/big", "-o", "y.msk").status == 0
    assert (tmp_path / "y.msk").read_bytes() == content


@pytest.fixture
def based(hub: TestHub, base_folder: Path, base: Checkpoint, tmp_path: Path) -> bytes:
    """A base on the Hub, and a mask that knows it from there."""
    weights = (base_folder / "model.safetensors").read_bytes()
    hub.put("base/tiny", model__safetensors=weights, config__json=(base_folder / "config.json").read_bytes())
    commit = hub.control()["repos"]["base/tiny"]["refs"]["main"]
    made = tiny.tiny_maskset(base)
    known = HubRevision("base/tiny", commit, {"model.safetensors": hashlib.sha256(weights).hexdigest()})
    bound = BaseBinding("tiny", made.base.root, made.base.tensors, made.base.parameter_prefix, {}, known)
    save(dataclasses.replace(made, base=bound), tmp_path / "mask.msk")
    hub.put("alice/masks", spam__msk=(tmp_path / "mask.msk").read_bytes())
    return weights


def test_the_base_on_the_hub_is_checked_by_its_hashes(hub: TestHub, based: bytes, base_folder: Path) -> None:
    hub.requests()
    ran = hub("pull", "alice/masks", "--base", "base/tiny")
    assert ran.status == 0, ran.err
    assert "base/tiny: 1 files on the Hub have the SHA-256 that the mask names" in ran.out
    assert not any("/base/tiny/resolve/" in line for line in hub.lines())  # nothing of it was downloaded
    assert hub("pull", "alice/masks", "--base", base_folder).status == 0
    hub.put("base/tiny", model__safetensors=based[:-1] + b"\x7f")
    ran = hub("pull", "alice/masks", "--base", "base/tiny", "-o", "x.msk")
    assert (ran.status, ran.stderr.count("\n")) == (1, 1)
    assert "and base/tiny has other files: model.safetensors. Name that revision: --base base/tiny@" in ran.err
    commit = ran.err.rpartition("@")[2]
    assert not (hub.folder / "x.msk").exists()
    assert hub("pull", "alice/masks", "--base", f"base/tiny@{commit}").status == 0, commit


def test_a_wrong_base_here(hub: TestHub, there: bytes, tmp_path: Path) -> None:
    other = tiny.write_base(tmp_path / "other", seed=9)
    ran = hub("pull", "alice/masks", "--base", other, "-o", "x.msk")
    assert (ran.status, ran.stderr.count("\n")) == (1, 1)
    assert "attention" in ran.err
    assert not (tmp_path / "x.msk").exists()
    ran = hub("pull", "alice/masks", "--base", "base/unknown", "-o", "x.msk")
    assert ran.status == 1
    assert "does not tell which files on the Hub its base has" in ran.err


def test_resuming_after_a_kill(hub: TestHub, there: bytes) -> None:
    """A process that is killed while it downloads leaves nothing that a later one takes for the mask."""
    hub.control(faults=[{"kind": "slow", "match": "GET /cdn/", "times": 1}])
    command = [sys.executable, "-m", "maskhub_cli", "pull", "alice/masks", "-o", "x.msk"]
    with subprocess.Popen(command, cwd=hub.folder, env=hub.environment()) as process:
        until(lambda: any("/cdn/" in line for line in hub.lines()), process)
        process.kill()
    assert not (hub.folder / "x.msk").exists()
    assert blobs(hub) == []
    assert hub("pull", "alice/masks", "-o", "x.msk").status == 0
    assert (hub.folder / "x.msk").read_bytes() == there


def test_signatures(hub: TestHub, mask_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub.folder)
    (private, public), (_, other) = pair("mine"), pair("other")
    assert hub("push", mask_path, "alice/masks").status == 0
    ran = hub("pull", "alice/masks", "--require-signature", public, "-o", "x.msk")
    assert (ran.status, ran.stderr.count("\n")) == (1, 1)
    assert "not signed" in ran.err
    assert "nothing changed" not in hub("push", mask_path, "alice/masks", "--sign", private).out
    assert "nothing changed" in hub("push", mask_path, "alice/masks", "--sign", private).out
    ran = hub("pull", "alice/masks", "--require-signature", other, "-o", "x.msk")
    assert (ran.status, ran.stderr.count("\n")) == (1, 1)
    assert "another key" in ran.err
    assert not (hub.folder / "x.msk").exists()
    assert hub("pull", "alice/masks", "--require-signature", public, "-o", "x.msk").status == 0
    (blob,) = blobs(hub)
    blob.write_bytes(mask_path.read_bytes()[:-1] + b"\xff")
    assert hub("pull", "alice/masks", "--require-signature", public, "-o", "x.msk", "--force").status == 0
    assert (hub.folder / "x.msk").read_bytes() == mask_path.read_bytes()
