"""HDF5 of others: nothing in it reads another file, or takes more memory than the file explains."""

from __future__ import annotations

import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError, TrainingError
from maskhub.masks.mask import MaskSet
from maskhub.storage import hdf5
from maskhub.training.recording import RECORDING, Recorder, read_recording

h5py = pytest.importorskip("h5py")

GIB = 1 << 30
HUGE = 16 * GIB // 8
TEXT = h5py.string_dtype()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a recording of two steps, and one beside it with secrets."""
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
        recorder = Recorder(tmp_path / name, {"a": 10, "b": 20}, ["accuracy"])
        for step in (1, 2):
            recorder.train(step, {"loss": 4242.0})
            recorder.mask(step, [0.5, 0.5], [1, 2], [1, 0], [0.5, 0.5])
            recorder.eval(step, {"accuracy": 0.5})
        recorder.close()
    (tmp_path / "secret").write_bytes(bytes(16))
    return tmp_path / "run"


def replaced(name: str, *given: Any, **more: Any) -> Callable[[Any, Path], None]:
    """A dataset in the place of another."""

    def change(file: Any, folder: Path) -> None:
        del file[name]
        file.create_dataset(name, *given, **more)

    return change


def external_link(file: Any, folder: Path) -> None:
    del file["train"]
    file["train"] = h5py.ExternalLink(folder / "other" / RECORDING, "train")


def deep_external_link(file: Any, folder: Path) -> None:
    del file["train/loss"]
    file["train/loss"] = h5py.ExternalLink(folder / "other" / RECORDING, "train/loss")


def soft_link(file: Any, folder: Path) -> None:
    file.move("train/loss", "elsewhere")
    file["train/loss"] = h5py.SoftLink("/elsewhere")


def external_storage(file: Any, folder: Path) -> None:
    del file["train/loss"]
    file.create_dataset("train/loss", (2,), np.float64, external=[(str(folder / "secret"), 0, 16)])


def virtual(file: Any, folder: Path) -> None:
    del file["train/loss"]
    layout = h5py.VirtualLayout((2,), np.float64)
    layout[:] = h5py.VirtualSource(folder / "other" / RECORDING, "train/loss", (2,))
    file.create_virtual_dataset("train/loss", layout)


def virtual_names(file: Any, folder: Path) -> None:
    del file["mask/tensors"]
    layout = h5py.VirtualLayout((2,), TEXT)
    layout[:] = h5py.VirtualSource(folder / "other" / RECORDING, "mask/tensors", (2,))
    file.create_virtual_dataset("mask/tensors", layout)


def one_text_many_times(file: Any, folder: Path) -> None:
    """30,000 names that are all the same megabyte."""
    del file["mask/tensors"]
    made = file.create_dataset("mask/tensors", data=["x" * 1_000_000, *["y"] * 29_999], dtype=TEXT)
    file.flush()
    start = made.id.get_offset()
    path = Path(file.filename)
    file.close()
    with path.open("r+b") as raw:
        raw.seek(start)
        first = raw.read(16)
        raw.seek(start)
        raw.write(first * 30_000)


HOSTILE: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "an external link": (external_link, "train is a link"),
    "an external link below": (deep_external_link, "loss is a link"),
    "a soft link": (soft_link, "loss is a link"),
    "external storage": (external_storage, "loss lies in another file"),
    "a virtual dataset": (virtual, "loss lies in another file"),
    "virtual names": (virtual_names, "tensors lies in another file"),
    "16 GiB that are not there": (
        replaced("train/step", (HUGE,), np.int64),
        f"/train/step asks for {16 * GIB:,} bytes, and the file has fewer",
    ),
    "16 GiB in chunks": (
        replaced("train/step", (HUGE,), np.int64, chunks=(64,)),
        f"/train/step asks for {16 * GIB:,} bytes, and the file has fewer",
    ),
    "one step in a chunk of a gigabyte": (
        replaced("train/step", (1,), np.int64, chunks=(GIB // 8,), maxshape=(None,)),
        f"/train/step asks for {GIB:,} bytes, and the file has fewer",
    ),
    "16 GiB beside few steps": (
        replaced("mask/flips", (2, HUGE), np.int64, chunks=(1, 64)),
        f"/mask/flips asks for {32 * GIB:,} bytes, and the file has fewer",
    ),
    "more than can be counted": (
        replaced("mask/flips", (2**33, 2**33), np.int64, chunks=(1, 64)),
        f"/mask/flips asks for {2**69:,} bytes, and the file has fewer",
    ),
    "compressed": (replaced("train/step", data=np.arange(2), compression="gzip"), "/train/step is compressed"),
    "one text many times": (one_text_many_times, "/mask/tensors asks for more text than the file has"),
    "texts that are not there": (
        replaced("mask/tensors", (HUGE,), TEXT),
        "/mask/tensors asks for more texts than the file has",
    ),
    "long texts": (replaced("eval/names", (1,), "S2000000000"), "/eval/names asks for more texts than the file has"),
    "other numbers": (replaced("train/step", data=np.zeros(2)), "/train/step is not of 1 dimensions and int64"),
    "fewer losses": (replaced("train/loss", data=np.zeros(1)), "/train/loss has fewer rows than there are steps"),
    "more tensors": (replaced("mask/flips", data=np.zeros((2, 3), int)), "its masks are not of as many tensors as it"),
    "nothing": (replaced("train/step", dtype=np.int64, data=h5py.Empty(np.int64)), "is not of 1 dimensions and int64"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_recording(run: Path, attack: str) -> None:
    change, message = HOSTILE[attack]
    assert read_recording(run).train["loss"].tolist() == [4242.0, 4242.0]
    with h5py.File(run / RECORDING, "r+") as file:
        change(file, run.parent)
    assert (run / RECORDING).stat().st_size < 3_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TrainingError) as caught:
        read_recording(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{run / RECORDING}: cannot be read as a recording: ")


def test_a_bank_of_other_banks_links_is_not_added_to(maskset: MaskSet, tmp_path: Path) -> None:
    """What it holds besides is copied: not what leads elsewhere."""
    path = tmp_path / "m.h5"
    interop.export(maskset, path, "h5")
    with h5py.File(path, "r+") as file:
        file["m/deep/er"] = h5py.ExternalLink("/etc/hostname", "x")
        file["m/deep/circle"] = file["m"]
    before = path.read_bytes()
    with pytest.raises(FormatError, match="er is a link"):
        interop.export(maskset, path, "h5", name="n")
    assert path.read_bytes() == before
    with h5py.File(path, "r+") as file:
        del file["m/deep/er"]
    interop.export(maskset, path, "h5", name="n")


def mask_of(file: Any) -> Any:
    return next(iter(file["m/masks"].values()))


def replace_mask(path: Path, chunk: bytes | None, *, filters: dict[str, Any] | None = None) -> None:
    """One mask of a bank, in one chunk, of which these are the stored bytes."""
    with h5py.File(path, "r+") as file:
        old = mask_of(file)
        name, size, shape = old.name, old.shape[0], old.attrs["shape"]
        del file[name]
        new = file.create_dataset(name, (size,), np.uint8, chunks=(size,), **filters or {"compression": "gzip"})
        new.attrs["shape"] = shape
        if chunk is not None:
            new.id.write_direct_chunk((0,), chunk)


READ = """
import resource, sys
from maskhub import interop
from maskhub.checkpoints.checkpoint import open_checkpoint
base = open_checkpoint(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    interop.read(sys.argv[2], base)
except Exception as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (zlib.compress(bytes(GIB)), "has a chunk that is not of 5 bytes"),
        (zlib.compress(bytes(4)), "has a chunk that is not of 5 bytes"),
        (zlib.compress(bytes(5))[:-1], "has a chunk that is not of 5 bytes"),
        (b"no stream", "damaged"),
        (None, "has no bytes from 0 on"),
    ],
    ids=["bomb", "short", "cut", "none", "absent"],
)
def test_a_chunk_that_becomes_large(
    base: Checkpoint, maskset: MaskSet, tmp_path: Path, stored: bytes | None, message: str
) -> None:
    path = tmp_path / "m.h5"
    interop.export(maskset, path, "h5")
    replace_mask(path, stored)
    ran = subprocess.run(
        [sys.executable, "-c", READ, base.folder, path], capture_output=True, text=True, check=True, timeout=120
    )
    said, megabytes = ran.stdout.splitlines()
    assert message in said
    assert int(megabytes) < 100


def test_other_filters_are_refused(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    interop.export(maskset, path, "h5")
    replace_mask(path, None, filters={"compression": "lzf"})
    with pytest.raises(FormatError, match="is compressed by other means than gzip"):
        interop.read(path, base)


def test_gzipped_chunks_are_read_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, 1000, dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for chunk in (1, 64, 999, 1000):
            made = file.create_dataset(str(chunk), data=values, chunks=(chunk,), compression="gzip")
            assert (hdf5.inflated(made, "x") == values).all()
        made = file.create_dataset("plain", data=values)
        assert (hdf5.inflated(made, "x") == values).all()


def test_attributes_of_many_numbers_or_texts_are_not_read(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    for name, value, message in (
        ("shape", np.zeros(1000, int), "the attribute shape is no list of numbers"),
        ("shape", "text", "the attribute shape is no list of numbers"),
        ("shape", h5py.Empty("i8"), "the attribute shape is no list of numbers"),
    ):
        path = tmp_path / "m.h5"
        path.unlink(missing_ok=True)
        interop.export(maskset, path, "h5")
        with h5py.File(path, "r+") as file:
            mask_of(file).attrs[name] = value
        with pytest.raises(FormatError, match=message):
            interop.read(path, base)
    with h5py.File(path, "r+") as file:
        file["m"].attrs["manifest"] = np.array(["x"] * 1000, dtype=TEXT)
    with pytest.raises(FormatError, match="the attribute manifest is no text"):
        interop.read(path, base)
