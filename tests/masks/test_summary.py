from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.summary import CHAIN, LINEAGE, METRICS, entropy, summarize, to_data, to_fields, to_html, to_tables
from tests.tiny import sealed


def test_entropy() -> None:
    assert entropy(0) == entropy(1) == 0
    assert entropy(0.5) == 1
    assert entropy(0.05) == pytest.approx(0.2863969571)
    assert entropy(0.95) == pytest.approx(entropy(0.05))


def small(shapes: dict[str, tuple[int, ...]], path: Path, drop: int = 1) -> MaskSet:
    masks = {}
    for name, shape in shapes.items():
        keep = np.ones(shape, bool)
        keep.reshape(-1)[:drop] = False
        masks[name] = Mask.from_bool(keep)
    digests = dict.fromkeys(shapes, "0" * 64)
    save(MaskSet(BaseBinding.of("base", digests, {n: f"model.{n}" for n in shapes}, None), masks), path, codec="bits")
    return maskhub.open(path)


def test_totals_weigh_every_tensor_by_its_size(tmp_path: Path) -> None:
    summary = summarize(small({"a": (4, 4), "b": (8, 6)}, tmp_path / "m.msk", drop=8))
    assert (summary.weights, summary.dropped, summary.mask_bytes) == (64, 16, 8)
    assert (summary.sparsity, summary.bits_per_weight) == (0.25, 1.0)
    assert [row.sparsity for row in summary.masks] == [0.5, pytest.approx(1 / 6)]
    assert summary.entropy == pytest.approx((16 * 1 + 48 * entropy(1 / 6)) / 64)
    assert summary.codecs == {"bits": 2}
    assert [row.parameter for row in summary.masks] == ["model.a", "model.b"]


def test_empty_tensors_divide_by_nothing(tmp_path: Path) -> None:
    summary = summarize(small({"a": (0, 4)}, tmp_path / "m.msk"))
    assert (summary.weights, summary.sparsity, summary.bits_per_weight, summary.entropy) == (0, 0, 0, 0)


def test_no_payload_is_decoded(mask_path: Path, tmp_path: Path) -> None:
    data = bytearray(mask_path.read_bytes())
    whole = summarize(maskhub.open(mask_path))
    data[-whole.mask_bytes - whole.dense_bytes :] = bytes(whole.mask_bytes + whole.dense_bytes)
    (tmp_path / "damaged.msk").write_bytes(data)
    sealed(tmp_path / "damaged.msk")
    assert summarize(maskhub.open(tmp_path / "damaged.msk")).masks == whole.masks


def test_a_mask_set_in_memory_has_no_file_and_no_payloads(maskset: MaskSet, mask_path: Path) -> None:
    memory, file = maskset.summary(), maskhub.open(mask_path).summary()
    assert (memory.file, memory.file_bytes, memory.version, memory.mask_bytes, memory.bits_per_weight) == (None,) * 5
    assert (memory.codecs, memory.chain) == ({}, ())
    for same in ("id", "task", "base", "weights", "dropped", "sparsity", "entropy", "dense", "dense_bytes", "metrics"):
        assert getattr(memory, same) == getattr(file, same)
    assert {"file", "masks", "codecs"}.isdisjoint(to_fields(memory))
    assert set(to_fields(memory)) < set(to_fields(file))
    masks, dense = to_tables(memory)
    assert [row["masked tensor"] for row in masks] == sorted(maskset)
    assert {"codec", "bytes"}.isdisjoint(masks[0])
    assert {"codec", "bytes", "bits/weight"} < set(to_tables(file)[0][0])
    assert dense == to_tables(file)[1]


def test_the_text_is_one_screen_and_all_of_it_where_asked(maskset: MaskSet) -> None:
    lineage = {
        "operation": "train",
        "recipe": "default",
        "settings": {f"a_setting_{i}": i for i in range(40)} | {"epochs": 3.0, "batch_size": 32, "seed": 0},
        "data": {"train": "sst2.csv", "train_examples": 9},
    }
    summary = dataclasses.replace(
        maskset.summary(), lineage=lineage, metrics={f"f1_{i}": i / 10 for i in range(9)}, chain=(("0" * 64, None),) * 9
    )
    short, whole = to_fields(summary), to_fields(summary, all=True)
    assert short["lineage"] == [
        "operation train",
        "recipe default",
        "settings.epochs 3.0",
        "settings.batch_size 32",
        "settings.seed 0",
        "data.train sst2.csv",
        "data.train_examples 9",
        "... 40 more: --all",
    ]
    assert short["metrics"] == ["f1_0 0.0000", "f1_1 0.1000", "f1_2 0.2000", "f1_3 0.3000", "... 5 more: --all"]
    assert [len(whole[label]) for label in ("lineage", "metrics", "coded against")] == [47, 9, 9]
    assert "entropy" in whole
    assert "entropy" not in short
    assert "settings.a_setting_39 39" in whole["lineage"]


def test_no_lineage_fills_more_than_a_screen(maskset: MaskSet) -> None:
    summary = dataclasses.replace(
        maskset.summary(),
        lineage={f"parent {i}": "x" for i in range(99)} | {"parents": {f"p{i}": "0" * 64 for i in range(99)}},
        metrics={str(i): 0.5 for i in range(99)},
        chain=(("0" * 64, "x.msk"),) * 64,
    )
    lines = sum(1 if isinstance(value, str) else len(value) for value in to_fields(summary).values())
    assert lines <= 10 + (METRICS + 1) + (LINEAGE + 1) + (CHAIN + 1)


def test_markup_in_a_file_is_shown_as_text(maskset: MaskSet) -> None:
    summary = dataclasses.replace(maskset.summary(), file="<b>", lineage={"<i>": "</td>"})
    page = to_html(summary)
    assert "<caption>&lt;b&gt;</caption>" in page
    assert "&lt;i&gt; &lt;/td&gt;" in page


def test_data_hold_tensors_only_where_asked(maskset: MaskSet) -> None:
    summary = maskset.summary()
    assert "masks" not in to_data(summary)
    assert "dense" not in to_data(summary)
    assert [row["name"] for row in to_data(summary, tensors=True)["masks"]] == sorted(maskset)
    assert to_data(summary)["base"]["root"] == maskset.base.root
