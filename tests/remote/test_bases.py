"""Bases that lie here: known again on a Hub, found in lists by their digests, and told of by ``push``."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from tests import tiny
from tests.remote.conftest import TestHub

IDENTIFY = """if True:
    import sys
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.checkpoints.identify import identify
    found = identify(open_checkpoint(sys.argv[1]), name=sys.argv[2] if sys.argv[2:] else None)
    print(found and (found.id, found.commit, found.files))
"""


@pytest.fixture
def copy(hub: TestHub, base_folder: Path, tmp_path: Path) -> Path:
    """A folder with the files of ``ann/tiny``; the Hub has another model of the same sizes, too."""
    other = tiny.write_base(tmp_path / "other", seed=1)
    for repo, folder in (("ann/tiny", base_folder), ("ann/other", other)):
        hub.put(repo, model__safetensors=(folder / "model.safetensors").read_bytes())
    return Path(shutil.copytree(base_folder, tmp_path / "copy"))


def identified(hub: TestHub, *arguments: object, **variables: str | None) -> object:
    ran = hub.program([sys.executable, "-c", IDENTIFY, *map(str, arguments)], **variables)
    assert ran.stderr == ""
    return ran.stdout.strip()


def test_a_copy_is_known_by_what_the_hub_says_of_a_model(hub: TestHub, copy: Path) -> None:
    commit = hub.control()["repos"]["ann/tiny"]["refs"]["main"]
    sha256 = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    known = str(("ann/tiny", commit, {"model.safetensors": sha256}))
    assert identified(hub, copy, "ann/tiny") == identified(hub, copy, "ann/tiny@main") == known
    assert identified(hub, copy) == "None"
    assert identified(hub, copy, "ann/other") == identified(hub, copy, "ann/absent") == "None"
    assert identified(hub, copy, "ann/tiny", HF_HUB_OFFLINE="1") == "None"
    assert identified(hub, copy, "ann/tiny", HF_ENDPOINT="http://127.0.0.1:9") == "None"
    assert not any("/resolve/" in line for line in hub.lines())  # nothing was downloaded
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": "ann/tiny"}))
    assert identified(hub, copy) == known
    (copy / "config.json").write_text(json.dumps(config))
    assert identified(hub, copy.rename(copy.with_name("ann--tiny"))) == known


@pytest.fixture
def masks(hub: TestHub, base: Checkpoint) -> None:
    """Masks of one base by three names, one of which reads only a part of it; and one of another base."""
    maskhub.save(tiny.tiny_maskset(base, name="./base"), hub.folder / "a.msk")
    maskhub.save(tiny.tiny_maskset(base, name="ann/tiny", seed=1), hub.folder / "b.msk")
    part = tiny.write_checkpoint(
        hub.folder / "part", {n: t for n, t in tiny.base_tensors().items() if not n.startswith("pooler.")}
    )
    maskhub.save(tiny.tiny_maskset(open_checkpoint(part), name="part"), hub.folder / "c.msk")
    other = tiny.write_base(hub.folder / "another", seed=1)
    maskhub.save(tiny.tiny_maskset(other, name="./base"), hub.folder / "d.msk")


def test_a_base_here_finds_its_masks_on_the_hub(hub: TestHub, masks: None, base_folder: Path) -> None:
    for repo, files in {"alice/one": "ab", "alice/two": "cd"}.items():
        for name in files:
            assert hub("push", f"{name}.msk", repo).status == 0
    hub.put("bob/bare", a__msk=(hub.folder / "a.msk").read_bytes(), README__md=b"---\ntags: [maskhub]\n---\n")
    hub.put("bob/new", d__msk=(hub.folder / "d.msk").read_bytes(), README__md=hub.files("alice/one")["README.md"])

    def names(*arguments: object) -> list[str]:
        return hub("list", *arguments, "-q").out.split()

    assert names("--base", base_folder) == ["alice/one/a.msk", "alice/one/b.msk", "alice/two/c.msk", "bob/bare/a.msk"]
    assert names("--base", hub.folder / "another") == ["alice/two/d.msk", "bob/new/d.msk"]
    assert names("--base", hub.folder / "part") == ["alice/two/c.msk"]
    assert names("alice/one", "--base", base_folder, "--limit", "1") == ["alice/one/a.msk"]
    assert names("--base", base_folder, "--limit", "3")[-1] == "alice/two/c.msk"  # not of the first three masks


def test_a_base_here_finds_its_masks_in_a_folder(
    hub: TestHub, masks: None, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub.folder)
    Path("shared").mkdir()
    for name in "abcd":
        maskhub.push(f"{name}.msk", "shared")

    def names(**options: object) -> list[str]:
        return [one.address for one in maskhub.list_masks("shared", **options)]  # type: ignore[arg-type]

    assert names(base=base) == names(base=base.folder) == ["shared/a.msk", "shared/b.msk", "shared/c.msk"]
    assert names(base="another") == ["shared/d.msk"]
    assert names(base="./base") == ["shared/a.msk", "shared/d.msk"]  # not here: by its name
    assert names(base=base, search="B") == ["shared/b.msk"]


def test_push_warns_of_a_base_that_others_cannot_find(
    hub: TestHub, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub.folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.folder / "cache"))
    Path("shared").mkdir()
    shutil.copytree(base_folder, "base")

    maskhub.save(tiny.tiny_maskset(open_checkpoint("base"), name="./elsewhere"), "x.msk")
    assert "Warning: others cannot find the base ./elsewhere: name it by " in hub("push", "x.msk", "shared", "-q").err

    def warning(name: str) -> str | None:
        return maskhub.push(
            tiny.tiny_maskset(open_checkpoint("base"), name=name), "shared", name="x", force=True
        ).warning

    assert warning("ann/tiny") is None
    cure = "name it by maskhub pack MASK -o NEW.msk --base-name"
    assert warning("./elsewhere") == f"others cannot find the base ./elsewhere: {cure} user/repo"
    assert warning("base") == f"others cannot find the base base: {cure} user/repo"
    _, commit = tiny.hub_cache(hub.folder / "cache", "ann/tiny", base_folder)
    known = f"whose files are those of ann/tiny@{commit[:12]}"
    assert warning("./base") == f"others cannot find the base ./base, {known}: {cure} ann/tiny"


def test_the_parts_of_a_model_of_sentence_vectors_come_with_it(hub: TestHub, base_folder: Path) -> None:
    files = {file.name.replace(".", "__"): file.read_bytes() for file in base_folder.iterdir()}
    hub.put("ann/sentences", **files, modules__json=b'[{"path": ""}, {"path": "1_Pooling"}]', own__py=b"")
    parts = dict.fromkeys(("1_Pooling/config__json", "1_Pooling/model__onnx", "1_Pooling/own__py"), b"{}")
    hub.put("ann/sentences", **parts, **{"onnx/model__onnx": b"x"})
    script = (
        "import sys; from maskhub.checkpoints.checkpoint import open_checkpoint as o\n"
        "folder = o('ann/sentences').folder\n"
        "print(sorted(str(one.relative_to(folder)) for one in folder.rglob('*') if not one.is_dir()))"
    )
    found = eval(hub.program([sys.executable, "-c", script]).stdout)  # a list of texts
    parts_and_code = ["1_Pooling/config.json", "1_Pooling/own.py", "modules.json", "own.py"]
    assert found == sorted([*parts_and_code, *(file.name for file in base_folder.iterdir())])


OPEN_ALL = """if True:
    import json, sys
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.errors import MaskhubError
    for source in sys.argv[1:]:
        try:
            open_checkpoint(source)
        except MaskhubError as error:
            print(json.dumps([type(error).__name__, error.message, error.hint]))
"""


def test_a_repo_without_weights_says_what_it_has_as_a_folder_does(hub: TestHub, tmp_path: Path) -> None:
    cases = {f"case{i}": (file, what) for i, (file, what) in enumerate([*tiny.NO_WEIGHTS.items(), ("notes.md", "")])}
    for name, (file, _) in cases.items():
        hub.put(f"ann/{name}", **{file.replace(".", "__"): b"\0"})
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_bytes(b"\0")
    hub.put("ann/case0", config__json=b"{}")
    ran = hub.program([sys.executable, "-c", OPEN_ALL, *(f"ann/{name}" for name in cases), *(f"./{n}" for n in cases)])
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    for (name, (file, what)), repo, folder in zip(cases.items(), told, told[len(cases) :], strict=False):
        said = f"has {what} ({file}), and no model.safetensors" if what else "has neither model.safetensors nor"
        assert said.split(" (")[0] in repo[1]
        assert repo[1].startswith(f"ann/{name}: the repo has ")
        assert folder == [repo[0], repo[1].replace(f"ann/{name}: the repo", f"./{name}: the folder"), repo[2]]
    # Of those alone that are read, something is downloaded.
    assert not [line for line in hub.lines() if line.endswith((".gguf", ".h5", ".msgpack", ".onnx", ".md"))]
    offline = hub.program([sys.executable, "-c", OPEN_ALL, "ann/case0"], HF_HUB_OFFLINE="1")
    assert "neither model.safetensors nor pytorch_model.bin" in offline.stdout


def test_a_pointer_of_git_lfs_in_a_repo_is_named(hub: TestHub) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n"
    hub.put("ann/pointer", config__json=b"{}", model__safetensors=pointer)
    kind, message, hint = json.loads(hub.program([sys.executable, "-c", OPEN_ALL, "ann/pointer"]).stdout)
    assert kind == "FormatError"
    assert message.endswith("model.safetensors: a pointer of Git LFS, not the file itself")
    assert hint
