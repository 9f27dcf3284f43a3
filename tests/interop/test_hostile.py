"""Files made to harm: nothing in them runs, nothing large is made of them, and each ends in one line."""

from __future__ import annotations

import contextlib
import io
import pickle
import resource
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import FormatError, MaskhubError
from maskhub.masks.mask import MaskSet

torch = pytest.importorskip("torch")
h5py = pytest.importorskip("h5py")
QUERY = "encoder.layer.1.attention.self.query.weight"


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def refused(path: Path | str, base: Checkpoint, message: str | None = None) -> str:
    with pytest.raises(MaskhubError, match=message) as caught:
        interop.read(path, base)
    assert len(str(caught.value).splitlines()) == 1
    return f"{caught.value} {caught.value.hint or ''}"


def test_pickles_do_not_run(base: Checkpoint, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "file"
    evil = Evil(marker)
    torch.save({QUERY: evil}, file)
    refused(file, base, r"holds more than tensors \(getattr\), and nothing else is ever unpickled")
    torch.save({QUERY: evil}, file, _use_new_zipfile_serialization=False)
    refused(file, base, "holds more than tensors")
    file.write_bytes(pickle.dumps(evil))
    refused(file, base)
    np.save(file.with_suffix(".npy"), np.array({"A": evil}, object), allow_pickle=True)
    assert "np.savez" in refused(file.with_suffix(".npy"), base, "a pickled Python object, which is never unpickled")
    np.savez(file.with_suffix(".npz"), **{f"{QUERY}.mask": np.array([evil], object)})
    refused(file.with_suffix(".npz"), base, "a pickled Python object")
    assert not marker.exists()
    torch.load(io.BytesIO(_saved({"a": evil})), weights_only=False)
    assert marker.exists()  # so the files would have worked


def test_vectors_in_a_pickle_are_refused_with_the_cure(base: Checkpoint, tmp_path: Path) -> None:
    """TALL-masks' own files are pickled dictionaries of NumPy arrays, by either library."""
    tasks = {"A": np.packbits(np.ones(3, bool))}
    np.save(tmp_path / "a.npy", tasks)  # type: ignore[arg-type]
    assert "np.savez" in refused(tmp_path / "a.npy", base)
    torch.save(tasks, tmp_path / "b.npy")
    assert "np.savez" in refused(tmp_path / "b.npy", base, r"holds more than tensors \(numpy")


@pytest.mark.parametrize("content", [[1], torch.ones(2), {"a": 1}, {1: torch.ones(1)}, {"state_dict": {}}, {"a": {}}])
def test_other_contents_of_pytorch_files(base: Checkpoint, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", base, r"no state dict|holds neither masks")


def test_tensors_that_are_not_plain(base: Checkpoint, tmp_path: Path) -> None:
    for tensor, message in (
        (torch.eye(6).to_sparse(), "only dense ones"),
        (torch.ones(6, 6, device="meta"), "only dense ones"),
        (torch.ones(6, 6, dtype=torch.complex64), "only dense ones"),
        (torch.ones(1).expand(1 << 20, 1 << 20), "larger than what is stored"),
    ):
        torch.save({f"{QUERY}.mask": tensor}, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", base, message)


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _bank(maskset: MaskSet, path: Path) -> bytes:
    interop.export(maskset, path, "h5")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pt", "old", "npz", "npy", "h5"])
def test_cut_files(base: Checkpoint, maskset: MaskSet, tmp_path: Path, kind: str) -> None:
    keep = {f"{n}.mask": m.to_bool() for n, m in maskset.masks.items()}
    buffer = io.BytesIO()
    if kind == "pt" or kind == "old":
        tensors = {n: torch.from_numpy(k) for n, k in keep.items()}
        torch.save(tensors, buffer, _use_new_zipfile_serialization=kind == "pt")
    elif kind == "npz":
        buffer.write(_npz({n: np.packbits(k) for n, k in keep.items()}))
    elif kind == "npy":
        np.save(buffer, np.packbits(np.zeros(sum(base.read(n).size for n in base), bool)))
    else:
        buffer.write(_bank(maskset, tmp_path / "bank.h5"))
    whole = buffer.getvalue()
    path = tmp_path / "file"
    path.write_bytes(whole)
    interop.read(path, base)
    for size in [*range(20), *range(20, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path, base)


@pytest.mark.parametrize("kind", ["pt", "npz", "h5"])
def test_changed_bytes_never_end_in_a_traceback(base: Checkpoint, maskset: MaskSet, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"m.{kind}"
    interop.export(maskset, path, kind)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(MaskhubError):
            interop.read(path, base)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
def test_bombs_make_nothing_large(base: Checkpoint, tmp_path: Path) -> None:
    huge = np.zeros(1 << 28, np.uint8)
    bombs: dict[str, bytes] = {
        "packed": _npz({f"{QUERY}.mask": huge}),
        "bool": _npz({QUERY: huge.view(bool)}),
        "vector": _npz({"task": huge}),
        "stranger": _npz({f"{QUERY}.mask": np.packbits(np.ones(36, bool)), "x.mask": huge}),
    }
    assert all(len(bomb) < huge.size // 500 for bomb in bombs.values())
    pt = io.BytesIO()
    saved = io.BytesIO(_saved({f"{QUERY}.mask": torch.from_numpy(huge)}))
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(pt, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    bombs["torch"] = pt.getvalue()
    del huge, saved
    interop.read(_write(tmp_path / "fine.npz", _npz({QUERY: np.eye(6, dtype=bool)})), base)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27), hard))
        for name, bomb in bombs.items():
            message = refused(_write(tmp_path / name, bomb), base)
            assert not {"allocate", "memory"} & set(message.split()), message
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_lies_in_headers_of_arrays(base: Checkpoint, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (5,)})
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr(f"{QUERY}.mask.npy", buffer.getvalue() + b"abc")
    refused(tmp_path / "short.npz", base, "damaged, or no npz file")
    np.save(tmp_path / "a.npy", np.zeros(3, ">f4"))
    refused(tmp_path / "a.npy", base, "an array of dtype >f4, which cannot be read")
    with zipfile.ZipFile(tmp_path / "v3.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x03\x00" + b"\xff" * 40)
    refused(tmp_path / "v3.npz", base, r"npy version \(3, 0\) are not read")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "two.npz", "w") as archive:  # noqa: PT031
        archive.writestr("a.npy", buffer.getvalue())
        archive.writestr("a.npy", buffer.getvalue())
    refused(tmp_path / "two.npz", base, "two arrays of one name")
    np.savez(tmp_path / "bits.npz", **{f"{QUERY}.mask": np.full(5, 255, np.uint8)})
    refused(tmp_path / "bits.npz", base, f"{QUERY}.mask holds more than 36 bits")
    np.savez(tmp_path / "floats.npz", a=np.zeros(3))
    refused(tmp_path / "floats.npz", base, "holds neither masks nor a pruned checkpoint")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"text", "of no kind that can be packed"),
        ("a", b"", "of no kind that can be packed"),
        ("a.zip", None, "of no kind that can be packed"),
        ("a.safetensors", b"", "not a safetensors file"),
        ("b", b"\x10\0\0\0\0\0\0\0{nonsense}", "not a safetensors file"),
    ],
)
def test_other_files(base: Checkpoint, tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    else:
        path.write_bytes(content)
    refused(path, base, message)
    refused(tmp_path / "none.npz", base, "no such file")


def _set(place: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        owner, _, key = place.rpartition("@")
        file[owner].attrs[key] = value

    return change


def _replace(place: str, **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        attributes = dict(file[place].attrs)
        del file[place]
        file.create_dataset(place, **options).attrs.update(attributes)

    return change


MASK, DENSE = f"m/masks/{QUERY}", "m/dense/classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("m@manifest", "{}"), "field 'format' is not 'maskhub'"),
        (_set("m@manifest", 5), "manifest"),
        (_set(f"{MASK}@shape", [4, 9]), "fits no tensor of"),
        (_set(f"{MASK}@shape", "x"), "damaged"),
        (_replace(MASK, data=np.zeros(5, np.int8)), "needs 5 packed bytes"),
        (_replace(MASK, shape=(1 << 40,), dtype=np.uint8), "needs 5 packed bytes"),
        (_replace(MASK, data=np.full(5, 255, np.uint8)), "padding"),
        (_replace(MASK, data=np.zeros(5, np.uint8)), "its id does not match"),
        (lambda file: file.move(MASK, MASK[:-1]), "fits no tensor of"),
        (_set(f"{DENSE}@dtype", "F99"), "is not the bytes of"),
        (_set(f"{DENSE}@shape", [1 << 60, 8]), "is not the bytes of"),
        (_replace(DENSE, shape=(8,), dtype=np.uint8), "is not the bytes of"),
        (_replace(DENSE, data=np.ones(8, np.uint8)), "its id does not match"),
        (lambda file: file["m"].pop("dense"), "damaged"),
        (lambda file: file.pop("m"), "name one of its 0 mask sets"),
    ],
)
def test_banks(base: Checkpoint, maskset: MaskSet, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "m.h5"
    interop.export(maskset, path, "h5")
    with h5py.File(path, "r+") as file:
        change(file)
    refused(path, base, message)


def test_banks_reach_no_other_file(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    interop.export(maskset, tmp_path / "other.h5", "h5")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    layout = h5py.VirtualLayout((5,), np.uint8)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", f"other/masks/{QUERY}", (5,))

    def linked(file: Any) -> None:
        file.move("m", "hidden")
        file["m"] = h5py.ExternalLink(tmp_path / "other.h5", "other")
        del file["hidden"]

    def soft(file: Any) -> None:
        file.move(MASK, "m/x")
        file[MASK] = h5py.SoftLink("/m/x")

    def virtual(file: Any) -> None:
        del file[MASK]
        file["m/masks"].create_virtual_dataset(QUERY, layout)

    for change, message in (
        (linked, "m is a link"),
        (soft, f"{QUERY} is a link"),
        (virtual, f"{QUERY} lies in another file"),
        (_replace(DENSE, shape=(8,), dtype=np.uint8, external=[(str(secret), 0, 8)]), "lies in another file"),
    ):
        path = tmp_path / "m.h5"
        path.unlink(missing_ok=True)
        interop.export(maskset, path, "h5")
        with h5py.File(path, "r+") as file:
            change(file)
        refused(path, base, message)
    path = tmp_path / "m.h5"
    with h5py.File(path, "r+") as file:
        linked(file)
    with pytest.raises(FormatError, match="m is a link"):
        interop.export(maskset, path, "h5", name="n")
