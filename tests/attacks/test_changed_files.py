"""Files that others cut or change while they are read: one error that names them, or the right result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.apply import build
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.scan import scan
from maskhub.errors import BaseMismatchError, FormatError, IntegrityError
from maskhub.masks.mask import MaskSet
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor, Spec
from tests import tiny
from tests.storage.test_torch import as_torch

# Applies a mask to a base that another process cuts once it was opened.
CUT = """
import os, subprocess, sys, maskhub
base, mask, out, cut = sys.argv[1:]
opened = maskhub.open_checkpoint(base)
subprocess.run(["truncate", "-s", "-9000", cut], check=True)
try:
    maskhub.apply(opened, mask, out)
except maskhub.MaskhubError as error:
    sys.exit(f"Error: {error}")
"""


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_base_that_is_cut_while_it_is_read(tmp_path: Path, kind: str) -> None:
    base = tiny.write_base(tmp_path / "a")
    maskhub.save(tiny.tiny_maskset(base), tmp_path / "task.msk")
    if kind == "torch":
        pytest.importorskip("torch")
        base = as_torch(base, tmp_path / "b")
    weights = next(path for path in base.iterdir() if path.suffix in (".safetensors", ".bin"))
    before = sorted(os.listdir(tmp_path))
    arguments = [base, tmp_path / "task.msk", tmp_path / "out", weights]
    ran = subprocess.run([sys.executable, "-c", CUT, *arguments], capture_output=True, text=True)
    assert ran.returncode == 1, (ran.returncode, ran.stderr)
    assert ran.stderr.startswith(f"Error: {weights}: became shorter while it was read. ")
    assert ran.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_a_mask_that_is_cut_after_it_was_opened(maskset: MaskSet, tmp_path: Path) -> None:
    maskhub.save(maskset, tmp_path / "x.msk", codec="bits")
    opened = maskhub.open(tmp_path / "x.msk")
    os.truncate(tmp_path / "x.msk", 100)
    with pytest.raises(FormatError, match=r"x\.msk: became shorter while it was read"):
        _ = opened[next(iter(opened))].bits
    with pytest.raises(FormatError, match=r"x\.msk: became shorter while it was read"):
        _ = opened.dense["classifier.weight"].data


def overwrite(path: Path, place: int, value: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), value, place)


def test_the_digest_is_that_of_the_bytes_handed_on(tmp_path: Path) -> None:
    """A sink that changes the file right after its chunk was read sees, and so does the digest, what was read."""
    folder = tiny.write_base(tmp_path / "base")
    base = open_checkpoint(folder)
    name = "embeddings.word_embeddings.weight"
    start = base.tensors[name].tensors[name].start  # type: ignore[attr-defined]
    expected = base.read(name).data.copy()
    got = np.zeros_like(expected)

    def sinks(name: str, spec: Spec) -> list[Callable[[int, np.ndarray], None]]:
        def changes(at: int, chunk: np.ndarray) -> None:
            overwrite(folder / "model.safetensors", start + at, bytes(chunk.size))

        def keeps(at: int, chunk: np.ndarray) -> None:
            got[at : at + chunk.size] = chunk

        return [changes, keeps]

    found = scan(base, [name], sinks)
    assert np.array_equal(got, expected)
    assert found[name] == digest.tensor_digest("F32", base.info(name).shape, got)
    assert not base.read(name).data.any()  # the file is another now


def weights(folder: Path) -> dict[str, bytes]:
    built = open_checkpoint(folder)
    return {name: built.read(name).data.tobytes() for name in built}


def changing(path: Path, place: int, done: threading.Event) -> None:
    """Flips one weight to and fro, as fast as it can."""
    with path.open("r+b", buffering=0) as file:
        good = os.pread(file.fileno(), 4, place)
        while not done.is_set():
            for value in (b"\0\0\0\0", good):
                os.pwrite(file.fileno(), value, place)


def test_what_is_verified_is_right_though_the_base_changes(tmp_path: Path) -> None:
    folder = tiny.write_base(tmp_path / "base")
    base = open_checkpoint(folder)
    maskset = tiny.tiny_maskset(base)
    expected = weights(tiny.build(base, maskset, tmp_path / "expected"))
    name = "embeddings.word_embeddings.weight"
    place = base.tensors[name].tensors[name].start  # type: ignore[attr-defined]
    done = threading.Event()
    thread = threading.Thread(target=changing, args=(folder / "model.safetensors", place, done))
    thread.start()
    try:
        outcomes = [_tried(base, maskset, tmp_path / f"out{i}", expected) for i in range(40)]
    finally:
        done.set()
        thread.join()
    assert False in outcomes  # it was really changed while it was read


def _tried(base: Checkpoint, maskset: MaskSet, output: Path, expected: dict[str, bytes]) -> bool:
    try:
        build(base, [(maskset, output)])
    except BaseMismatchError:
        assert not output.exists()
        return False
    assert weights(output) == expected
    return True


def test_bits_and_dense_tensors_are_those_that_were_checked(maskset: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    maskhub.save(maskset, path, codec="bits")
    opened = maskhub.open(path)
    name = next(iter(opened))
    bits, dense = opened[name].bits, opened.dense["classifier.weight"].data
    before = bits.copy(), dense.copy()
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(len(content) - 1000))  # in place
    assert np.array_equal(bits, before[0])
    assert np.array_equal(dense, before[1])
    with pytest.raises(IntegrityError, match=f"{name}: the decoded mask does not match its digest"):
        _ = opened[name].bits


def test_what_is_pushed_is_what_was_sealed(maskset: MaskSet, tmp_path: Path) -> None:
    from maskhub.container.reader import MaskFile

    path = tmp_path / "x.msk"
    maskhub.save(maskset, path)
    good = path.read_bytes()
    file = MaskFile(path)
    assert bytes(file.content()) == good
    for place in (20, good.index(b"seal"), len(file._file.header) + 100, len(good) - 1):
        overwrite(path, place, bytes([good[place] ^ 1]))
        if place < len(file._file.header):
            assert bytes(file.content()) == good  # of the header, what was read and checked
        else:
            with pytest.raises(IntegrityError, match="seal"):
                file.content()
        path.write_bytes(good)


def test_read_tensors_are_nobody_elses(base: Checkpoint) -> None:
    name = next(iter(base))
    one, other = base.read(name), base.read(name)
    assert isinstance(one, RawTensor)
    one.data[:] = 0
    assert other.data.any()
