from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import ArgumentError, MaskhubError, MissingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.compare import MEASURES, Matrix, diff, matrix
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.names import ORDER, locate
from maskhub.storage.size import parse_size
from tests import tiny

pytest.importorskip("matplotlib")

from maskhub.pictures.plots import (
    LIVE,
    HeatMap,
    diff_map,
    draw,
    growth,
    matrix_map,
    save_growth,
    save_picture,
    sparsity_map,
)


@pytest.fixture
def drawn(maskset: MaskSet, tmp_path: Path) -> Path:
    path = tmp_path / "map.svg"
    save_picture(sparsity_map(maskset.masks, "a title"), path)
    return path


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml ")])
def test_kinds(maskset: MaskSet, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"map.{suffix}"
    heat_map = sparsity_map(maskset.masks, "a title")
    save_picture(heat_map, path)
    assert path.read_bytes().startswith(start)
    assert path.read_bytes() == draw(heat_map, suffix), "equal maps, equal bytes"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def labels(svg: Path) -> list[str]:
    """The texts of a picture: matplotlib draws letters as shapes, and says in a comment what they are."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def test_the_numbers_and_labels(drawn: Path, maskset: MaskSet) -> None:
    texts = labels(drawn)
    for name, mask in maskset.masks.items():
        assert f"{100 * mask.sparsity:.2f}" in texts, name
    kinds = {locate(name)[1] for name in maskset.masks}
    in_order = [text for text in texts if text in kinds]
    assert in_order == [kind for kind in ORDER if kind in kinds]
    assert {"a title", "matrix", "layer", "dropped weights, %", "0", "1", "other"} <= set(texts)
    assert "Q: query; AO: attention's output; I: feed-forward in; O: feed-forward out; P: pooler" in texts
    cells = [text for text in texts if re.fullmatch(r"\d+\.\d\d", text)]
    assert len(cells) == len(maskset.masks)


def one(masks: dict[str, np.ndarray]) -> MaskSet:
    binding = BaseBinding.of("base", dict.fromkeys(masks, "0" * 64), {n: n for n in masks}, None)
    return MaskSet(base=binding, masks={name: Mask.from_bool(keep) for name, keep in masks.items()})


def test_matrices_of_one_cell_are_counted_together() -> None:
    """Matrices that share layer and kind: their weights, not their shares, are summed."""
    heat_map = sparsity_map(one({"a.0.w": np.zeros((1, 4)), "b.0.w": np.ones((3, 4))}).masks, "t")
    assert (heat_map.rows, heat_map.columns, heat_map.values.tolist()) == (("0",), ("w",), [[25.0]])


@pytest.mark.parametrize("measure", MEASURES)
def test_how_two_masks_differ(base: Checkpoint, maskset: MaskSet, measure: str) -> None:
    result = diff(maskset, tiny.tiny_maskset(base, seed=1, sparsity=0.5), ("one.msk", "other.msk"))
    heat_map = diff_map(result, measure)
    assert heat_map.title == "A: one.msk, B: other.msk"
    assert heat_map.rows == ("0", "1", "other")
    assert heat_map.columns == ("Q", "AO", "I", "O", "P")
    for (layer, kind), overlap in result.cells.items():
        row = "other" if layer is None else str(layer)
        value = heat_map.values[heat_map.rows.index(row), heat_map.columns.index(kind)]
        assert value == getattr(overlap, measure)
    assert np.isnan(heat_map.values).sum() == 3 * 5 - len(result.cells)


def test_many_masks_pair_by_pair(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    masksets = {"x": maskset, "y": tiny.tiny_maskset(base, seed=1), "z": tiny.tiny_maskset(base, seed=2)}
    result = matrix(masksets)
    save_picture(matrix_map(result), tmp_path / "map.svg")
    texts = labels(tmp_path / "map.svg")
    assert texts.count("x") == texts.count("y") == texts.count("z") == 2
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert texts.count(f"{result.values[i, j]:.4f}") >= 2
    assert "0.0000" not in texts, "a mask and itself"


def test_large_numbers_are_grouped() -> None:
    values = np.array([[0, 1197667.0], [1197667.0, 0]])
    svg = draw(matrix_map(Matrix(("a", "b"), ("0", "1"), False, "hamming", values, 1, 9_000_000)), "svg").decode()
    assert svg.count("<!-- 1,197,667 -->") == 2


def test_names_are_not_read_as_tex(tmp_path: Path) -> None:
    names = (r"$\frac$", "<script>", "日本", "x" * 500)
    values = np.arange(16.0).reshape(4, 4)
    save_picture(matrix_map(Matrix(names, names, False, "correlation", values, 1, 1)), tmp_path / "map.svg")
    svg = (tmp_path / "map.svg").read_text()
    assert labels(tmp_path / "map.svg").count(r"$\frac$") == 2
    assert "<script" not in svg.replace("<!-- <script> -->", "")
    assert f"<!-- {'x' * 20}…{'x' * 20} -->" in svg


def numbers(heat_map: HeatMap) -> list[str]:
    return re.findall(r"<!-- (\d+\.\d\d) -->", draw(heat_map, "svg").decode())


def test_numbers_are_left_out_where_they_would_not_be_read() -> None:
    few, many = tuple("abc"), tuple(str(i) for i in range(100))
    assert len(numbers(HeatMap("t", "u", few, few, np.full((3, 3), 12.34)))) == 9
    assert numbers(HeatMap("t", "u", many, many, np.full((100, 100), 12.34))) == []


def test_an_outlier_does_not_hide_what_the_others_show() -> None:
    """Greys of a picture, from its pixels: black for the outlier, and both ends of the rest apart."""
    from io import BytesIO

    from PIL import Image

    values = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 1000.0]])
    rows, columns = tuple("ab"), tuple("cde")
    with Image.open(BytesIO(draw(HeatMap("t", "u", rows, columns, values), "png"))) as image:
        cells = {shade for count, shade in image.convert("L").getcolors(256) or [] if count > 2000}
    assert len(cells) == 6, "the page, black for two, and a grey each for the others"


def shades(heat_map: HeatMap) -> list[int]:
    """The greys of the cells, from the picture's pixels, from the lightest to the darkest."""
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(draw(heat_map, "png"))) as image:
        found = {shade for count, shade in image.convert("L").getcolors(256) or [] if count > 4000}
    return sorted(found - {255}, reverse=True)


def test_values_that_are_nearly_equal_look_so() -> None:
    """From 1.6 to 2.2: the scale begins at 0, so no cell is white, and twice as dark is twice as much."""
    near = HeatMap("t", "u", ("a",), ("b", "c"), np.array([[1.6, 2.2]]))
    light, dark = shades(near)
    assert 255 - light == pytest.approx((255 - dark) * 1.6 / 2.2, abs=3)
    half, whole = shades(HeatMap("t", "u", ("a",), ("b", "c"), np.array([[1.0, 2.0]])))
    assert 255 - half == pytest.approx((255 - whole) / 2, abs=3)
    assert min(whole, dark) > 100, "black numbers can be read on it"


def dependent(size: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks that drop a tenth each, and share half of that, in a matrix of ``size`` weights."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(size)
    a, b = np.ones(size, bool), np.ones(size, bool)
    a[order[: size // 10]] = b[order[size // 20 : size // 20 + size // 10]] = False
    return a.reshape(-1, columns), b.reshape(-1, columns)


def test_the_size_of_a_matrix_does_not_show() -> None:
    """Matrices of 1 to 16 times as many weights, in which two masks depend on each other alike."""
    pairs = {"a.0.small": dependent(4000, 20, 1), "a.1.large": dependent(64000, 80, 2)}
    sets = [one({name: pair[i] for name, pair in pairs.items()}) for i in range(2)]
    result = diff(*sets)
    small, large = (overlap.z or 0 for overlap in result.layers.values())
    assert large / small == pytest.approx(4, rel=0.01), "z shows it"
    for measure in ("correlation", "jaccard_dropped"):
        values = diff_map(result, measure).values
        found = values[np.isfinite(values)]
        assert found[0] == pytest.approx(found[1], rel=1e-3)
        assert len(shades(HeatMap("t", "u", ("a",), ("b", "c"), found[None].round(3)))) == 1


def test_nothing_to_draw() -> None:
    assert draw(sparsity_map({}, "t"), "png").startswith(b"\x89PNG")
    assert draw(HeatMap("t", "u", ("a",), ("b",), np.array([[np.nan]])), "png").startswith(b"\x89PNG")


def test_a_picture_that_cannot_be(maskset: MaskSet, tmp_path: Path) -> None:
    heat_map = sparsity_map(maskset.masks, "t")
    with pytest.raises(MaskhubError) as caught:
        save_picture(heat_map, tmp_path / "map.jpeg")
    assert caught.value.message == f"{tmp_path}/map.jpeg: cannot tell what kind of picture this is"
    assert caught.value.hint == "Name it .png, .svg or .pdf."
    with pytest.raises(MissingError, match=f"there is no folder {tmp_path}/no"):
        save_picture(heat_map, tmp_path / "no/map.png")
    assert not list(tmp_path.iterdir())


def test_what_tasks_take_over_their_number(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    sets = [maskset, tiny.tiny_maskset(base, seed=1, sparsity=0.3)]
    for i, one in enumerate(sets):
        one.save(tmp_path / f"{i}.msk")
    masks = maskhub.info([tmp_path / "0.msk", tmp_path / "1.msk"])
    weights, head = masks[0].weights, masks[0].dense_bytes
    disk, memory = growth(masks).values()
    found = {line.label: dict(zip(line.steps.tolist(), line.values, strict=True)) for line in (*disk, *memory)}
    dense, packed, files, live, least = (found[line.label] for line in (*disk, *memory[-2:]))
    sizes = [(tmp_path / f"{i}.msk").stat().st_size for i in range(2)]
    dropped = sum(mask.dropped for mask in masks)
    assert min(dense) == 1
    assert max(dense) == 1000
    assert dense[2] == 2 * (4 * weights + head)
    assert packed[2] == 4 * weights + 2 * (weights / 8 + head)
    assert files[2] == 4 * weights + sum(sizes)
    assert live[2] == 4 * weights + sum(sizes) + 2 * head + 8 * dropped
    assert least[2] == live[2] - 4 * dropped
    many = [dataclasses.replace(mask, dropped=10**7) for mask in masks]
    assert growth(many)["in memory"][-2].values[-1] == 4 * weights + 500 * sum(sizes) + 1000 * head + LIVE
    save_growth(masks, tmp_path / "memory.svg")
    texts = labels(tmp_path / "memory.svg")
    assert {"on disk", "in memory", "tasks", "1,000", *found} <= set(texts)
    with pytest.raises(ArgumentError, match=r"mask 2 is in no file, .* Save it first\."):
        growth([masks[0], sets[1].summary()])


def test_live_tasks_are_drawn_at_the_budget_that_they_have() -> None:
    pytest.importorskip("transformers")
    assert parse_size(inspect.signature(maskhub.load_tasks).parameters["memory"].default) == LIVE


def test_without_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from maskhub.pictures.plots import save_picture, sparsity_map\n"
        "from maskhub.errors import MaskhubError\n"
        "try: save_picture(sparsity_map({}, 't'), 'map.png')\n"
        "except MaskhubError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("pictures need matplotlib. Install it: pip install 'maskhub[plot]'.\n", "")
