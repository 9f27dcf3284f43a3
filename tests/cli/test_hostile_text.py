"""Strings in masks and bases come from strangers: none steers a terminal, turns what stands beside it, or is markup."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.container.writer import save
from maskhub.errors import MaskhubError
from maskhub.masks.binding import BaseBinding, HubRevision
from maskhub.masks.mask import MaskSet
from maskhub.text import markdown, printable
from tests import tiny
from tests.cli.conftest import Run, read_terminal

# What no terminal may get: control characters, those that turn the direction of writing or have no width.
EVIL = "\x9b31m\u202e\u2066\u200f\u061c\u2028\u200b\x85<b>&amp;|`[x](y)`$\U0001f600"
CONTROL = "\x1b[31m\x1b]0;title\x07\r\n\x08\x7f\x00"
BOTH = EVIL + CONTROL


@pytest.fixture(scope="module")
def evil(base_folder: Path) -> tuple[MaskSet, MaskSet]:
    """Two mask sets with such a string in every field that holds one."""

    def tensor(name: str) -> str:
        return name + EVIL.replace("\x85", "")

    def made(seed: int) -> MaskSet:
        one = tiny.tiny_maskset(base_folder, seed=seed)
        assert one.task
        base = one.base
        bound = BaseBinding.of(
            f"{BOTH}{seed}",
            {tensor(n): d for n, d in digests(open_checkpoint(base_folder)).items() if n in base.tensors},
            {tensor(n): tensor(base.parameter(n)) for n in base.tensors},
            HubRevision(f"a/{BOTH}{seed}", BOTH, {BOTH: "0" * 64}),
        )
        config = {f"{BOTH}{seed}": BOTH, "id2label": {"0": BOTH, "1": f"{BOTH}{seed}"}}
        task = msgspec.structs.replace(one.task, type=BOTH, architecture=BOTH, config=config, tokenizer=BOTH)
        return MaskSet(
            base=bound,
            masks={tensor(n): m for n, m in one.masks.items()},
            dense={tensor(n): t for n, t in one.dense.items()},
            task=task,
            metrics={f"{BOTH}{i}": 0.5 + seed / 10 for i in range(2)},
            lineage={f"{BOTH}{seed}": {BOTH: [BOTH]}, "operation": BOTH, "parents": {"a": BOTH}},
            extra={BOTH: BOTH},
        )

    return made(1), made(2)


@pytest.fixture
def files(evil: tuple[MaskSet, MaskSet], folder: Path) -> list[str]:
    """In files whose names are no better."""
    names = [f"{BOTH.replace(chr(0), '')}{i}.msk" for i in "ab"]
    for name, maskset in zip(names, evil, strict=True):
        save(maskset, Path(name))
    return names


def clean(text: str) -> None:
    bad = {c for c in text if c != "\n" and not c.isprintable()}
    assert not bad, (bad, text)


@pytest.mark.parametrize("form", [[], ["--json"], ["-q"]], ids=str)
def test_commands_print_it_escaped(
    run: Run, files: list[str], base_folder: Path, folder: Path, form: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKHUB_CACHE", str(folder / "cache"))
    a, b = files
    other = tiny.write_base(folder / "other", seed=9)
    Path("shared").mkdir()
    done = (
        ["info", a], ["info", a, "--all", "--tensors"], ["verify", a], ["diff", a, b], ["diff", a, b, "--tensors"],
        ["diff", a, b, a], ["push", a, "shared", "--name", "x"], ["list", "shared"], ["pull", "shared/x"],
        ["pack", a, "-o", "packed.msk"], ["verify", a, "--base", base_folder],  # whose tensors have other names
    )  # fmt: skip
    refused = (
        ["compose", "--op", "and", a, b, "-o", "c.msk"], ["apply", other, a, "-o", "out"],
        ["verify", a, "--base", other], ["info", f"{a}.gone"], ["push", b, "shared", "--name", "x"],
    )  # fmt: skip
    for command in (*done, *refused):
        ran = run(*command, *form)
        assert (ran.status == 0) == (command in done), (command, ran.stderr)
        clean(ran.out + ran.stderr)
        assert "unexpected error" not in ran.stderr
        if form == ["--json"] and command in done:
            json.loads(ran.out)
    for command in (["info", f"{a}.gone"], ["verify", a, "--base", other]):
        ran = run("--debug", *command)
        assert "Traceback" in ran.stderr
        clean(ran.stderr)


def test_a_terminal_gets_none_of_it(files: list[str]) -> None:
    """What the real program writes to a real terminal, its own colours aside."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "maskhub_cli", "info", "--all", "--tensors", files[0]]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=os.environ | {"COLUMNS": "120"})
    written = read_terminal(ours, theirs)
    assert process.wait(60) == 0
    clean(re.sub(r"\x1b\[(?:0|1|2|36)m", "", written))


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_pages_and_pictures_show_it_escaped(
    run: Run, files: list[str], evil: tuple[MaskSet, MaskSet], base: Checkpoint, folder: Path
) -> None:
    pytest.importorskip("matplotlib")
    for name, masks in {"two": files, "three": [*files, files[0]]}.items():
        assert run("diff", *masks, "--report", f"{name}.html", "--plot", f"{name}.svg").status == 0
        page = Path(f"{name}.html").read_text()
        shown = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
        clean(shown)
        assert "<b>" not in shown
        assert "b" not in Tags(page).found
        ElementTree.parse(f"{name}.svg")  # is XML: no control character is
        clean(Path(f"{name}.svg").read_text())
    assert run("info", files[0], "--plot", "map.svg").status == 0
    ElementTree.parse("map.svg")
    page = evil[0]._repr_html_()
    clean(page)
    assert set(Tags(page).found) <= {"table", "caption", "tr", "th", "td", "br"}
    clean(repr(evil[0]))


def test_errors_in_python_are_printable_too(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(MaskhubError) as caught:
        maskhub.verify(files[0], base=tiny.write_base(tmp_path / "other", seed=9))
    clean(str(caught.value))
    with pytest.raises(MaskhubError) as caught:
        maskhub.open(files[0] + "\n.gone")
    clean(str(caught.value))


def test_the_pushed_card_is_text(evil: tuple[MaskSet, MaskSet], files: list[str], folder: Path) -> None:
    from markdown_it import MarkdownIt

    Path("shared").mkdir()
    maskhub.push(files[0], "shared", name="x")
    save(tiny.tiny_maskset(open_checkpoint(tiny.write_base(folder / "base"))), Path("plain.msk"))
    maskhub.push("plain.msk", "shared", name="x2")
    pages = []
    for name in ("x", "x2"):
        card = json.loads(Path(f"shared/index/{name}.json").read_text())["card"]
        text = Path(f"shared/objects/{card}.md").read_text()
        clean(text)
        body = text.split("---\n", 2)[2]
        page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
        pages.append(re.findall(r"<[^>]*>", page))
    assert pages[0] == pages[1]


def test_what_does_not_print_is_escaped_and_nothing_else() -> None:
    assert printable("a\x1b[31m\u202e\n\ud800\x7f\x9b é 漢 😀\\") == "a\\x1b[31m\\u202e\\n\\ud800\\x7f\\x9b é 漢 😀\\"
    assert printable(printable(BOTH)) == printable(BOTH)
    assert markdown("a_b *c* <d> |e| [f](g) `h` www.i https://j @k $l$ ![m]") == (
        "a\\_b \\*c\\* &lt;d&gt; \\|e\\| \\[f\\](g) \\`h\\` www\\.i https\\://j \\@k \\$l\\$ \\!\\[m\\]"
    )
