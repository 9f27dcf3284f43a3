from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

import maskhub
from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.checkpoint import INDEX, TOKENIZER_FILES, WEIGHTS, Checkpoint, open_checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.container.writer import save
from maskhub.errors import BaseMismatchError, IntegrityError, MissingError, OutputError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.tensor import ITEM_SIZE, RawTensor
from tests import tiny

# Bit patterns that arithmetic would change: NaNs with a payload, infinities, negative zero, subnormals.
SPECIAL = {
    "F64": [0x7FF8000000000001, 0xFFF0000000000000, 0x7FF0000000000000, 1 << 63, 1],
    "F32": [0x7FC00001, 0xFF800000, 0x7F800000, 1 << 31, 1],
    "F16": [0x7E01, 0xFC00, 0x7C00, 1 << 15, 1],
    "BF16": [0x7FC1, 0xFF80, 0x7F80, 1 << 15, 1],
    "F8_E4M3": [0x7F, 0xFF, 0x7E, 0x80, 1],
    "F8_E5M2": [0x7F, 0xFC, 0x7C, 0x80, 1],
}


def special_base(folder: Path, dtype: str, *, shards: int = 1) -> Checkpoint:
    """A base whose every tensor starts with the special bit patterns, twice."""
    tensors = tiny.base_tensors(dtype, integers=True)
    for name, tensor in tensors.items():
        if tensor.dtype == dtype:
            data = tensor.data.copy()
            words = data.view(f"<u{ITEM_SIZE[dtype]}")
            words[:10] = np.array(SPECIAL[dtype] * 2, words.dtype)[: words.size]
            tensors[name] = RawTensor(dtype, tensor.shape, data)
    return open_checkpoint(tiny.write_checkpoint(folder, tensors, shards=shards))


def special_maskset(base: Checkpoint) -> MaskSet:
    """Drops the first of the special patterns in each masked tensor, and keeps the second."""
    maskset = tiny.tiny_maskset(base)
    masks = {}
    for name, mask in maskset.masks.items():
        keep = mask.to_bool().copy()
        keep.reshape(-1)[:5], keep.reshape(-1)[5:10] = False, True
        masks[name] = Mask.from_bool(keep)
    return dataclasses.replace(maskset, masks=masks)


@pytest.mark.parametrize("dtype", tiny.FLOATS)
@pytest.mark.parametrize("shards", [1, 3])
def test_dropped_weights_are_zero_and_kept_ones_keep_every_bit(tmp_path: Path, dtype: str, shards: int) -> None:
    base = special_base(tmp_path / "base", dtype, shards=shards)
    maskset = special_maskset(base)
    result = open_checkpoint(tiny.build(base, maskset, tmp_path / "out"))
    assert set(result) == {*(f"bert.{name}" for name in maskset.base.tensors), *maskset.dense}
    for name in maskset.base.tensors:
        before, after = base.read(name), result.read(f"bert.{name}")
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        expected = before.words()
        if name in maskset.masks:
            expected = np.where(maskset.masks[name].to_bool().reshape(-1), expected, 0)
            assert after.words()[:5].tolist() == [0] * 5
            assert after.words()[5:10].tolist() == SPECIAL[dtype]
        assert np.array_equal(after.words(), expected)
    for name, tensor in maskset.dense.items():
        assert result.read(name).data.tobytes() == tensor.data.tobytes()


@given(
    st.sampled_from([1, 2, 4, 8]).flatmap(
        lambda width: hnp.arrays(f"<u{width}", hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    st.integers(0, 2**32),
)
def test_drop_selects_words_of_any_width(words: np.ndarray, seed: int) -> None:
    keep = np.random.default_rng(seed).random(words.shape) < 0.5
    dtype = {1: "F8_E4M3", 2: "BF16", 4: "F32", 8: "F64"}[words.itemsize]
    data = words.reshape(-1).view(np.uint8)
    dropped = dense.drop(RawTensor(dtype, words.shape, data), Mask.from_bool(keep))
    assert dropped.tobytes() == np.where(keep, words, words.dtype.type(0)).tobytes()


def test_the_result_is_sharded_as_the_base(tmp_path: Path) -> None:
    base = open_checkpoint(tiny.write_base(tmp_path / "base", shards=3, integers=True))
    maskset = tiny.tiny_maskset(base)
    out = tiny.build(base, maskset, tmp_path / "out")
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(p.name for p in out.glob("*.safetensors*")) == [*names, INDEX]
    index = json.loads((out / INDEX).read_text())
    content = {name: load_file(out / name) for name in names}
    assert index["weight_map"] == {tensor: name for name, tensors in content.items() for tensor in tensors}
    assert index["metadata"] == {"total_size": sum(t.nbytes for ts in content.values() for t in ts.values())}
    assert content[names[2]].keys() >= maskset.dense.keys()
    for shard, name in zip(base.shards, names, strict=True):
        expected = {f"bert.{n}" for n in shard if n in maskset.base.tensors}
        assert content[name].keys() - maskset.dense.keys() == expected


def test_shards_and_tensors_that_the_task_does_not_read_are_left_out(tmp_path: Path) -> None:
    base = open_checkpoint(tiny.write_base(tmp_path / "base", shards=3))
    whole = tiny.tiny_maskset(base)
    last = set(base.shards[-1])
    bound = {n: d for n, d in digests(base).items() if n not in last}
    maskset = dataclasses.replace(
        whole,
        base=BaseBinding.of("b", bound, {n: f"bert.{n}" for n in bound}, None),
        masks={n: m for n, m in whole.masks.items() if n in bound},
    )
    out = open_checkpoint(tiny.build(base, maskset, tmp_path / "out"))
    assert set(out) == {*(f"bert.{n}" for n in bound), *maskset.dense}
    assert len(out.shards) == 2


def test_a_task_may_read_nothing_of_the_base(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    alone = MaskSet(BaseBinding.of("b", {}, {}, None), {}, maskset.dense, maskset.task)
    assert load_file(tiny.build(base, alone, tmp_path / "out") / WEIGHTS).keys() == maskset.dense.keys()


def test_the_configuration_is_the_tasks(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    labels = {"0": "Spaß", "1": "垃圾"}
    assert maskset.task
    task = tiny.Task(maskset.task.type, maskset.task.architecture, {"id2label": labels})
    other = dataclasses.replace(maskset, task=task)
    out = tiny.build(base, other, tmp_path / "out")
    config = json.loads((out / "config.json").read_bytes())
    assert config == base.config() | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": labels,
        "maskhub": {"base": maskset.base.root, "mask": other.id},
    }
    plain = tiny.build(base, dataclasses.replace(maskset, task=None), tmp_path / "plain")
    assert json.loads((plain / "config.json").read_bytes())["architectures"] == ["BertModel"]


def test_tokenizer_files_are_copied_and_nothing_else(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (folder / "merges.txt").write_text("merges")
    (folder / "pytorch_model.bin").write_text("other weights")
    (folder / "modeling.py").write_text("code")
    out = tiny.build(open_checkpoint(folder), maskset, tmp_path / "out")
    copied = {"merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert {p.name for p in out.iterdir()} == copied | {WEIGHTS, "config.json", "README.md"}
    assert copied <= set(TOKENIZER_FILES)
    for name in copied:
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_a_mask_file_gives_the_same_as_the_mask_set(
    base: Checkpoint, maskset: MaskSet, mask_path: Path, tmp_path: Path
) -> None:
    one = tiny.build(base, maskset, tmp_path / "one")
    two = tiny.build(base, maskhub.open(mask_path), tmp_path / "two")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_progress_counts_bytes_up_to_all(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    for run in (
        lambda progress: tiny.build(base, maskset, tmp_path / "out", progress=progress),
        lambda progress: dense.verify_base(base, maskset, progress=progress),
    ):
        calls: list[tuple[int, int]] = []
        run(lambda done, total, calls=calls: calls.append((done, total)))
        assert calls == sorted(calls)
        assert calls[-1][0] == calls[-1][1] > 0
        assert len({total for _, total in calls}) == 1


def test_tensors_are_what_apply_writes(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    written = open_checkpoint(tiny.build(base, maskset, tmp_path / "out"))
    yielded = dict(dense.tensors(base, maskset))
    assert yielded.keys() == set(written)
    for name, tensor in yielded.items():
        assert (tensor.dtype, tensor.shape) == (written.info(name).dtype, written.info(name).shape)
        assert tensor.data.tobytes() == written.read(name).data.tobytes()


def other_base(folder: Path, change: dict[str, RawTensor | None]) -> Checkpoint:
    """The tiny base with tensors changed, or (None) left out."""
    tensors = tiny.base_tensors() | change
    return open_checkpoint(tiny.write_checkpoint(folder, {n: t for n, t in tensors.items() if t is not None}))


def one_bit(name: str) -> RawTensor:
    tensor = tiny.base_tensors()[name]
    data = tensor.data.copy()
    data[-1] ^= 1
    return RawTensor(tensor.dtype, tensor.shape, data)


def every_way(base: Checkpoint, maskset: MaskSet, out: Path) -> list[BaseMismatchError]:
    """The error of each function that meets this base."""
    errors = []
    for run in (
        lambda: tiny.build(base, maskset, out),
        lambda: dense.verify_base(base, maskset),
        lambda: list(dense.tensors(base, maskset)),
    ):
        with pytest.raises(BaseMismatchError) as caught:
            run()
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.weight", "pooler.dense.bias"])
def test_one_bit_of_one_base_tensor_is_found(maskset: MaskSet, tmp_path: Path, name: str) -> None:
    base = other_base(tmp_path / "base", {name: one_bit(name)})
    for error in every_way(base, maskset, tmp_path / "out"):
        assert error.message == (
            f"{base.name}: not the base this mask was made for: it differs in 1 of {len(tiny.SHAPES)} tensors: {name}"
        )
        assert error.tensors == (name,)
        assert error.hint == "This mask belongs to tiny-bert."
    assert os.listdir(tmp_path) == ["base"]


def test_a_wholly_other_base_names_a_few_tensors(maskset: MaskSet, tmp_path: Path) -> None:
    base = open_checkpoint(tiny.write_base(tmp_path / "base", seed=1))
    for error in every_way(base, maskset, tmp_path / "out"):
        count = len(tiny.SHAPES)
        assert f"it differs in {count} of {count} tensors: " in str(error)
        assert error.message.endswith(f" and {count - 5} more")
        assert set(error.tensors) == tiny.SHAPES.keys()
    assert os.listdir(tmp_path) == ["base"]


def test_a_missing_tensor_is_named(maskset: MaskSet, tmp_path: Path) -> None:
    base = other_base(tmp_path / "base", {"pooler.dense.bias": None})
    for error in every_way(base, maskset, tmp_path / "out"):
        assert f"it lacks 1 of {len(tiny.SHAPES)} tensors: pooler.dense.bias" in str(error)
        assert error.tensors == ("pooler.dense.bias",)
    assert os.listdir(tmp_path) == ["base"]


def test_another_shape_is_named(maskset: MaskSet, tmp_path: Path) -> None:
    name = "encoder.layer.0.intermediate.dense.weight"
    tensor = tiny.base_tensors()[name]
    base = other_base(tmp_path / "base", {name: RawTensor("F32", (6, 10), tensor.data)})
    for error in every_way(base, maskset, tmp_path / "out"):
        assert error.message == f"{base.name}: tensor {name} has shape [6, 10], and the mask is for [10, 6]"
        assert error.tensors == (name,)
    assert os.listdir(tmp_path) == ["base"]


def test_another_dtype_is_another_tensor(maskset: MaskSet, tmp_path: Path) -> None:
    name = "encoder.layer.0.intermediate.dense.weight"
    tensor = tiny.base_tensors()[name]
    base = other_base(tmp_path / "base", {name: RawTensor("I32", tensor.shape, tensor.data)})
    for error in every_way(base, maskset, tmp_path / "out"):
        assert f"it differs in 1 of {len(tiny.SHAPES)} tensors: {name}" in str(error)
    assert os.listdir(tmp_path) == ["base"]


def test_another_base_is_taken_only_when_asked(maskset: MaskSet, tmp_path: Path) -> None:
    name = "pooler.dense.bias"
    base = other_base(tmp_path / "base", {name: one_bit(name)})
    out = open_checkpoint(tiny.build(base, maskset, tmp_path / "out", verify=False))
    assert out.read(f"bert.{name}").data.tobytes() == one_bit(name).data.tobytes()
    assert dict(dense.tensors(base, maskset, verify=False)).keys() == set(out)


def test_a_base_without_configuration_leaves_nothing(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    shutil.copytree(base_folder, tmp_path / "base")
    (tmp_path / "base" / "config.json").unlink()
    with pytest.raises(MissingError, match=r"config\.json: no such file"):
        tiny.build(open_checkpoint(tmp_path / "base"), maskset, tmp_path / "out")
    assert os.listdir(tmp_path) == ["base"]


def test_damaged_masks_leave_nothing(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    save(maskset, path)
    opened = maskhub.open(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"changed or damaged after it was written \(seal\)"):
        maskhub.open(path)
    with pytest.raises(IntegrityError, match=r".*: the decoded mask does not match its digest"):
        tiny.build(base, opened, tmp_path / "out")
    assert os.listdir(tmp_path) == ["x.msk"]


def test_an_output_that_is_taken_is_refused(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name, reason in {
        "full": "exists and is not empty",
        "file": "exists and is not a folder",
        "link": "exists and is a link",
        "file/below": "is a file",
    }.items():
        with pytest.raises(OutputError, match=f"{name}: .*{reason}"):
            tiny.build(base, maskset, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file", "full", "link"]
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "full") == ["x"]
    with pytest.raises(MissingError, match="cannot be written"):
        tiny.build(base, maskset, Path("/proc/out"))
    tiny.build(base, maskset, tmp_path / "elsewhere")  # an empty folder is free


def test_an_output_inside_the_base_is_refused(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (tmp_path / "way").symlink_to("base")
    for out in (folder, folder / "out", folder / "a" / ".." / "out", tmp_path / "way" / "out"):
        with pytest.raises(OutputError, match="the output lies inside the base's own folder"):
            tiny.build(open_checkpoint(folder), maskset, out)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(base_folder))


def test_a_base_of_links_into_the_hub_cache_is_never_written(
    base_folder: Path, maskset: MaskSet, tmp_path: Path
) -> None:
    snapshot, _ = tiny.hub_cache(tmp_path / "cache", "user/tiny", base_folder)
    blobs = sorted((snapshot.parent.parent / "blobs").iterdir())
    before = [(b.read_bytes(), b.stat().st_mtime_ns, b.stat().st_mode) for b in blobs]
    out = tiny.build(open_checkpoint(snapshot), maskset, tmp_path / "out")
    assert [(b.read_bytes(), b.stat().st_mtime_ns, b.stat().st_mode) for b in blobs] == before
    assert not any(p.is_symlink() for p in out.iterdir())
    assert all(os.access(p, os.W_OK) and p.stat().st_mode & 0o200 for p in out.iterdir())
    for path in out.iterdir():  # nor by whoever changes the result
        path.write_bytes(b"changed")
    assert [b.read_bytes() for b in blobs] == [content for content, _, _ in before]


APPLY = """
import resource, sys
base, mask, out, limit = sys.argv[1:]
import maskhub
from maskhub.checkpoints.apply import build
base, mask = maskhub.open_checkpoint(base), maskhub.open(mask)
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    build(base, [(mask, out)])
except maskhub.MaskhubError as error:
    print(type(error).__name__, error)
"""


def test_a_file_size_limit_leaves_nothing(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", APPLY, base_folder, mask_path, tmp_path / "out", "2000"]
    child = subprocess.run(arguments, capture_output=True, text=True)
    assert (child.stdout, child.stderr) == (f"OutputError {tmp_path / 'out'}: cannot be written: File too large\n", "")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    inside = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=4k none "$1" && shift && "$@"', "sh", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    out = tmp_path / "out"
    script = APPLY + "import os; print(os.listdir(os.path.dirname(out)))"
    arguments = [*inside, sys.executable, "-c", script, str(base_folder), str(mask_path), str(out), "0"]
    child = subprocess.run(arguments, capture_output=True, text=True)
    assert child.stdout == f"OutputError {out}: cannot be written: No space left on device\n[]\n", child.stderr


def test_a_killed_build_leaves_no_output(base: Checkpoint, maskset: MaskSet, mask_path: Path, tmp_path: Path) -> None:
    kill = APPLY.replace(
        "out)])\n", "out)], progress=lambda done, total: 2 * done > total and os.kill(os.getpid(), 9))\n"
    )
    arguments = [sys.executable, "-c", "import os" + kill, base.folder, mask_path, tmp_path / "out", "0"]
    assert subprocess.run(arguments).returncode == -9
    assert not (tmp_path / "out").exists()
    tiny.build(base, maskset, tmp_path / "out")
