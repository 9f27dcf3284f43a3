"""What a parent, and the mask that a checkpoint was built from, are good for, on masks that were really trained."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import open_checkpoint
from tests import tiny
from tests.cli.conftest import Run, fields


@pytest.fixture
def dense(trained: Path, tmp_path: Path) -> Path:
    """The dense checkpoint of the run ``x``."""
    return maskhub.apply(trained / "base", trained / "x" / "mask.msk", tmp_path / "dense")[0].path


def size(name: str) -> int:
    return Path(name).stat().st_size


def test_a_checkpoint_does_not_tell_where_training_began(run: Run, trained: Path, dense: Path) -> None:
    ran = run("extract", trained / "base", dense, "-o", "out.msk")
    assert ran.status == 0
    assert maskhub.open("out.msk").id == maskhub.open(trained / "x" / "mask.msk").id
    assert "Where training began is not known" in ran.err
    assert "--like MASK" in ran.err
    assert "Where training began" not in run("pack", trained / "x", "-o", "again.msk").err


@pytest.mark.parametrize("like", ["x", "x/mask.msk"])
@pytest.mark.parametrize("command", ["extract {base} {dense}", "pack {dense} --base {base}"])
def test_with_the_run_or_its_mask_the_file_is_as_small_as_that(
    run: Run, trained: Path, dense: Path, command: str, like: str
) -> None:
    typed = [*command.format(base=trained / "base", dense=dense).split(), "-o"]
    original = trained / "x" / "mask.msk"
    assert run(*typed, "without.msk").status == 0
    ran = run(*typed, "out.msk", "--like", trained / like)
    assert ran.status == 0, ran.err
    found, wanted = maskhub.open("out.msk"), maskhub.open(original)
    assert (found.id, found.masks, found.initial) == (wanted.id, wanted.masks, wanted.initial)
    assert found.summary().mask_bytes == wanted.summary().mask_bytes
    alone = maskhub.open("without.msk").summary().mask_bytes
    assert alone is not None
    assert wanted.summary().mask_bytes < 0.8 * alone
    assert size("out.msk") <= original.stat().st_size  # which holds metrics and lineage, too
    assert fields(ran.out)["like"] == (
        f"training began as that of {trained / like}: masks of {wanted.summary().mask_bytes:,} bytes, "
        f"and {alone:,} without it"
    )


def test_a_mask_that_did_not_begin_there_is_refused(run: Run, trained: Path, dense: Path, mask_path: Path) -> None:
    base = trained / "base"
    ran = run("extract", base, dense, "--like", mask_path, "-o", "out.msk")
    assert ran.status == 1
    assert "are masks of different bases" in ran.err
    assert run("extract", base, dense, "-o", "plain.msk").status == 0
    ran = run("extract", base, dense, "--like", "plain.msk", "-o", "out.msk")
    assert (ran.status, ran.err) == (
        2, "Error: plain.msk: does not record where training began. Leave --like out."
    )  # fmt: skip
    ran = run("pack", trained / "x", "--like", trained / "y", "-o", "out.msk")
    assert (ran.status, ran.err) == (
        2, f"Error: {trained / 'x'}: records where its training began. Leave --like out."
    )  # fmt: skip
    assert not Path("out.msk").exists()


def test_another_seed_is_refused(trained: Path, dense: Path) -> None:
    """As where the wrong run of several is named: the file would say that training began where it did not."""
    right = maskhub.open(trained / "x" / "mask.msk")
    wrong = dataclasses.replace(right, initial=msgspec.structs.replace(right.initial, seed=1))
    with pytest.raises(ValueError, match="its masks are not changed ones of the initial mask of like"):
        maskhub.extract(trained / "base", dense, "out.msk", like=wrong)
    assert not Path("out.msk").exists()
    assert maskhub.extract(trained / "base", dense, "out.msk", like=right).initial == right.initial


def test_pack_says_why_a_parent_gained_nothing(run: Run, trained: Path) -> None:
    """One with nothing in common."""
    shutil.copy(trained / "x" / "mask.msk", "v2.msk")
    base = open_checkpoint(trained / "base")
    maskhub.save(dataclasses.replace(tiny.tiny_maskset(base, sparsity=0.5), base=maskhub.open("v2.msk").base), "v1.msk")
    ran = run("pack", "v2.msk", "--parent", "v1.msk", "-o", "out.msk")
    assert ran.status == 0
    total, summary = maskhub.diff("v2.msk", "v1.msk").total, maskhub.open("v2.msk").summary()
    assert fields(ran.out)["parent"] == (
        f"0 of 13 masks are coded against v1.msk: alone, each is smaller ({summary.mask_bytes:,} bytes in all); the "
        f"two differ in {total.differing:.2%} of the weights, and {summary.sparsity:.2%} are dropped, of which only "
        "what training changed is stored"
    )
    assert "The file needs no parent" in ran.err
    told = json.loads(run("pack", "v2.msk", "--parent", "v1.msk", "-o", "out.msk", "-f", "--json").out)
    size = summary.mask_bytes
    assert told["gains"] == {"parent": {"masks": 0, "bytes": size, "bytes_without": size}}
    ran = run("pack", "v2.msk", "--parent", "v1.msk", "--codec", "gaps", "-o", "out.msk", "-f")
    assert fields(ran.out)["parent"] == "0 of 13 masks are coded against v1.msk: gaps codes each mask alone"


def test_pack_says_what_a_parent_gained(run: Run, trained: Path) -> None:
    """A composed mask, whose weights are mostly its parent's."""
    for name in "xy":
        shutil.copy(trained / name / "mask.msk", f"{name}.msk")
    assert run("compose", "x - (x - y)", "x=x.msk", "y=y.msk", "--head-from", "x", "-o", "v1.msk").status == 0
    assert run("pack", "v1.msk", "--parent", "x.msk", "-o", "v2.msk").status == 0
    ran = run("pack", "v1.msk", "--parent", "x.msk", "-o", "v2.msk", "-f")
    found = re.fullmatch(
        r"(\d+) of 13 masks are coded against x.msk: ([\d,]+) bytes, and ([\d,]+) without it",
        fields(ran.out)["parent"],
    )
    assert found
    masks, stored, alone = (int(number.replace(",", "")) for number in found.groups())
    summary = maskhub.open("v2.msk", ["x.msk"]).summary()
    assert summary.codecs["delta"] == masks > 0
    assert (summary.mask_bytes, maskhub.open("v1.msk").summary().mask_bytes) == (stored, alone)
    assert stored < alone
