from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskhub.container.reader import MaskFile
from maskhub.container.summary import entropy, summarize
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet


def test_entropy() -> None:
    assert entropy(0) == entropy(1) == 0
    assert entropy(0.5) == 1
    assert entropy(0.05) == pytest.approx(0.2863969571)
    assert entropy(0.95) == pytest.approx(entropy(0.05))


def small(shapes: dict[str, tuple[int, ...]], path: Path, drop: int = 1) -> MaskFile:
    masks = {}
    for name, shape in shapes.items():
        keep = np.ones(shape, bool)
        keep.reshape(-1)[:drop] = False
        masks[name] = Mask.from_bool(keep)
    digests = dict.fromkeys(shapes, "0" * 64)
    save(MaskSet(BaseBinding.of("base", digests, {n: f"model.{n}" for n in shapes}, None), masks), path, codec="bits")
    return MaskFile(path)


def test_totals_weigh_every_tensor_by_its_size(tmp_path: Path) -> None:
    summary = summarize(small({"a": (4, 4), "b": (8, 6)}, tmp_path / "m.msk", drop=8))
    assert (summary.weights, summary.dropped, summary.mask_bytes) == (64, 16, 8)
    assert (summary.sparsity, summary.bits_per_weight) == (0.25, 1.0)
    assert [row.sparsity for row in summary.masks] == [0.5, pytest.approx(1 / 6)]
    assert summary.shannon_bound == pytest.approx((16 * 1 + 48 * entropy(1 / 6)) / 64)
    assert summary.codecs == {"bits": 2}
    assert [row.parameter for row in summary.masks] == ["model.a", "model.b"]


def test_empty_tensors_divide_by_nothing(tmp_path: Path) -> None:
    summary = summarize(small({"a": (0, 4)}, tmp_path / "m.msk"))
    assert (summary.weights, summary.sparsity, summary.bits_per_weight, summary.shannon_bound) == (0, 0, 0, 0)


def test_no_payload_is_decoded(mask_path: Path, tmp_path: Path) -> None:
    data = bytearray(mask_path.read_bytes())
    whole = summarize(MaskFile(mask_path))
    data[-whole.mask_bytes - whole.dense_bytes :] = bytes(whole.mask_bytes + whole.dense_bytes)
    (tmp_path / "damaged.msk").write_bytes(data)
    assert summarize(MaskFile(tmp_path / "damaged.msk")).masks == whole.masks
