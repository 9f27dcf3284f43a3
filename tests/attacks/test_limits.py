"""How large the masks of a file may be: in proportion to the file, or as large as the tensors of a base."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.apply import tensors
from maskhub.container.codecs import most
from maskhub.errors import BaseMismatchError, FormatError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.digest import full_mask_digest
from maskhub.storage.safetensors import write_header
from maskhub.storage.tensor import Spec
from tests.attacks.forge import with_manifest

SHAPE = (1 << 14, 1 << 14)  # 32 MiB of bits
DROPS = "drops"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two large tensors of zeros, as a hole in a file."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "model.safetensors").open("wb") as file:
        specs = {name: Spec("U8", SHAPE) for name in ("keeps", DROPS)}
        write_header(file, specs)
        file.truncate(file.tell() + sum(spec.nbytes for spec in specs.values()))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def masks(base: Path) -> tuple[Path, Path]:
    """A mask that keeps all of one tensor, and one that drops a weight of the other."""
    checkpoint = maskhub.open_checkpoint(base)
    digests = {name: checkpoint.digest(name) for name in checkpoint}
    binding = BaseBinding.of("large", digests, {name: name for name in digests}, None)
    keep = np.ones(SHAPE, bool)
    found = []
    for name in ("keeps", DROPS):
        keep[5, 5] = name != DROPS
        found.append(base / f"{name}.msk")
        maskhub.save(MaskSet(binding, {name: Mask.from_bool(keep)}), found[-1])
        assert most(found[-1].stat().st_size) < Mask.from_bool(keep).bits.size
    return found[0], found[1]


def peak(work: Callable[[], object]) -> int:
    """The most memory that work took at a time, of what NumPy and Python know."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("which", [0, 1])
def test_masks_larger_than_their_file_allows_need_a_base(base: Path, masks: tuple[Path, Path], which: int) -> None:
    with pytest.raises(FormatError, match=r"bytes that claim masks of 33,554,432 bytes; without a base") as caught:
        maskhub.verify(masks[which])
    assert caught.value.hint == f"Give the base: maskhub verify {masks[which]} --base large"
    assert maskhub.verify(masks[which], base=base).base_tensors == 2
    assert maskhub.info(masks[which]).weights == SHAPE[0] * SHAPE[1]


def test_a_base_of_another_shape_does_not_lift_the_limit(masks: tuple[Path, Path], tmp_path: Path) -> None:
    with (tmp_path / "other.safetensors").open("wb") as file:
        write_header(file, {"keeps": Spec("U8", (2, 2)), DROPS: Spec("U8", (2, 2))})
        file.write(bytes(8))
    with pytest.raises(BaseMismatchError, match="has shape"):
        maskhub.verify(masks[1], base=tmp_path / "other.safetensors")


def test_what_keeps_everything_is_never_made(base: Path, masks: tuple[Path, Path]) -> None:
    checkpoint = maskhub.open_checkpoint(base)
    opened = maskhub.open(masks[0])
    assert peak(lambda: maskhub.verify(masks[0], base=base)) < 8 << 20
    assert peak(lambda: maskhub.info(masks[0])) < 8 << 20
    assert peak(lambda: next(tensors(checkpoint, opened))) < 2 * SHAPE[0] * SHAPE[1] + (16 << 20)
    assert opened["keeps"].keeps_all


def test_what_drops_a_weight_is_applied_with_a_base(base: Path, masks: tuple[Path, Path]) -> None:
    checkpoint, opened = maskhub.open_checkpoint(base), maskhub.open(masks[1])
    assert not opened[DROPS].keeps_all
    with pytest.raises(FormatError, match="without a base"):
        _ = maskhub.open(masks[1])[DROPS].bits
    composed = maskhub.compose("~a", {"a": maskhub.open(masks[1])})
    with pytest.raises(FormatError, match="without a base"):
        _ = composed[DROPS].bits
    for maskset in (opened, composed):
        assert sum(1 for _ in tensors(checkpoint, maskset, verify=False)) == 2
    assert composed[DROPS].kept == 1


def test_masks_count_together(base: Path, tmp_path: Path) -> None:
    """Each alone would be within the limit."""
    side = 1 << 13
    count = 6  # of 8 MiB
    names = [f"w{i}" for i in range(count)]
    binding = BaseBinding.of("b", dict.fromkeys(names, "0" * 64), {name: name for name in names}, None)
    maskset = MaskSet(binding, dict.fromkeys(names, Mask.from_bool(np.ones((side, side), bool))))
    maskhub.save(maskset, tmp_path / "x.msk")
    assert side * side // 8 < most(0) < count * side * side // 8
    with pytest.raises(FormatError, match=r"claim masks of 50,331,648 bytes"):
        maskhub.verify(tmp_path / "x.msk")


def test_a_manifest_far_larger_than_its_payload_is_neither_written_nor_read(tmp_path: Path) -> None:
    """A few bytes of Zstandard could hold 64 MiB of brackets, which take gigabytes once they are parsed."""
    binding = BaseBinding.of("b", {"w": "0" * 64}, {"w": "w"}, None)
    with pytest.raises(FormatError, match=r"x\.msk: the manifest .* bytes hold 2,.*, far more than manifests do"):
        maskhub.save(MaskSet(binding, {}, lineage={"note": "x" * 2_000_000}), tmp_path / "x.msk")
    assert not list(tmp_path.iterdir())
    notes = {"note": "x" * 1_000_000}
    maskhub.save(MaskSet(binding, {}, lineage=notes), tmp_path / "x.msk")
    assert maskhub.open(tmp_path / "x.msk").lineage == notes
    text = json.dumps(notes | {"more": "x" * 100_000}).encode()
    (tmp_path / "x.msk").write_bytes(with_manifest(text))
    with pytest.raises(FormatError, match="far more than manifests do"):
        maskhub.open(tmp_path / "x.msk")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8,), (9,), (3, 5), (1 << 12, 1 << 11), ((1 << 23) + 3,)])
def test_the_digest_of_a_mask_that_keeps_everything(shape: tuple[int, ...]) -> None:
    assert full_mask_digest(shape) == Mask.from_bool(np.ones(shape, bool)).digest
