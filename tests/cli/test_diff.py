from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.container.writer import save
from maskhub.masks import compare
from maskhub.masks.mask import Mask, MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields
from tests.storage.rangeserver import RangeServer


@pytest.fixture
def paths(maskset: MaskSet, tmp_path: Path) -> list[Path]:
    """Three tasks: a.msk and b.msk have the same head, c.msk another."""
    names = []
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        masks = {n: tiny.random_mask(m.shape, rng, 0.2) for n, m in maskset.masks.items()}
        dense = tiny.tiny_head(seed) if name == "c" else maskset.dense
        save(dataclasses.replace(maskset, masks=masks, dense=dense, metrics={"accuracy": seed / 10}), f"{name}.msk")
        names.append(Path(f"{name}.msk"))
    return names


def test_numbers_come_from_the_masks(run: Run, paths: list[Path]) -> None:
    ran = run("diff", "a.msk", "b.msk", "--json")
    assert (ran.status, ran.err) == (0, "")
    data = json.loads(ran.out)
    a, b = maskhub.open("a.msk"), maskhub.open("b.msk")
    found = compare.diff(a, b)
    assert data["a"] == {"name": "a", "file": "a.msk", "id": a.id}
    assert data["b"] == {"name": "b", "file": "b.msk", "id": b.id}
    assert (data["same"], data["same_start"]) == (False, True)
    assert data["total"] == found.total.numbers()
    assert {row["name"]: row["both"] for row in data["tensors"]} == {
        n: np.count_nonzero(a[n].to_bool() & b[n].to_bool()) for n in a.masks
    }
    row = data["tensors"][0]
    assert (row["parameter"], row["shape"], row["layer"], row["kind"]) == (
        f"bert.{row['name']}", [tiny.HIDDEN, tiny.HIDDEN], 0, "AO"
    )  # fmt: skip
    for key, groups in (("layers", found.layers), ("kinds", found.kinds), ("cells", found.cells)):
        assert [r["hamming"] for r in data[key]] == [counts.hamming for counts in groups.values()]
    assert [r["layer"] for r in data["layers"]] == [0, 1, None]
    assert (data["only_in_a"], data["only_in_b"], data["dense"]) == ([], [], [])
    assert data["fields"] == [{"field": "metrics.accuracy", "a": 0.0, "b": 0.1}]


def test_people_read_the_same_numbers(run: Run, paths: list[Path]) -> None:
    total = json.loads(run("diff", "a.msk", "c.msk", "--json").out)["total"]
    ran = run("diff", "a.msk", "c.msk")
    shown = fields(ran.out)
    assert ran.out.splitlines()[0] == "a and c: different"
    assert shown["A"] == f"a.msk ({maskhub.open('a.msk').id})"
    assert shown["masked in both"] == f"{total['weights']:,} weights in 9 tensors"
    assert shown["density"] == f"{total['density_a']:.4f} in A, {total['density_b']:.4f} in B"
    assert shown["kept by both"] == f"{total['both']:,}"
    assert (shown["by A alone"], shown["by B alone"]) == (str(total["only_a"]), str(total["only_b"]))
    assert shown["by neither"] == str(total["neither"])
    assert shown["Hamming distance"] == f"{total['hamming']}, {total['differing']:.4f} of the weights"
    assert shown["dissimilarity"] == f"{total['dissimilarity']:.4f}"
    assert shown["chance"].startswith(f"{total['expected']:,.0f} kept by both, ± ")
    assert f"they are {abs(total['z']):.1f} standard deviations" in shown["chance"]
    assert shown["note"].startswith("both were trained from the same initial mask")
    assert shown["dense tensors"] == "classifier.weight: F32 [2, 6] in A, F32 [2, 6] in B, 12 values differ"
    assert shown["also different"] == "metrics.accuracy: 0.0 in A, 0.2 in B"
    lines = [line.split() for line in ran.out.splitlines()]
    assert [line[0] for line in lines if line[-1:] == ["192"]] == ["0", "1"]
    assert not [line for line in lines if line[:1] == ["pooler.dense.weight"]]
    assert ran.err == "Next: maskhub compose 'a & b' a=a.msk b=c.msk --head-from a -o both.msk"
    assert "--head-from" not in run("diff", "a.msk", "b.msk").err


def test_tensors_adds_a_row_for_each(run: Run, paths: list[Path], maskset: MaskSet) -> None:
    lines = run("diff", "a.msk", "b.msk", "--tensors").out.splitlines()
    for name in maskset.masks:
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 1


def test_exit_code(run: Run, paths: list[Path], maskset: MaskSet) -> None:
    save(dataclasses.replace(maskhub.open("a.msk"), metrics={}), "notes.msk", codec="bits")
    save(dataclasses.replace(maskhub.open("a.msk"), task=None), "task.msk")
    assert run("diff", "a.msk", "notes.msk", "--exit-code").status == 0
    assert run("diff", "a.msk", "a.msk", "notes.msk", "--exit-code").status == 0
    for others in (["b.msk"], ["task.msk"], ["a.msk", "b.msk"], ["notes.msk", "task.msk"]):
        ran = run("diff", "a.msk", *others, "--exit-code", "-q")
        assert (ran.status, ran.err) == (1, "")
        assert ran.out
        assert run("diff", "a.msk", *others).status == 0


def test_one_mask_for_two_tasks(run: Run, paths: list[Path]) -> None:
    save(dataclasses.replace(maskhub.open("a.msk"), task=None), "task.msk")
    ran = run("diff", "a.msk", "task.msk")
    assert ran.out.splitlines()[0] == "a and task: the same mask, for another task"
    assert ran.err == ""  # nothing to compose


def test_the_next_step_works(run: Run, paths: list[Path]) -> None:
    a = maskhub.open("a.msk")
    save(dataclasses.replace(a, masks={n: m for n, m in a.masks.items() if n != "pooler.dense.weight"}), "less.msk")
    for pair in (("a.msk", "b.msk"), ("a.msk", "c.msk"), ("less.msk", "c.msk")):
        hint = run("diff", *pair).err
        ran = run(*shlex.split(hint.removeprefix("Next: maskhub ")), "--force")
        assert (ran.status, ran.out.splitlines()[0]) == (0, "both.msk"), ran.err


def test_quiet_prints_the_measure(run: Run, paths: list[Path]) -> None:
    total = json.loads(run("diff", "a.msk", "b.msk", "--json").out)["total"]
    assert float(run("diff", "a.msk", "b.msk", "-q").out) == total["jaccard_dropped"]
    for name in compare.MEASURES:
        assert run("diff", "a.msk", "b.msk", "-q", "--measure", name).out == f"{total[name]}\n"


def test_a_matrix_of_many(run: Run, paths: list[Path]) -> None:
    data = json.loads(run("diff", *paths, "--measure", "jaccard", "--json").out)
    assert [mask["name"] for mask in data["masks"]] == ["a", "b", "c"]
    assert [mask["id"] for mask in data["masks"]] == [maskhub.open(path).id for path in paths]
    assert (data["measure"], data["unit"], data["tensors"]) == ("jaccard", "", 9)
    for i, a in enumerate(paths):
        for j, b in enumerate(paths):
            assert data["values"][i][j] == pytest.approx(compare.diff(maskhub.open(a), maskhub.open(b)).total.jaccard)
    ran = run("diff", *paths, "--measure", "jaccard")
    assert ran.out.splitlines()[0] == "kept by both, of what either keeps"
    assert ran.out.splitlines()[-1].split() == ["c", *(f"{value:.4f}" for value in data["values"][2])]
    counts = json.loads(run("diff", *paths, "--measure", "hamming", "--json").out)["values"]
    assert run("diff", *paths, "--measure", "hamming").out.splitlines()[-1].split() == ["c", *map(str, counts[2])]
    quiet = run("diff", *paths, "--measure", "jaccard", "-q").out.splitlines()
    assert [[float(v) for v in line.split()] for line in quiet] == data["values"]


def test_a_measure_that_is_not_defined(run: Run, maskset: MaskSet) -> None:
    whole = {n: Mask.from_bool(np.ones(m.shape, bool)) for n, m in maskset.masks.items()}
    save(dataclasses.replace(maskset, masks=whole), "whole.msk")
    data = json.loads(run("diff", *["whole.msk"] * 3, "--measure", "correlation", "--json").out)
    assert data["values"] == [[None] * 3] * 3
    assert run("diff", *["whole.msk"] * 2, "--measure", "correlation", "-q").out == "None\n"
    assert "no other number is possible" in run("diff", *["whole.msk"] * 2).out


def test_masks_of_one_file_name_are_told_apart_by_folder(run: Run, paths: list[Path]) -> None:
    for name in "ab":
        Path(name).mkdir()
        Path(f"{name}.msk").rename(f"{name}/mask.msk")
    data = json.loads(run("diff", "a/mask.msk", "b/mask.msk", "c.msk", "a/mask.msk", "--json").out)
    assert [mask["name"] for mask in data["masks"]] == ["a-mask", "b-mask", "c", "a-mask-2"]


def test_a_mask_that_is_coded_against_the_other(run: Run, paths: list[Path]) -> None:
    assert run("pack", "b.msk", "--parent", "a.msk", "--codec", "delta", "-o", "delta.msk").status == 0
    plain, coded = (json.loads(run("diff", "a.msk", name, "--json").out) for name in ("b.msk", "delta.msk"))
    assert coded["total"] == plain["total"]


def test_wrong_input_is_one_line(run: Run, paths: list[Path], base_folder: Path, tmp_path: Path) -> None:
    other = tiny.write_base(tmp_path / "other", seed=5)
    save(tiny.tiny_maskset(other, name="other/base"), "other.msk")
    a = maskhub.open("a.msk")
    for half, names in enumerate((sorted(a.masks)[:4], sorted(a.masks)[4:])):
        save(dataclasses.replace(a, masks={n: a[n] for n in names}), f"half{half}.msk")
    for arguments, message in (
        (["a.msk", "other.msk"], "a and other are masks of different bases: tiny-bert (root "),
        (["a.msk", "b.msk", "other.msk"], "a and other are masks of different bases: tiny-bert (root "),
        (["a.msk", "none.msk"], "none.msk: no such file"),
    ):
        for option, status in (((), 1), (("--exit-code",), 2)):
            ran = run("diff", *arguments, *option)
            assert (ran.status, ran.out) == (status, "")
            assert ran.err.startswith(f"Error: {message}")
            assert ran.stderr.count("\n") == 1
    for arguments, message in (
        (["half0.msk", "half1.msk"], "half0, half1 have no masked tensor in common."),
        (["a.msk"], "at least two masks are compared. Name another one."),
        (["a.msk", "b.msk", "c.msk", "--tensors"], "--tensors is for two masks. Leave it out; --json has all."),
        (
            ["a.msk", "b.msk", "--measure", "cosine"],
            "measure: there is no 'cosine'. It is one of: jaccard_dropped, correlation",
        ),
    ):
        ran = run("diff", *arguments)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith(f"Error: {message}")


def test_masks_at_urls(program: Run, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RangeServer() as server:
        for name in "ab":
            server.files[f"{name}/task.msk"] = Path(f"{name}.msk").read_bytes()
        urls = [server.url(f"{name}/task.msk", login="bob:secret@") for name in "ab"]
        ran = program("diff", *urls, "c.msk", urls[0], "--json")
        assert ran.status == 0, ran.err
        data = json.loads(ran.out)
        assert [mask["name"] for mask in data["masks"]] == ["a-task", "b-task", "c", "a-task-2"]
        assert "secret" not in ran.out + ran.err
        ran = program("compose", "--op", "and", *urls, "-o", "out.msk")
        assert ran.status == 0, ran.err
        assert maskhub.open("out.msk").lineage["expression"] == "a_task & b_task"
        assert "secret" not in program("compose", "a", urls[0], "-o", "x.msk").err
