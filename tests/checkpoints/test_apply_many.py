"""Dense builds in one pass: several masks, sizes of files, casts, and what a killed process leaves."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.apply import build, drop, tensors
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.errors import ArgumentError, FormatError, MaskhubError, OutputError
from maskhub.masks.mask import MaskSet
from maskhub.storage.atomic import atomic_file, atomic_folders
from maskhub.storage.size import parse_size
from maskhub.storage.tensor import RawTensor
from tests import tiny
from tests.waiting import until


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_many_masks_in_one_pass_are_what_each_is_alone(base: Checkpoint, tmp_path: Path) -> None:
    sets = [tiny.tiny_maskset(base, seed=seed) for seed in range(3)]
    together = build(base, [(maskset, tmp_path / f"all{i}") for i, maskset in enumerate(sets)])
    for i, maskset in enumerate(sets):
        alone = tiny.build(base, maskset, tmp_path / f"one{i}")
        assert contents(alone) == contents(together[i])


def test_all_or_none(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    with pytest.raises(OutputError, match="taken: the output folder exists and is not empty"):
        build(base, [(maskset, tmp_path / "free"), (maskset, tmp_path / "taken")])
    with pytest.raises(ArgumentError, match="same: two masks would be written there"):
        build(base, [(maskset, tmp_path / "same"), (maskset, tmp_path / "same")])
    assert os.listdir(tmp_path) == ["taken"]


def test_tensors_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, loaded and compared in pieces: the same as whole."""
    monkeypatch.setattr("maskhub.checkpoints.scan.CHUNK", 64)
    base = open_checkpoint(tiny.write_base(tmp_path / "base", integers=True))
    maskset = tiny.tiny_maskset(base, sparsity=0.3)
    written = open_checkpoint(tiny.build(base, maskset, tmp_path / "out"))
    loaded = dict(tensors(base, maskset))
    for name in maskset.base.tensors:
        tensor = base.read(name)
        whole = drop(tensor, maskset.masks[name]) if name in maskset.masks else tensor.data
        parameter = maskset.base.parameter(name)
        assert written.read(parameter).data.tobytes() == loaded[parameter].data.tobytes() == whole.tobytes()
    read = from_pruned(base, written, base_name=maskset.base.name)
    assert (read.masks, read.base) == (maskset.masks, maskset.base)


def test_files_of_a_given_size(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    whole = open_checkpoint(tiny.build(base, maskset, tmp_path / "whole"))
    split = open_checkpoint(tiny.build(base, maskset, tmp_path / "split", shard_size=300))
    assert len(whole.shards) == 1
    assert len(split.shards) > 3
    assert {n: split.read(n).data.tobytes() for n in split} == {n: whole.read(n).data.tobytes() for n in whole}
    for shard in split.shards:
        sizes = [split.info(name).nbytes for name in shard]
        assert sum(sizes) <= 300 or len(sizes) == 1


@pytest.mark.parametrize(
    ("size", "count"),
    [(300, 300), ("300", 300), ("5GB", 5 * 10**9), ("0.5 mb", 500_000), ("2K", 2000), ("1.5T", 1_500_000_000_000)],
)
def test_sizes_as_people_write_them(size: int | str, count: int) -> None:
    assert parse_size(size) == count


@pytest.mark.parametrize("size", [0, -5, "", "0GB", "GB", "5 GiB", "many", "1e9", "٣MB"])
def test_a_size_that_is_none_is_an_error(base: Checkpoint, maskset: MaskSet, tmp_path: Path, size: int | str) -> None:
    with pytest.raises(ArgumentError) as caught:
        tiny.build(base, maskset, tmp_path / "out", shard_size=size)
    assert str(caught.value).startswith(f"{size!r} is no size such as 500MB or 5GB")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "asked", "dtype"),
    [
        ("BF16", "BF16", ml_dtypes.bfloat16), ("bfloat16", "BF16", ml_dtypes.bfloat16),
        ("f16", "F16", np.float16), ("torch.float16", "F16", np.float16), ("Float64", "F64", np.float64),
    ],
)  # fmt: skip
def test_casting_on_the_way(
    base: Checkpoint, maskset: MaskSet, tmp_path: Path, name: str, asked: str, dtype: type
) -> None:
    out = open_checkpoint(tiny.build(base, maskset, tmp_path / "out", dtype=name))
    for name in maskset.base.tensors:
        tensor = base.read(name)
        if name in maskset.masks:
            tensor = RawTensor(tensor.dtype, tensor.shape, drop(tensor, maskset.masks[name]))
        written = out.read(maskset.base.parameter(name))
        if tensor.dtype == "F32":
            assert (written.dtype, written.shape) == (asked, tensor.shape)
            assert written.data.tobytes() == tensor.numpy().astype(dtype).tobytes()
        else:
            assert written.data.tobytes() == tensor.data.tobytes()
    assert out.config()["dtype"] == {"BF16": "bfloat16", "F16": "float16", "F64": "float64"}[asked]
    with pytest.raises(ArgumentError, match=r"dtype: there is no 'F8'\. It is one of: F64"):
        tiny.build(base, maskset, tmp_path / "no", dtype="F8")


def test_the_card_names_base_and_mask(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    text = (tiny.build(base, maskset, tmp_path / "out") / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: ")
    assert f"- mask: `{maskset.id}`" in text
    assert f"root `{maskset.base.root}`" in text


HOSTILE = (
    "` [x](javascript:alert(1)) <script>alert(2)</script> | a\nb\r---\n# Head\n\x1b[31mred\x07\x9b1m \u202eksm\u2066 "
    "\ud800 \U0001f600 &lt; $x$ @all https://evil.example www.evil.example <!-- ![i](http://e/x.png) ``` ~~~ \x7f \x00"
)


def test_hostile_names_stay_text_in_the_card(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    """Rendered as Markdown of the Hub's kind, the card has the marks that it has with harmless names, and no others."""
    import yaml
    from markdown_it import MarkdownIt

    assert maskset.task
    kind = HOSTILE.replace("\ud800", "")  # which no file can hold
    task = msgspec.structs.replace(maskset.task, type=kind)
    named = maskset.with_base_name(HOSTILE)
    evil = dataclasses.replace(named, task=task, metrics={HOSTILE: 0.5}, lineage={HOSTILE: HOSTILE})
    pages = []
    for number, one in enumerate((maskset, evil)):
        text = (tiny.build(base, one, tmp_path / str(number)) / "README.md").read_text(encoding="utf-8")
        assert all(line.isprintable() for line in text.split("\n"))
        _, front, body = text.split("---\n", 2)
        page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
        pages.append(re.sub(r">[^<]*<", "><", page))
        data = yaml.safe_load(front)
        assert list(data) == ["library_name", "base_model", "tags", "pipeline_tag"]
    assert (data["base_model"], data["pipeline_tag"]) == (HOSTILE, kind)
    assert pages[0] == pages[1]


@pytest.mark.parametrize("name", ["vocab.txt", "modeling.py", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("target", ["outside", "missing", "/etc/hostname", "loop"])
def test_links_out_of_the_base_are_not_copied(base_folder: Path, tmp_path: Path, name: str, target: str) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    outside = tmp_path / "outside"
    config = folder / "config.json"
    outside.write_bytes(config.read_bytes())
    (folder / name).unlink(missing_ok=True)
    places = {"outside": outside, "missing": tmp_path / "missing", "loop": folder / name}
    (folder / name).symlink_to(places.get(target, Path(target)))
    base = open_checkpoint(folder)
    maskset = tiny.tiny_maskset(open_checkpoint(base_folder))
    with pytest.raises(MaskhubError) as caught:
        tiny.build(base, maskset, tmp_path / "out", code=True)
    assert str(folder / name) in caught.value.message
    if target == "outside" or (target == "/etc/hostname" and name != "config.json"):
        assert caught.value.message.endswith(
            ": a link that leads out of the base's folder, and would be copied into the output"
        )
    assert {path.name for path in tmp_path.iterdir()} == {"base", "outside"}


def test_links_that_stay_with_the_base_are_copied(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    content = (folder / "vocab.txt").read_bytes()
    (folder / "deep").mkdir()
    (folder / "vocab.txt").rename(folder / "deep" / "words")
    (folder / "vocab.txt").symlink_to("deep/words")
    snapshot, _ = tiny.hub_cache(tmp_path / "cache", "ann/tiny", base_folder)
    maskset = tiny.tiny_maskset(base_folder)
    (tmp_path / "way").symlink_to(folder)
    for number, place in enumerate((folder, snapshot, tmp_path / "way")):
        out = tiny.build(open_checkpoint(place), maskset, tmp_path / str(number))
        assert (out / "vocab.txt").read_bytes() == content
        assert not (out / "vocab.txt").is_symlink()


def test_what_is_no_file_is_not_copied(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (folder / "vocab.txt").unlink()
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(FormatError, match=r"vocab\.txt: a pipe, not a file"):
        tiny.build(open_checkpoint(folder), tiny.tiny_maskset(base_folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_only_when_asked_for(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    (folder / "modeling.py").write_text("code")
    base = open_checkpoint(folder)
    maskset = tiny.tiny_maskset(base)
    plain, coded = (tiny.build(base, maskset, tmp_path / str(code), code=code) for code in (False, True))
    assert not (plain / "modeling.py").exists()
    assert "auto_map" not in json.loads((plain / "config.json").read_text())
    assert (coded / "modeling.py").read_text() == "code"
    assert json.loads((coded / "config.json").read_text())["auto_map"] == {"AutoModel": "modeling.Model"}


BUILD = """
import sys
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.checkpoints.apply import build
base, mask, out = sys.argv[1:]
opened, maskset = open_checkpoint(base), open_mask(mask)
print("ready", flush=True)
build(opened, [(maskset, out)])
"""


def unlocked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def test_a_build_killed_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = {f"encoder.layer.{i}.w.weight": RawTensor.from_numpy(rng.normal(size=(512, 2048))) for i in range(12)}
    base = open_checkpoint(tiny.write_checkpoint(tmp_path / "base", large))
    maskset = tiny.tiny_maskset(base)
    maskhub.save(maskset, tmp_path / "x.msk")
    took = []
    for i in range(3):
        start = time.perf_counter()
        expected = contents(tiny.build(base, maskset, tmp_path / f"expected{i}"))
        took.append(time.perf_counter() - start)
    out = tmp_path / "out" / "dense"
    begun = False
    for moment in (None, *np.linspace(0, 1.2 * min(took), 12)):
        command = [sys.executable, "-c", BUILD, str(tmp_path / "base"), str(tmp_path / "x.msk"), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if moment is None:  # as soon as there is something of it
                until(lambda: process.poll() is not None or any(out.parent.glob("*")))
            else:
                time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if out.exists():
            assert contents(out) == expected
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        else:
            begun = begun or any(out.parent.glob("*"))
    assert begun  # one at least was killed at work
    until(lambda: all(map(unlocked, out.parent.glob(".*"))))  # some systems let go of locks a moment after the end
    tiny.build(base, maskset, out)
    assert os.listdir(out.parent) == ["dense"]  # what the killed ones left is gone


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a", "c"), ("new/a", "new/b")])
def test_where_the_last_output_is_taken_meanwhile_there_is_none(
    base: Checkpoint, tmp_path: Path, names: tuple[str, ...]
) -> None:
    outputs = [tmp_path / name for name in names]

    def taken(done: int, total: int) -> None:
        outputs[-1].mkdir(exist_ok=True)
        (outputs[-1] / "another").write_bytes(b"")

    builds = [(tiny.tiny_maskset(base, seed=seed), output) for seed, output in enumerate(outputs)]
    with pytest.raises(OutputError, match=f"{outputs[-1]}: cannot be written: Directory not empty"):
        build(base, builds, progress=taken)
    assert os.listdir(outputs[-1]) == ["another"]
    assert os.listdir(outputs[-1].parent) == [outputs[-1].name]


def test_what_of_the_base_cannot_be_read_is_not_blamed_on_the_output(base_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "base")
    base = open_checkpoint(folder)
    maskset = tiny.tiny_maskset(base)
    vocabulary = folder / "vocab.txt"
    for make, said in (
        (lambda: vocabulary.symlink_to(vocabulary), "cannot be read: Too many levels of symbolic links"),
        (lambda: os.mkfifo(vocabulary), "a pipe, not a file"),
        (lambda: vocabulary.mkdir(), "a folder, not a file"),
    ):
        vocabulary.unlink()
        make()
        with pytest.raises(MaskhubError, match=f"^{vocabulary}: {said}") as caught:
            tiny.build(base, maskset, tmp_path / "out")
        assert not isinstance(caught.value, OutputError)
    assert os.listdir(tmp_path) == ["base"]


def test_a_sweep_spares_what_others_are_at_work_on(tmp_path: Path) -> None:
    with atomic_folders([tmp_path / "out"]) as [folder], atomic_file(tmp_path / "file") as file:
        folder.write("half", b"")
        with atomic_folders([tmp_path / "out"]) as [second]:
            assert len(list(tmp_path.glob(".out.*/half"))) == 1
            second.write("whole", b"")
        (tmp_path / "out" / "whole").unlink()
        file.write(b"1")
    assert os.listdir(tmp_path / "out") == ["half"]
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]
