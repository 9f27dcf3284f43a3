from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import MaskhubError, OutputError
from maskhub.mask import BaseBinding, Mask, MaskSet
from maskhub.names import ORDER, locate

pytest.importorskip("matplotlib")

from maskhub.plots import plot_sparsity


@pytest.fixture
def drawn(mask_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "map.svg"
    plot_sparsity(MaskFile(mask_path).manifest.masks, path, "a title")
    return path


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml ")])
def test_kinds(mask_path: Path, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"map.{suffix}"
    plot_sparsity(MaskFile(mask_path).manifest.masks, path, "a title")
    assert path.read_bytes().startswith(start)
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
    assert {"a title", "matrix", "layer", "dropped weights, %", "0", "1", "-"} <= set(texts)
    cells = [text for text in texts if re.fullmatch(r"\d+\.\d\d", text)]
    assert len(cells) == len(maskset.masks)


def test_matrices_of_one_cell_are_counted_together(tmp_path: Path) -> None:
    """Matrices that share layer and kind: their weights, not their shares, are summed."""
    keep = {"a.0.w": np.zeros((1, 4)), "b.0.w": np.ones((3, 4))}
    binding = BaseBinding.of("base", dict.fromkeys(keep, "0" * 64), {n: n for n in keep}, None)
    save(MaskSet(base=binding, masks={n: Mask.from_bool(k) for n, k in keep.items()}), tmp_path / "m.msk")
    plot_sparsity(MaskFile(tmp_path / "m.msk").manifest.masks, tmp_path / "m.svg", "t")
    assert "25.00" in labels(tmp_path / "m.svg")


def test_a_picture_that_cannot_be(mask_path: Path, tmp_path: Path) -> None:
    masks = MaskFile(mask_path).manifest.masks
    with pytest.raises(MaskhubError) as caught:
        plot_sparsity(masks, tmp_path / "map.jpeg", "t")
    assert str(caught.value) == f"{tmp_path}/map.jpeg: cannot tell what kind of picture this is"
    assert caught.value.hint == "Name it .png, .svg or .pdf."
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        plot_sparsity(masks, tmp_path / "no/map.png", "t")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(mask_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from maskhub.plots import plot_sparsity\n"
        "from maskhub.errors import MaskhubError\n"
        "try: plot_sparsity({}, 'map.png', 't')\n"
        "except MaskhubError as error: print(error, '|', error.hint)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("pictures need matplotlib | Install it: pip install 'maskhub[plot]'.\n", "")
