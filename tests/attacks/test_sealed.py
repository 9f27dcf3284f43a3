"""A change anywhere in a mask's file, and in what its manifest tells too, is refused by every command that uses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import maskhub
from maskhub.errors import IntegrityError, MaskhubError
from tests import tiny
from tests.attacks.forge import put, unsealed
from tests.storage.rangeserver import RangeServer

# Texts of the header, of which the last letter is changed, and parts of what follows it.
REGIONS = [
    "format",
    "1.0",
    '"id":"',
    '"base',
    "text-class",
    '"seal":"',
    "maskhub.manifest",
    "classifier.weight",
    "masks",
]
BEHIND = [0, 0.1, 0.5, 0.9, 1]
COMMANDS: dict[str, Callable[[Path, Path], Any]] = {
    "open": lambda base, mask: maskhub.open(mask),
    "info": lambda base, mask: maskhub.info(mask),
    "verify": lambda base, mask: maskhub.verify(mask),
    "verify with a base": lambda base, mask: maskhub.verify(mask, base=base),
    "apply": lambda base, mask: maskhub.apply(base, mask, "out"),
    "diff": lambda base, mask: maskhub.diff(mask, "good.msk"),
    "compose": lambda base, mask: maskhub.compose("~a", {"a": mask}, "out.msk"),
    "pack": lambda base, mask: maskhub.pack(mask, "out.msk"),
    "pack with a parent": lambda base, mask: maskhub.pack("good.msk", "out.msk", parent=[mask]),
    "export": lambda base, mask: maskhub.export(mask, "out.npz", to="npz"),
    "push": lambda base, mask: maskhub.push(mask, "shared"),
    "pull": lambda base, mask: maskhub.pull(str(mask), "out.msk"),
    "plot": lambda base, mask: maskhub.plot(mask, "out.png"),
}
WITH_TORCH: dict[str, Callable[[Path, Path], Any]] = {
    "load_model": lambda base, mask: maskhub.load_model(base, mask),
    "pipeline": lambda base, mask: maskhub.pipeline(mask, base),
    "predict": lambda base, mask: maskhub.predict(base, mask, "free prize"),
    "evaluate": lambda base, mask: maskhub.evaluate(base, mask, file="test.csv"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A base, a good mask, and copies of it with one letter changed in a place of the header, or of a payload."""
    folder = tmp_path_factory.mktemp("sealed")
    base = tiny.write_base(folder / "base")
    maskhub.save(tiny.tiny_maskset(base), folder / "good.msk")
    (folder / "test.csv").write_text("text,label\nfree prize,spam\n")
    (folder / "shared").mkdir()
    good = (folder / "good.msk").read_bytes()
    changed = []
    header = 8 + int.from_bytes(good[:8], "little")
    places = [good.index(text.encode()) + len(text) - 1 for text in REGIONS]
    assert max(places) < header
    for number, place in enumerate([*places, *(header + int((len(good) - 1 - header) * part) for part in BEHIND)]):
        changed.append(folder / f"changed{number}.msk")
        changed[-1].write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    labels = dict(zip(("1", "0"), tiny.TASK.config["id2label"].values(), strict=True))
    changed.append(folder / "labels.msk")
    changed[-1].write_bytes(unsealed(good, put("task/config/id2label", labels)))
    return base, changed


@pytest.mark.parametrize("command", [*COMMANDS, *WITH_TORCH])
def test_a_change_anywhere_is_refused(
    files: tuple[Path, list[Path]], command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if command in WITH_TORCH:
        pytest.importorskip("transformers")
    if command == "plot":
        pytest.importorskip("matplotlib")
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path))
    base, changed = files
    monkeypatch.chdir(base.parent)
    before = sorted(os.listdir())
    for path in changed:
        with pytest.raises(MaskhubError, match=rf"{path.name}: |[0-9a-f]+\.msk: "):
            (COMMANDS | WITH_TORCH)[command](base, path)
        assert sorted(os.listdir()) == before


def test_the_labels_that_were_swapped_are_refused_by_the_seal(files: tuple[Path, list[Path]]) -> None:
    with pytest.raises(
        MaskhubError, match=r"labels\.msk: the file was changed or damaged after it was written \(seal\)"
    ):
        maskhub.open(files[1][-1])


def test_a_remote_mask_is_checked_where_all_of_it_is_fetched(
    files: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is read in parts not all of the manifest can be checked."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tiny.megabyte(tmp_path / "large.msk")
    good = (tmp_path / "large.msk").read_bytes()
    with RangeServer() as server:
        server.files["small.msk"] = files[1][-1].read_bytes()  # comes whole with its header
        server.files["large.msk"] = unsealed(good, put("lineage", {"note": "another"}))
        for name in ("small.msk", "large.msk"):
            with pytest.raises(IntegrityError, match=r"\(seal\)"):
                maskhub.open(server.url(name), whole=True)
        with pytest.raises(IntegrityError, match=r"\(seal\)"):
            maskhub.info(server.url("small.msk"))
        with pytest.raises(IntegrityError, match=r"\(seal\)"):
            maskhub.pack(server.url("large.msk"), tmp_path / "out.msk")
        assert maskhub.info(server.url("large.msk")).lineage == {"note": "another"}
