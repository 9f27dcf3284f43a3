from __future__ import annotations

import dataclasses
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

import maskhub
from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import ArgumentError, FormatError, MaskhubError, OutputError
from maskhub.masks.binding import BaseBinding, HubRevision, Task
from maskhub.masks.mask import LazyMask, Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.tensor import ITEM_SIZE, RawTensor
from maskhub.storage.work import workers
from tests.tiny import FLOATS, TASK, random_mask, random_tensor, read_parts

ANY_MASK = [name for name in codecs.names() if name != "nm"]  # which needs a pattern
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@st.composite
def masksets(draw: st.DrawFn) -> MaskSet:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    shapes = [tuple(draw(st.lists(st.integers(0, 6), max_size=4))) for _ in names]
    densities = [draw(st.sampled_from([0, 0.05, 0.5, 1])) for _ in names]
    masks = {n: Mask.from_bool(rng.random(s) < d) for n, s, d in zip(names, shapes, densities, strict=True)}
    base = BaseBinding.of(
        draw(st.text()),
        {name: digest.tensor_digest("F32", (), name.encode()) for name in names},
        {name: draw(st.sampled_from(["", "bert."])) + "p." + name for name in names},
        draw(st.none() | st.just(HubRevision("user/repo", "c" * 40, {"model.safetensors": "d" * 64}))),
    )
    free = draw(st.lists(NAMES.filter(lambda n: n not in names and "p." not in n), max_size=2, unique=True))
    dense = {n: random_tensor(draw(st.sampled_from(FLOATS)), (draw(st.integers(0, 3)), 2), rng) for n in free}
    task = draw(st.none() | st.builds(Task, st.text(), st.text(), st.dictionaries(st.text(), JSON, max_size=2)))
    metrics = draw(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=2))
    initial = Initial(draw(st.integers(0, 9)), draw(st.integers(0, 1 << 16)), 0.0, 1.0)
    return MaskSet(base, masks, dense, task, initial, metrics, draw(st.dictionaries(st.text(), JSON, max_size=3)))


@given(masksets(), st.sampled_from(ANY_MASK))
def test_what_was_saved_is_read_again(tmp_path_factory: pytest.TempPathFactory, maskset: MaskSet, codec: str) -> None:
    path = tmp_path_factory.mktemp("m") / "x.msk"
    manifest = save(maskset, path, codec=codec, parent=maskset)
    MaskFile(path, [maskset]).verify()
    read = maskhub.open(path, [maskset])
    assert read.id == maskset.id == manifest.id
    assert read.base == maskset.base
    assert dict(read.masks) == dict(maskset.masks)
    assert {n: (t.dtype, t.shape, t.data.tobytes()) for n, t in read.dense.items()} == {
        n: (t.dtype, t.shape, t.data.tobytes()) for n, t in maskset.dense.items()
    }
    assert (read.task, read.metrics, read.lineage) == (maskset.task, maskset.metrics, maskset.lineage)
    # Saved once more, by any path and in any order, it is the same file.
    again = path.with_name("again.msk")
    save(shuffled(read), again, codec=codec, parent=maskset)
    assert again.read_bytes() == path.read_bytes()


def shuffled(maskset: MaskSet) -> MaskSet:
    """The same with every mapping in another order."""

    def mixed(mapping: Any) -> Any:
        return {key: mapping[key] for key in random.Random(0).sample(sorted(mapping), len(mapping))}

    return dataclasses.replace(
        maskset,
        masks=mixed(maskset.masks),
        dense=mixed(maskset.dense),
        metrics=mixed(maskset.metrics),
        lineage=mixed(maskset.lineage),
    )


def test_codec_metrics_and_lineage_leave_the_id(maskset: MaskSet, tmp_path: Path) -> None:
    for codec in ANY_MASK:
        assert save(maskset, tmp_path / codec, codec=codec, parent=maskset).id == maskset.id
        names = {entry["codec"]["name"] for entry in read_parts(tmp_path / codec)[0]["masks"].values()}
        assert codec == codecs.AUTO or names == {codec}
    noted = dataclasses.replace(maskset, metrics={"f1": 1.0}, lineage={"note": "other"})
    assert save(noted, tmp_path / "noted").id == maskset.id
    assert (tmp_path / "noted").read_bytes() != (tmp_path / "auto").read_bytes()


def test_a_mask_file_is_a_safetensors_file_that_people_can_read(maskset: MaskSet, mask_path: Path) -> None:
    tensors = load_file(mask_path)
    assert tensors.keys() == {"maskhub.manifest", "maskhub.masks", *maskset.dense}
    for name, tensor in maskset.dense.items():
        assert tensors[name].tobytes() == tensor.data.tobytes()
        assert np.array_equal(tensors[name], tensor.numpy())
    with safe_open(mask_path, "numpy") as file:
        seal = file.metadata()["seal"]
        assert file.metadata() == {
            "format": "maskhub", "version": "1.0", "id": maskset.id, "base": maskset.base.name,
            "task": "text-classification", "seal": seal,
        }  # fmt: skip
    manifest = json.loads(zstandard.decompress(tensors["maskhub.manifest"].tobytes()))
    assert manifest == read_parts(mask_path)[0]


def test_the_manifest_comes_first_and_dense_tensors_are_aligned(maskset: MaskSet, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch

    for length in range(9):
        dense = {f"{'x' * length}{width}": RawTensor.from_numpy(np.ones(3, f"u{width}")) for width in (1, 2, 4, 8)}
        save(dataclasses.replace(maskset, dense=dense), tmp_path / "x.msk", force=True)
        tensors = MaskFile(tmp_path / "x.msk")._file.tensors
        assert min(tensors, key=lambda name: tensors[name].start) == "maskhub.manifest"
        assert all(info.start % ITEM_SIZE[info.dtype] == 0 for info in tensors.values())
        assert all(torch.equal(t, torch.ones_like(t)) for n, t in load_torch(tmp_path / "x.msk").items() if n in dense)


def test_progress_counts_masks(maskset: MaskSet, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    save(maskset, tmp_path / "x.msk", progress=lambda done, total: calls.append((done, total)))
    count = len(maskset.masks)
    assert calls == [(i, count) for i in range(1, count + 1)]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"metrics": {"loss": float("nan")}}, "metrics"),
        ({"metrics": {"loss": float("inf")}}, "metrics"),
        ({"lineage": {"a": {}}}, "nested deeper"),
        ({"dense": {"line\nbreak": RawTensor.from_numpy(np.zeros(1))}}, "dense"),
        ({"dense": {"x": RawTensor.from_numpy(np.zeros([1] * 9))}}, "shape"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(
    maskset: MaskSet, tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    for _ in range(100 if "lineage" in changes else 0):
        changes = {"lineage": {"a": changes["lineage"]}}
    with pytest.raises(FormatError, match=where):
        save(dataclasses.replace(maskset, **changes), tmp_path / "x.msk")
    assert os.listdir(tmp_path) == []


def test_an_unknown_codec_is_refused_before_any_work(maskset: MaskSet, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="codec: there is no 'magic'"):
        save(maskset, tmp_path / "x.msk", codec="magic")
    assert os.listdir(tmp_path) == []


def test_a_base_tensor_and_a_parameter_may_have_one_name(tmp_path: Path) -> None:
    base = BaseBinding.of("b", {"a": "0" * 64}, {"a": "m.a"}, None)
    maskset = MaskSet(base, {"a": Mask.from_bool([True])}, {"a": RawTensor.from_numpy(np.zeros(1))})
    save(maskset, tmp_path / "x.msk")
    MaskFile(tmp_path / "x.msk").verify()
    assert maskhub.open(tmp_path / "x.msk") == maskset


@pytest.mark.parametrize("name", ["maskhub.manifest", "maskhub.masks"])
def test_no_dense_tensor_has_the_name_of_a_payload(maskset: MaskSet, tmp_path: Path, name: str) -> None:
    named = dataclasses.replace(maskset, dense={name: RawTensor.from_numpy(np.zeros(1))})
    with pytest.raises(FormatError, match=f"no dense tensor can be called {name}"):
        save(named, tmp_path / "x.msk")
    assert os.listdir(tmp_path) == []


def test_an_output_that_cannot_be_written_is_an_error(maskset: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path, "the output is a folder"),
        (tmp_path / "file" / "x.msk", "there is no folder"),
        (tmp_path / "absent" / "x.msk", "there is no folder"),
        (Path("/proc/x.msk"), "cannot be written"),
    ):
        with pytest.raises(OSError, match=why) as caught:
            save(maskset, path)
        assert isinstance(caught.value, MaskhubError)
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_saved_over_only_by_force_also_over_itself(maskset: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    save(maskset, path, codec="bits")
    read = maskhub.open(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"x\.msk: the output file exists"):
        save(read, path, codec="gaps", progress=lambda done, total: pytest.fail("it was at work"))
    assert path.read_bytes() == before
    save(read, path, codec="gaps", force=True)
    assert maskhub.open(path).id == maskset.id
    assert read.masks == maskset.masks  # the old file is still open


@pytest.mark.parametrize("codec", ["auto", "bits"])
def test_what_was_opened_before_its_file_was_saved_over_reads_what_it_was(
    maskset: MaskSet, tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "x.msk"
    for change in (lambda old: ~old, lambda old: old ^ ~old, lambda old: dataclasses.replace(old, dense={})):
        save(maskset, path, codec=codec, force=True)
        old = maskhub.open(path)
        expected = change(maskset)
        save(change(old), path, codec=codec, force=True)  # decodes the old file while the new one is written
        assert MaskFile(path).manifest.id == expected.id
        MaskFile(path).verify()
        assert maskhub.open(path).masks == expected.masks
        assert old.masks == maskset.masks
        assert all(old.dense[name].data.tobytes() == maskset.dense[name].data.tobytes() for name in maskset.dense)
    assert os.listdir(tmp_path) == ["x.msk"]


def test_a_parent_is_not_saved_over_by_what_needs_it(maskset: MaskSet, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{i}.msk" for i in range(3))
    flipped = {name: ~mask for name, mask in maskset.masks.items()}
    save(maskset, first)
    save(dataclasses.replace(maskset, masks=flipped), second, codec="delta", parent=maskhub.open(first))
    parent = maskhub.open(second, parent=[first])
    before = first.read_bytes(), second.read_bytes()
    third.symlink_to(second)
    for path in (first, second, third):
        with pytest.raises(OutputError, match=f"{path}: the output is a file that the parent is read from"):
            save(maskset, path, parent=parent, force=True)
    assert (first.read_bytes(), second.read_bytes()) == before


def test_the_zstd_codec_is_chosen_for_rows(tmp_path: Path) -> None:
    rows = Mask.from_bool(np.repeat(np.random.default_rng(0).random((256, 1)) < 0.5, 256, axis=1))
    noise = random_mask((256, 256), np.random.default_rng(0))
    base = BaseBinding.of("b", {"rows": "0" * 64, "noise": "1" * 64}, {"rows": "rows", "noise": "noise"}, None)
    manifest = save(MaskSet(base, {"rows": rows, "noise": noise}, task=TASK), tmp_path / "x.msk")
    assert {name: entry.codec["name"] for name, entry in manifest.masks.items()} == {"rows": "zstd", "noise": "gaps"}


def test_the_seal_is_found_whatever_the_notes_say(maskset: MaskSet, tmp_path: Path) -> None:
    notes = {"seal": "0" * 64, "base": {"seal": "0" * 64}}
    path = tmp_path / "x.msk"
    save(dataclasses.replace(maskset, lineage=notes, extra={"aaa": notes}).with_base_name("0" * 64), path)
    file = MaskFile(path)
    file.verify()
    assert file.manifest.lineage == notes


def test_a_file_does_not_depend_on_how_it_was_streamed(
    maskset: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(maskset, tmp_path / "memory.msk")
    monkeypatch.setattr("maskhub.container.writer.SPOOL", 1)  # payloads go through a file without a name
    monkeypatch.setattr("maskhub.container.writer.PIECE", 3)
    monkeypatch.setattr("maskhub.container.writer.workers", lambda: 1)
    save(maskset, tmp_path / "disk.msk")
    assert (tmp_path / "disk.msk").read_bytes() == (tmp_path / "memory.msk").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["disk.msk", "memory.msk"]


def test_only_a_few_masks_wait_to_be_written(maskset: MaskSet, tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str) -> Any:
        made.append(name)
        return maskset[name].bits

    lazy = {name: LazyMask(mask.shape, lambda name=name: make(name)) for name, mask in maskset.masks.items()}
    ahead: list[int] = []
    save(
        dataclasses.replace(maskset, masks=lazy),
        tmp_path / "x.msk",
        progress=lambda done, total: ahead.append(len(made) - done),
    )
    assert sorted(made) == sorted(lazy)  # each once
    assert max(ahead) <= 2 * workers()
