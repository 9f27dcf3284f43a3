from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields


@pytest.fixture
def abc(maskset: MaskSet, tmp_path: Path) -> dict[str, MaskSet]:
    """Three tasks of one head: a.msk, b.msk and c.msk."""
    sets = {}
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        masks = {n: tiny.random_mask(m.shape, rng, 0.4) for n, m in maskset.masks.items()}
        sets[name] = dataclasses.replace(maskset, masks=masks)
        save(sets[name], f"{name}.msk")
    return sets


def test_an_expression(run: Run, abc: dict[str, MaskSet]) -> None:
    ran = run("compose", "(a & b)|~c", "a=a.msk", "b=b.msk", "c=c.msk", "-o", "out.msk")
    assert ran.status == 0, ran.err
    composed = maskhub.open("out.msk")
    for name in composed.masks:
        a, b, c = (abc[n][name].to_bool() for n in "abc")
        assert np.array_equal(composed[name].to_bool(), (a & b) | ~c)
    assert composed.lineage == {
        "operation": "compose", "expression": "(a & b) | ~c", "parents": {n: m.id for n, m in abc.items()}
    }  # fmt: skip
    assert (composed.task, composed.metrics) == (abc["a"].task, {})
    shown = fields(ran.out)
    assert (ran.out.splitlines()[0], shown["id"]) == ("out.msk", composed.id)
    assert ran.err == "Next: maskhub apply tiny-bert out.msk"
    assert run("verify", "out.msk").status == 0


@pytest.mark.parametrize(
    ("arguments", "expression"),
    [
        (["--op", "and", "a.msk", "b.msk"], "a & b"),
        (["--op", "or", "a.msk", "b.msk", "c.msk"], "a | b | c"),
        (["--op", "xor", "a.msk", "b.msk"], "a ^ b"),
        (["--op", "minus", "a.msk", "b.msk", "c.msk"], "a - b - c"),
        (["--op", "not", "c.msk"], "~c"),
        (["--op", "vote", "--min", "2", "a.msk", "b.msk", "c.msk"], "vote(2, a, b, c)"),
        (["--op", "and", "x=a.msk", "b.msk"], "x & b"),
    ],
)
def test_one_operation_over_masks(run: Run, abc: dict[str, MaskSet], arguments: list[str], expression: str) -> None:
    ran = run("compose", *arguments, "-o", "out.msk", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "out.msk\n", "")
    composed = maskhub.open("out.msk")
    assert composed.lineage["expression"] == expression
    names = {**abc, "x": abc["a"]}
    wanted = maskhub.compose(expression, {n: names[n] for n in composed.lineage["parents"]})
    assert composed.id == wanted.id


def test_the_same_composition_gives_the_same_file(run: Run, abc: dict[str, MaskSet]) -> None:
    save(abc["a"], "copy.msk", codec="bits")
    for first, out in (("a.msk", "1.msk"), ("copy.msk", "2.msk")):
        assert run("compose", "a ^ b", f"a={first}", "b=b.msk", "-o", out).status == 0
    assert Path("1.msk").read_bytes() == Path("2.msk").read_bytes()


def test_json_is_that_of_info(run: Run, abc: dict[str, MaskSet]) -> None:
    made = json.loads(run("compose", "--op", "and", "a.msk", "b.msk", "-o", "out.msk", "--json").out)
    assert made == json.loads(run("info", "out.msk", "--json").out)


def test_masks_are_named_by_file_or_folder(run: Run, abc: dict[str, MaskSet]) -> None:
    for name in "ab":
        Path(f"run-{name}").mkdir()
        Path(f"{name}.msk").rename(f"run-{name}/mask.msk")
    Path("c.msk").rename("2nd and.msk")
    masks = ["run-a/mask.msk", "run-b/mask.msk"]
    assert run("compose", "--op", "or", *masks, "-o", "out.msk").status == 0
    assert maskhub.open("out.msk").lineage["expression"] == "run_a_mask | run_b_mask"
    assert run("compose", "--op", "not", "2nd and.msk", "-o", "not.msk").status == 0
    assert maskhub.open("not.msk").lineage["expression"] == "~_2nd_and"


def test_codec_and_missing(run: Run, abc: dict[str, MaskSet]) -> None:
    first = sorted(abc["b"].masks)[0]
    save(
        dataclasses.replace(abc["b"], masks={n: m for n, m in abc["b"].masks.items() if n != first}),
        "b.msk",
        force=True,
    )
    compose = ("compose", "--op", "or", "a.msk", "b.msk", "--codec", "gaps", "-o")
    ran = run(*compose, "out.msk")
    assert ran.status == 2
    assert not Path("out.msk").exists()
    assert ran.err.startswith(f"Error: not all of a, b mask {first} (b lacks {first}). --missing keep takes")
    assert run(*compose, "keep.msk", "--missing", "keep").status == 0
    assert run(*compose, "drop.msk", "--missing", "drop").status == 0
    kept = maskhub.open("keep.msk")
    assert kept[first].kept == kept[first].size
    assert set(maskhub.open("drop.msk").masks) == set(kept.masks) - {first}
    assert json.loads(run("info", "keep.msk", "--json").out)["codecs"] == {"gaps": len(kept.masks)}


def test_heads(run: Run, abc: dict[str, MaskSet]) -> None:
    save(dataclasses.replace(abc["b"], dense=tiny.tiny_head(7)), "b.msk", force=True)
    ran = run("compose", "a | b", "a=a.msk", "b=b.msk", "-o", "out.msk")
    assert ran.status == 2
    assert not Path("out.msk").exists()
    assert ran.err == (
        f"Error: the heads of a, b differ: classifier.weight (F32 [2, {tiny.HIDDEN}], other values). "
        "Take that of one: --head-from a|b, or in Python head_from='a'."
    )
    assert run("compose", "a | b", "a=a.msk", "b=b.msk", "-o", "out.msk", "--head-from", "b").status == 0
    head = maskhub.open("out.msk").dense["classifier.weight"]
    assert np.array_equal(head.data, maskhub.open("b.msk").dense["classifier.weight"].data)


def test_an_input_is_never_the_output(run: Run, abc: dict[str, MaskSet]) -> None:
    os.link("b.msk", "hard.msk")
    Path("soft.msk").symlink_to("b.msk")
    before = Path("b.msk").read_bytes()
    for out in ("b.msk", "hard.msk", "soft.msk", "./b.msk"):
        ran = run("compose", "--op", "and", "a.msk", "b.msk", "-o", out, "--force")
        assert (ran.status, ran.out) == (1, "")
        assert ran.err == f"Error: {Path(out)}: the output is the input b.msk. Name another one with -o."
    ran = run("compose", "--op", "not", "a.msk", "--parent", "c.msk", "-o", "c.msk", "--force")
    assert "the output is the input c.msk" in ran.err
    assert Path("b.msk").read_bytes() == before
    assert Path("soft.msk").is_symlink()


def test_an_existing_output_needs_force(run: Run, abc: dict[str, MaskSet]) -> None:
    Path("out.msk").write_text("old")
    ran = run("compose", "--op", "and", "a.msk", "b.msk", "-o", "out.msk")
    assert ran.status == 1
    assert "out.msk: the output file exists" in ran.err
    assert Path("out.msk").read_text() == "old"
    assert run("compose", "--op", "and", "a.msk", "b.msk", "-o", "out.msk", "--force").status == 0
    assert maskhub.open("out.msk").id == (abc["a"] & abc["b"]).id


def test_masks_coded_against_one_another(run: Run, abc: dict[str, MaskSet]) -> None:
    save(abc["b"], "delta.msk", codec="delta", parent=abc["a"])
    assert run("compose", "--op", "and", "a.msk", "delta.msk", "-o", "out.msk").status == 0
    assert maskhub.open("out.msk").id == (abc["a"] & abc["b"]).id


def test_wrong_input_writes_nothing(run: Run, abc: dict[str, MaskSet], tmp_path: Path) -> None:
    other = tiny.write_base(tmp_path / "other", seed=5)
    save(tiny.tiny_maskset(other, name="other/base"), "other.msk")
    damaged = bytearray(Path("c.msk").read_bytes())
    damaged[-1] ^= 1
    Path("damaged.msk").write_bytes(damaged)
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        (["a &", "a=a.msk"], "expression 'a &', column 4: invalid syntax. Operators are "),
        (["a + b", "a=a.msk", "b=b.msk"], "expression 'a + b', column 3: '+' has no meaning here. "),
        (["a & x", "a=a.msk"], "expression 'a & x', column 5: no mask is called 'x'. There are a."),
        (["a & b"], "expression 'a & b', column 1: no mask is called 'a'. There are none."),
        (["a", "a=a.msk", "b=b.msk"], "expression 'a': does not use b."),
        (["vote(3, a, b)", "a=a.msk", "b=b.msk"], "expression 'vote(3, a, b)', column 6: vote of 3 among 2 masks. "),
        (["--op", "vote", "--min", "4", "a.msk", "b.msk", "c.msk"], "vote of 4 among 3 masks. The number must be 1"),
        (["--op", "vote", "--min", "0", "a.msk", "b.msk"], "vote of 0 among 2 masks. "),
        (["--op", "vote", "a.msk", "b.msk"], "a vote needs the number of masks"),
        (["--op", "and", "--min", "2", "a.msk", "b.msk"], "a number of masks is for votes, not for 'and'. "),
        (["--op", "and", "a.msk"], "'and' is for two or more masks, not 1"),
        (["--op", "not", "a.msk", "b.msk"], "'not' is for one mask, not 2"),
        (["--op", "and", "a.msk", "b.msk", "--head-from", "x"], "no mask is called 'x' to take the head from. "),
        (["a & b", "a=a.msk", "b.msk"], "'b.msk' is not NAME=MASK. As in a=x.msk; masks without names go with --op."),
        (["a & b", "a=a.msk", "a=b.msk"], "two masks are called 'a'. Name them: NAME=MASK."),
        (
            ["--op", "nand", "a.msk", "b.msk"],
            "operation: there is no 'nand'. It is one of: and, or, xor, minus, not, vote.",
        ),
        (
            ["--op", "and", "a.msk", "b.msk", "--missing", "x"],
            "missing: there is no 'x'. It is one of: error, keep, drop.",
        ),
        (["and", "a=a.msk"], "'and' over masks goes with --op. As in: --op and A B."),
    ):
        ran = run("compose", *arguments, "-o", "out.msk")
        assert (ran.status, ran.out) == (2, ""), arguments
        assert (ran.err.startswith(f"Error: {message}"), ran.stderr.count("\n")) == (True, 1), ran.err
    for arguments, message in (
        (["--op", "and", "a.msk", "other.msk"], "a and other are masks of different bases: tiny-bert (root "),
        (["--op", "and", "a.msk", "none.msk"], "none.msk: no such file"),
        (["--op", "and", "a.msk", "damaged.msk", "--head-from", "a"], "damaged.msk: "),
        (["--op", "and", "a.msk", "b.msk", "--codec", "delta"], "encoder.layer.0.attention.output.dense.weight: "),
    ):
        ran = run("compose", *arguments, "-o", "out.msk")
        assert (ran.status, ran.out) == (1, ""), arguments
        assert (ran.err.startswith(f"Error: {message}"), ran.stderr.count("\n")) == (True, 1), ran.err
    ran = run("compose", "--op", "and", "a.msk", "b.msk", "-o", "out.bin")
    assert (ran.status, ran.err) == (2, "Error: the output out.bin does not end in .msk. Such as out.msk.")
    ran = run("compose", "--op", "and", "a.msk", "b.msk")
    assert (ran.status, ran.err) == (2, "Error: Missing option '--output' / '-o'. Help: maskhub compose --help")
    assert sorted(tmp_path.iterdir()) == before
