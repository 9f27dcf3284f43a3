"""The Python in ``docs/live.md`` runs as it stands, and says what is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import maskhub
from maskhub import errors
from maskhub.demo import SENTENCES
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code(heading: str) -> str:
    """The Python of one section of the page."""
    (text,) = (s for s in re.split(r"^## ", PAGE, flags=re.MULTILINE) if s.startswith(f"{heading}\n"))
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page defines, where its files lie: a tiny BERT with two tasks and one more, a tiny GPT-2 with one."""
    folder = tmp_path_factory.mktemp("live")
    base = tiny.tiny_model("bert", folder / "base", initializer_range=0.5)
    for seed, name in enumerate(("spam", "topic", "more")):
        tiny.tiny_maskset(base, seed=seed, sparsity=0.1).save(folder / f"{name}.msk")
    poems = tiny.packed(folder / "written", "gpt2", "GPT2LMHeadModel", head="LMHeadModel")
    poems.base.rename(folder / "gpt2")
    poems.mask.save(folder / "poems.msk")
    namespace: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for heading in ("Load", "Predict", "Models and switches", "Batches of many tasks"):
            exec(code(heading), namespace)
        namespace |= {name: maskhub.load_model("base", f"{name}.msk") for name in ("spam", "topic")}
        namespace["poems"] = maskhub.load_model("gpt2", "poems.msk")
        namespace["apart"] = {
            name: maskhub.predict("base", f"{name}.msk", list(SENTENCES)) for name in ("spam", "topic")
        }
    namespace["folder"] = folder
    return namespace


@pytest.fixture(autouse=True)
def folder(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page["folder"])


def test_load(page: dict[str, Any]) -> None:
    listed = maskhub.load_tasks("base", ["spam.msk", "topic.msk"])
    assert page["tasks"].task_names == listed.task_names == ["spam", "topic"]


def test_predict(page: dict[str, Any]) -> None:
    assert [answer.keys() for answer in page["answers"]] == [{"text", "label", "score"}] * 2
    for row, name in enumerate(("spam", "topic")):
        right = page["apart"][name][row]
        assert page["answers"][row]["label"] == right["label"]
        assert page["answers"][row]["score"] == pytest.approx(right["score"], abs=1e-5)


def test_models_and_switches(page: dict[str, Any]) -> None:
    with torch.no_grad():
        assert torch.equal(page["logits"], page["spam"](**page["batch"]).logits)
        assert torch.equal(page["others"], page["topic"](**page["batch"]).logits)
    assert not torch.equal(page["logits"], page["others"])
    assert page["classify"](next(iter(SENTENCES)))[0]["label"] == page["apart"]["spam"][0]["label"]
    base = transformers.AutoModel.from_pretrained("base").state_dict()
    assert all(torch.equal(page["plain"][name], tensor) for name, tensor in base.items())
    right = page["poems"].generate(**page["prompt"], max_new_tokens=5, do_sample=False)
    assert torch.equal(page["tokens"], right)
    with torch.no_grad():
        assert torch.equal(page["states"], page["spam"].bert(**page["batch"]).last_hidden_state)


def test_batches_of_many_tasks(page: dict[str, Any]) -> None:
    for row, name in enumerate(("spam", "topic")):
        with torch.no_grad():
            assert torch.allclose(page["found"].logits[row], page[name](**page["batch"]).logits[row], atol=1e-5)


def test_memory() -> None:
    memory: dict[str, Any] = {}
    exec(code("Load") + code("Memory"), memory)
    used = memory["tasks"].memory()
    assert used.budget == 32_000_000
    assert used.coded == sum(Path(f"{name}.msk").stat().st_size for name in ("spam", "topic"))
    assert used.decoded == 0
    memory["tasks"].set_task("spam")
    assert memory["tasks"].memory().decoded == 8 * maskhub.info("spam.msk").dropped


def test_compiled(page: dict[str, Any]) -> None:
    scope = page | {"torch": torch}
    exec(code("torch.compile").replace(".bert)", '.bert, backend="aot_eager")'), scope)
    for name in ("spam", "topic", "spam"):
        with page["tasks"].use(name), torch.no_grad():
            found, right = (m(**page["batch"]).last_hidden_state for m in (scope["compiled"], page[name].bert))
        assert torch.allclose(found, right, atol=1e-5), name


def test_what_is_refused(page: dict[str, Any], tmp_path: Path) -> None:
    tasks, batch, spam = page["tasks"], page["batch"], maskhub.open("spam.msk")
    other = tiny.tiny_model("bert", tmp_path / "other", seed=1)
    gone = maskhub.load_tasks("base", {"spam": spam, "topic": "topic.msk"})
    model = gone["spam"]
    gone.delete_task("spam")
    head = dict(list(spam.dense.items())[:1])
    changed = maskhub.load_tasks("base", {"spam": spam})
    changed["spam"].bert.pooler.dense.weight.data.add_(1)
    for error, refused in (
        ("UnknownTaskError", lambda: tasks(**batch, task_names=["spam", "topics"])),
        ("UnknownTaskError", lambda: model(**batch)),
        ("ArgumentError", lambda: tasks.load_task(spam, "spam")),
        ("ArgumentError", lambda: tasks(**batch, task_names=["spam"])),
        ("BaseMismatchError", lambda: tasks.load_task(tiny.tiny_maskset(other), "other")),
        ("FormatError", lambda: tasks.load_task(dataclasses.replace(spam, task=None), "none")),
        ("FormatError", lambda: (tasks.load_task(dataclasses.replace(spam, dense=head), "cut"), tasks["cut"])),
        ("BaseChangedError", lambda: changed.verify()),
    ):
        assert f"`{error}`" in PAGE
        with pytest.raises(getattr(errors, error)):
            refused()


def test_the_lines_of_the_readme(page: dict[str, Any]) -> None:
    (lines,) = re.findall(r"^```python\n(tasks = maskhub.load_tasks.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(lines.splitlines()) == 6
    three = {key: rows[[0, 1, 1]] for key, rows in page["batch"].items()}
    exec(lines.replace("user/base", "base"), {"maskhub": maskhub, "batch": three, "texts": list(SENTENCES)})
