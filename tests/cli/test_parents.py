"""Masks coded against others, by the commands."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.container import cache
from maskhub.container.writer import save
from maskhub.masks.mask import Mask, MaskSet
from tests.cli.conftest import Run


def changed(maskset: MaskSet, seed: int) -> MaskSet:
    """The mask set with one weight in a hundred changed."""
    rng = np.random.default_rng(seed)
    masks = {n: Mask.from_bool(m.to_bool() ^ (rng.random(m.shape) < 0.01)) for n, m in maskset.masks.items()}
    return dataclasses.replace(maskset, masks=masks, initial=None)


@pytest.fixture
def chain(maskset: MaskSet, tmp_path: Path) -> list[Path]:
    """Three masks: b.msk is coded against a.msk, c.msk against b.msk."""
    first, second, third = maskset, changed(maskset, 1), changed(maskset, 2)
    paths = [tmp_path / f"{name}.msk" for name in "abc"]
    save(first, paths[0])
    save(second, paths[1], codec="delta", parent=first)
    save(third, paths[2], codec="delta", parent=second)
    return paths


def test_a_missing_parent_is_named_with_the_cure(run: Run, chain: list[Path]) -> None:
    ran = run("verify", chain[1])
    wanted = maskhub.open(chain[0]).id
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        f"Error: {chain[1]}: coded against the mask {wanted}, which is not at hand. Name its file: --parent FILE."
    )
    ran = run("verify", chain[2], "--parent", chain[1])  # which needs a.msk
    assert ran.err.startswith(f"Error: {chain[1]}: coded against the mask {wanted}, which is not at hand.")
    ran = run("verify", chain[2], "--parent", chain[1], "--parent", chain[0])
    assert (ran.status, ran.out.splitlines()[0]) == (0, f"{chain[2]}: verified")


def test_info_shows_the_chain(run: Run, chain: list[Path]) -> None:
    first, second = (maskhub.open(path).id for path in chain[:2])
    told = json.loads(run("info", chain[2], "--json").out)
    assert told["chain"] == [[second, None]]
    told = json.loads(run("info", chain[2], "--parent", chain[0], "--parent", chain[1], "--json").out)
    assert told["chain"] == [[second, str(chain[1])], [first, str(chain[0])]]
    assert f"{second} (not at hand)" in run("info", chain[2]).out


def test_pack_codes_against_a_parent_and_back(run: Run, chain: list[Path], tmp_path: Path) -> None:
    alone, against = tmp_path / "alone.msk", tmp_path / "against.msk"
    parents = ("--parent", chain[1], "--parent", chain[0])
    wanted = maskhub.open(chain[2]).id
    save(maskhub.open(chain[2], chain[:2]), alone)
    ran = run("pack", alone, *parents, "--codec", "delta", "-o", against)
    assert ran.status == 0, ran.err
    told = json.loads(run("info", against, "--json").out)
    assert (told["id"], told["codecs"].keys()) == (wanted, {"delta"})
    assert run("verify", against, *parents, "-q").out == f"{wanted}\n"
    assert "needs no parent" not in ran.err
    back = run("pack", against, *parents, "--codec", "bits", "-o", "back.msk")
    assert "The file needs no parent: it is coded without one." in back.err
    assert run("verify", "back.msk", "-q").out == f"{wanted}\n"


def test_a_cached_parent_is_found(run: Run, chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))
    parent = maskhub.open(chain[1], [chain[0]])
    kept = tmp_path / "cache" / f"{parent.id}.msk"
    ran = run("verify", chain[1], "--parent", chain[0], "--cache", "--json")
    assert json.loads(ran.out)["cached"] == str(kept)
    assert kept == cache.path(parent.id)
    opened = maskhub.open(chain[1], [chain[0]], cached=True)
    assert opened.id == parent.id
    assert {m["codec"] for m in json.loads(run("info", kept, "--tensors", "--json").out)["masks"]} == {"bits"}
    assert run("verify", chain[2]).status == 0
    assert json.loads(run("info", chain[2], "--json").out)["chain"] == [[parent.id, str(kept)]]


def test_a_parent_may_be_of_another_base(run: Run, chain: list[Path], maskset: MaskSet, tmp_path: Path) -> None:
    digests = dict.fromkeys(maskset.base.tensors, "a" * 64)
    parameters = {name: maskset.base.parameter(name) for name in digests}
    other = MaskSet(maskset.base.of("other", digests, parameters, None), maskset.masks)
    save(other, tmp_path / "other.msk")
    ran = run("pack", chain[0], "--parent", tmp_path / "other.msk", "--codec", "delta", "-o", tmp_path / "x.msk")
    assert ran.status == 0, ran.err
    assert (
        run("verify", tmp_path / "x.msk", "--parent", tmp_path / "other.msk", "-q").out
        == run("verify", chain[0], "-q").out
    )
    assert json.loads(run("info", tmp_path / "x.msk", "--json").out)["chain"] == [[other.id, None]]
