from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import ExistsError, MaskhubError, MissingError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.compare import MEASURES, NUMBERS, Diff, Matrix, diff, matrix
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from tests import tiny

pytest.importorskip("matplotlib")

from maskhub.pictures import plots, report

VOID = {"meta", "img", "wbr"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser for a page on disk: no sandbox (tests may run as root), and none of its own traffic.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
START = Initial(0, 3277, -0.02, 0.58)
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A page's tables, by heading, and all its elements; fails where tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: list[float] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert tag != "script" or not attrs
        if tag not in VOID:
            self._open.append(tag)
            self.texts[tag] = ""
        if tag == "tr":
            self.tables.setdefault(self.texts["h2"], []).append([])
        if tag in ("td", "th"):
            self.tables[self.texts["h2"]][-1].append("")
            self.values += [float(value) for name, value in attrs if name == "data-value" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[self.texts["h2"]][-1][-1] += data


@pytest.fixture(scope="module", autouse=True)
def day() -> Iterator[None]:
    """All pages are of one day, also those that are made at midnight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "0")
        yield


@pytest.fixture(scope="module")
def other(base: Checkpoint) -> MaskSet:
    return tiny.tiny_maskset(base, seed=1, sparsity=0.4)


@pytest.fixture(scope="module")
def compared(maskset: MaskSet, other: MaskSet) -> Diff:
    return diff(maskset, other, ("one.msk", "other.msk"))


@pytest.fixture(scope="module")
def two(compared: Diff, maskset: MaskSet, other: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "two.html"
    report.save_report(compared, [maskset, other], path)
    return path


@pytest.fixture(scope="module")
def pairs(base: Checkpoint, maskset: MaskSet) -> tuple[Matrix, list[MaskSet]]:
    masksets = {"mask": maskset, EVIL: tiny.tiny_maskset(base, seed=2), "c": tiny.tiny_maskset(base, seed=3)}
    return matrix(masksets, "jaccard"), list(masksets.values())


@pytest.fixture(scope="module")
def many(pairs: tuple[Matrix, list[MaskSet]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "many.html"
    report.save_report(*pairs, path)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two masks whose every name tries to leave its place."""
    names = [f"{EVIL}.{i}.\"><img src=x onerror=alert(1)>'&lt;" for i in range(2)]
    binding = BaseBinding.of("</p>" + EVIL, dict.fromkeys(names, "0" * 64), {n: n for n in names}, None)
    rng = np.random.default_rng(0)
    sets = [
        MaskSet(
            base=binding,
            masks={name: Mask.from_bool(rng.random((8, 8)) < 0.5) for name in names},
            lineage={"note": f"</script>{EVIL}</style> \x00\x1b \ud800 $\\frac$ {i}"},
        )
        for i in range(2)
    ]
    path = tmp_path_factory.mktemp("report") / "hostile.html"
    report.save_report(diff(sets[0], sets[1], (EVIL, "]]><!-- " + EVIL)), sets, path)
    return path


def test_every_number_is_there(two: Path, compared: Diff) -> None:
    page = Page(two)
    head, *rows = page.tables["By tensor"]
    assert {row[0]: row[1:4] for row in rows} == {
        t.name: ["other" if t.layer is None else str(t.layer), t.kind, " × ".join(map(str, t.shape))]
        for t in compared.tensors
    }
    assert {"jaccard dropped", "correlation", "z"} < {*head}
    for name in report.MEANINGS:
        assert getattr(compared.total, name) in page.values, name
    groups = [(overlap, report.COLUMNS) for overlap in (*compared.layers.values(), *compared.kinds.values())]
    groups += [(tensor.overlap, report.COLUMNS[:-1]) for tensor in compared.tensors]
    for overlap, columns in groups:
        for name in columns:
            value = getattr(overlap, name)
            assert value is None or value in page.values, name
    assert [row[0] for row in page.tables["By layer"]] == ["layer", "0", "1", "other"]
    assert [row[0] for row in page.tables["By matrix kind"]] == ["matrix", "Q", "AO", "I", "O", "P"]
    total = {row[0]: row[1] for row in page.tables["In total"]}
    assert total["both"] == f"{compared.total.both:,}"
    assert total["jaccard dropped"] == f"{compared.total.jaccard_dropped:.4f}"
    assert {word.replace(" ", "_").replace("A", "a").replace("B", "b") for word in total} == {
        "number", *NUMBERS} - {"variance"}  # fmt: skip


def test_the_headline_says_what_came_out(
    two: Path, compared: Diff, base: Checkpoint, maskset: MaskSet, other: MaskSet, tmp_path: Path
) -> None:
    page = Page(two)
    tasks = "one.msk: text-classification (ham, spam) and other.msk: text-classification (ham, spam)"
    assert page.texts["title"] == tasks
    total = compared.total
    start = f"Of the weights that either mask drops, both drop {total.neither / (total.weights - total.both):.1%}. "
    found = re.fullmatch(re.escape(start) + r"Chance alone would give (\d+\.\d)%\.", page.texts["h1"])
    assert found, page.texts["h1"]
    assert float(found[1]) / 100 == pytest.approx(_by_chance(compared), abs=0.002)
    full = {name: Mask.from_bool(np.ones(mask.shape)) for name, mask in maskset.masks.items()}
    everything = dataclasses.replace(maskset, masks=full)
    for a, b, headline in (
        (maskset, maskset, "The two masks are the same."),
        (maskset, dataclasses.replace(maskset, dense={}), "The two keep the same weights, and differ in what else "),
        (maskset, everything, "The two drop nothing in common, and differ in "),
        (
            dataclasses.replace(maskset, initial=START),
            dataclasses.replace(other, initial=START),
            f"{page.texts['h1'].removesuffix('.')}, but both began with the same mask.",
        ),
    ):
        report.save_report(diff(a, b), [a, b], tmp_path / "r.html")
        assert Page(tmp_path / "r.html").texts["h1"].startswith(headline)


def _by_chance(result: Diff) -> float:
    """What masks that keep as many in each tensor, but at random, drop together, of what either drops."""
    rng = np.random.default_rng(0)
    neither = either = 0
    for _ in range(1000):
        for tensor in result.tensors:
            counts = tensor.overlap
            a, b = (rng.permutation(counts.weights) >= kept for kept in (counts.kept_a, counts.kept_b))
            neither, either = neither + int((a & b).sum()), either + int((a | b).sum())
    return neither / either


def test_the_page_has_its_date_and_version(
    compared: Diff, maskset: MaskSet, other: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(20 * 365 * 86400))
    report.save_report(compared, [maskset, other], tmp_path / "r.html")
    assert f">1989-12-27, maskhub {maskhub.__version__}<" in (tmp_path / "r.html").read_text()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    days = {str(datetime.datetime.now(datetime.UTC).date())}
    report.save_report(compared, [maskset, other], tmp_path / "r.html")
    days |= {str(datetime.datetime.now(datetime.UTC).date())}
    assert any(f">{day}, maskhub" in (tmp_path / "r.html").read_text() for day in days)


def test_what_else_differs_is_there(two: Path, maskset: MaskSet, other: MaskSet) -> None:
    tables = Page(two).tables
    assert [row[1] for row in tables["Masks"][1:]] == ["one.msk", "other.msk"]
    assert [row[-1] for row in tables["Masks"][1:]] == [maskset.id, other.id]
    assert ["classifier.weight", "F32 [2, 6]", "F32 [2, 6]", "12"] in tables["Dense tensors that differ"]
    assert ["lineage.seed", "0", "1"] in tables["Other differences"]
    assert "Masked in one only" not in tables


def test_the_same_start_is_said(compared: Diff, maskset: MaskSet, two: Path, tmp_path: Path) -> None:
    assert not compared.same_start
    assert "the same initial mask" not in two.read_text()
    report.save_report(diff(maskset, maskset), [maskset, maskset], tmp_path / "same.html")
    page = Page(tmp_path / "same.html")
    assert "the same initial mask" in page.source
    assert "Other differences" not in page.tables


def test_many(many: Path, pairs: tuple[Matrix, list[MaskSet]]) -> None:
    result, masksets = pairs
    page = Page(many)
    assert page.texts["title"].startswith("3 masks: mask: text-classification (ham, spam), <script>")
    assert [(row[0], row[-1]) for row in page.tables["Masks"][1:]] == [
        (name, maskset.id) for name, maskset in zip(result.names, masksets, strict=True)
    ]
    head, *rows = page.tables["Pair by pair"]
    assert head == ["mask", "other mask", "jaccard"]
    found = {(a, b): value for a, b, value in rows}
    names, values = result.names, result.values
    assert found == {
        (names[i], names[j]): f"{values[i, j]:.4f}" for i in range(3) for j in range(i + 1, 3)
    }  # fmt: skip
    most, least = max(found, key=lambda pair: found[pair]), min(found, key=lambda pair: found[pair])
    assert page.texts["h1"] == (
        f"Kept by both, of what either keeps: most for {' and '.join(most)}, {found[most]}; "
        f"least for {' and '.join(least)}, {found[least]}."
    )


@pytest.mark.parametrize("name", ["two", "many", "hostile"])
def test_nothing_outside_the_page_is_needed_or_allowed(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name))
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "form", "a", "base", "svg"}
        assert not [key for key in attributes if key.startswith("on") or key in ("href", "style", "srcset")]
        if tag == "img":
            head, _, data = (attributes["src"] or "").partition(",")
            assert head == "data:image/svg+xml;base64"
            assert base64.b64decode(data).startswith(b"<?xml")
            assert attributes["alt"]
    assert not re.search(r"https?://|url\(|@import", page.source)
    digest = base64.b64encode(hashlib.sha256(page.texts["script"].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert sum(tag == "script" for tag, _ in page.elements) == 1


def test_hostile_names_stay_text(hostile: Path) -> None:
    page = Page(hostile)
    assert page.tables["By tensor"][1][0].startswith(EVIL)
    assert page.texts["title"] == f"{EVIL} and ]]><!-- {EVIL}"
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 4


def test_equal_comparisons_give_equal_pages(
    two: Path, compared: Diff, maskset: MaskSet, other: MaskSet, tmp_path: Path
) -> None:
    report.save_report(compared, [maskset, other], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == two.read_bytes()


def test_undefined_numbers_are_empty_cells(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    full = {name: Mask.from_bool(np.ones(mask.shape)) for name, mask in maskset.masks.items()}
    everything = MaskSet(base=maskset.base, masks=full)
    result = diff(maskset, everything)
    assert result.total.z is None
    report.save_report(result, [maskset, everything], tmp_path / "r.html", "correlation")
    page = Page(tmp_path / "r.html")
    place = page.tables["By tensor"][0].index("z")
    assert all(row[place - 1 : place + 1] == ["", ""] for row in page.tables["By tensor"][1:])
    assert not [value for value in page.values if math.isnan(value)]
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 4, "the measure is drawn once"


def test_a_report_that_cannot_be(compared: Diff, maskset: MaskSet, other: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "there.html").touch()
    with pytest.raises(ExistsError, match=r"there\.html: the output file exists"):
        report.claim_report(tmp_path / "there.html")
    report.claim_report(tmp_path / "there.html", force=True)
    with pytest.raises(MaskhubError, match=r"page\.svg: a report is a page"):
        report.claim_report(tmp_path / "page.svg")
    with pytest.raises(MissingError, match="cannot be written: No such file or directory"):
        report.save_report(compared, [maskset, other], tmp_path / "no/r.html")


def test_without_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from maskhub.pictures.report import claim_report\n"
        "from maskhub.errors import MaskhubError\n"
        "try: claim_report(Path('r.html'))\n"
        "except MaskhubError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("pictures need matplotlib. Install it: pip install 'maskhub[plot]'.\n", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Without one these tests are skipped, but fail where MASKHUB_REQUIRE_BROWSER says that there is one."""
    missing = pytest.fail if os.environ.get("MASKHUB_REQUIRE_BROWSER") else pytest.skip
    try:
        from playwright import sync_api
    except ImportError:
        missing("no playwright to drive a browser with: pip install playwright")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        missing(f"no browser to try the page in; looked for {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield started
        started.close()


class Visit:
    """A page in a browser, and what it does besides: requests, messages on the console, dialogs."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.requests: list[str] = []
        self.noise: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("request", lambda request: self.requests.append(request.url.partition(",")[0]))
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.noise.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())

    def column(self, table: str, title: str) -> list[str]:
        """A column's cells, from top to bottom, as shown."""
        rows = self.page.get_by_role("region", name=table, exact=True).locator("tr")
        cells = [row.locator("th, td").all_inner_texts() for row in rows.all()]
        place = next(i for i, text in enumerate(cells[0]) if text.strip() == title)
        return [row[place] for row in cells[1:]]

    def header(self, table: str, title: str) -> Any:
        region = self.page.get_by_role("region", name=table, exact=True)
        return region.get_by_role("button", name=title, exact=True)


def test_a_click_sorts(browser: Any, two: Path, compared: Diff) -> None:
    visit = Visit(browser, two)
    by_z = [t.name for t in sorted(compared.tensors, key=lambda t: t.overlap.z or 0)]
    visit.header("By tensor", "z").click()
    assert visit.column("By tensor", "tensor") == by_z
    visit.header("By tensor", "z").click()
    assert visit.column("By tensor", "tensor") == by_z[::-1]
    visit.header("By tensor", "only A").click()
    assert visit.column("By tensor", "only A") == [str(n) for n in sorted(t.overlap.only_a for t in compared.tensors)]
    visit.header("By tensor", "tensor").click()
    assert visit.column("By tensor", "tensor") == sorted(t.name for t in compared.tensors)
    sorts = visit.page.locator("th[aria-sort]")
    assert sorts.count() == 1
    assert sorts.get_attribute("aria-sort") == "ascending"
    assert visit.column("By layer", "layer") == ["0", "1", "other"], "other tables stay"


def test_the_keyboard_sorts(browser: Any, two: Path, compared: Diff) -> None:
    visit = Visit(browser, two)
    button = visit.header("By layer", "weights")
    button.focus()
    visit.page.keyboard.press("Enter")
    ordered = sorted(o.weights for o in compared.layers.values())
    assert visit.column("By layer", "weights") == [f"{n:,}" for n in ordered]
    visit.page.keyboard.press("Shift+Tab")
    visit.page.keyboard.press("Space")
    densities = sorted(o.density_b for o in compared.layers.values())
    assert visit.column("By layer", "density B") == [f"{n:.4f}" for n in densities]


def test_empty_cells_stay_last(browser: Any, maskset: MaskSet, other: MaskSet, tmp_path: Path) -> None:
    first = min(other.masks)
    full = other.masks | {first: Mask.from_bool(np.ones(other.masks[first].shape))}
    changed = MaskSet(base=other.base, masks=full)
    report.save_report(diff(maskset, changed), [maskset, changed], tmp_path / "r.html")
    visit = Visit(browser, tmp_path / "r.html")
    for _ in range(2):
        visit.header("By tensor", "z").click()
        assert visit.column("By tensor", "tensor")[-1] == first


@pytest.mark.parametrize("name", ["two", "many", "hostile"])
def test_in_a_browser_nothing_else_happens(browser: Any, name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    visit = Visit(browser, path)
    for picture in visit.page.locator("img").all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
    buttons = visit.page.get_by_role("button").all()
    assert all(button.inner_text() for button in buttons)
    visit.page.evaluate("document.querySelectorAll('button').forEach(button => button.click())")
    assert visit.noise == []
    assert [url for url in visit.requests if url != "data:image/svg+xml;base64"] == [path.as_uri()]
    assert visit.page.evaluate("document.scripts.length") == 1
    # What would come from a hole is stopped by the page's policy.
    assert visit.page.evaluate("fetch('data:,x').then(() => 'fetched', () => 'refused')") == "refused"
    visit.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'hole = 1'}))")
    assert visit.page.evaluate("typeof hole") == "undefined"


def test_no_table_is_wider_than_a_window(browser: Any, tmp_path: Path) -> None:
    """Masks of a model with long names and large matrices, and of many tasks."""
    shapes = {f"base_model.model.model.layers.{i}.self_attn.q_proj.weight": (1024, 2048) for i in range(3)}
    binding = BaseBinding.of("a-user/a-large-base-model", dict.fromkeys(shapes, "0" * 64), {n: n for n in shapes}, None)
    rng = np.random.default_rng(0)
    called = [f"a-mask-of-a-long-name-for-task-{i}" for i in range(25)]
    sets = [
        MaskSet(
            base=binding,
            masks={name: Mask.from_bool(rng.random(shape) < 0.5) for name, shape in shapes.items()},
            metrics={"accuracy": 0.5},
            lineage={"a-field-of-a-long-name": f"{i} a value that is as long as a sentence would be, or a path " * 4},
        )
        for i in range(2)
    ]
    report.save_report(diff(sets[0], sets[1], (called[0], called[1])), sets, tmp_path / "two.html")
    many = [sets[i % 2] for i in range(25)]
    report.save_report(matrix(dict(zip(called, many, strict=True))), many, tmp_path / "many.html")
    for name in ("two", "many"):
        visit = Visit(browser, tmp_path / f"{name}.html", viewport={"width": 1280, "height": 900})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1280
        regions = visit.page.locator(".table").all()
        assert regions
        for region in regions:
            assert region.evaluate("region => region.scrollWidth <= region.clientWidth"), region.get_attribute(
                "aria-label"
            )


def test_without_scripts_the_tables_are_there(browser: Any, two: Path, compared: Diff) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(two.as_uri())
    assert page.get_by_role("button").count() == 0
    assert page.get_by_role("region", name="By tensor").locator("tbody tr").count() == len(compared.tensors)
    context.close()


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark(browser: Any, two: Path, scheme: str, dark: bool) -> None:
    visit = Visit(browser, two, color_scheme=scheme)
    colour = visit.page.locator("thead th").first.evaluate("cell => getComputedStyle(cell).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128) == dark


def test_measures_have_pictures(compared: Diff) -> None:
    for measure in MEASURES:
        assert plots.draw(plots.diff_map(compared, measure), "svg")
