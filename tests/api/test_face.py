"""Each command is one public function of the same name, which takes the same options by the same names."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
import typer

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import ArgumentError, MaskhubError
from maskhub.masks.mask import MaskSet
from maskhub.options import options
from maskhub_cli.app import COMMANDS, app
from maskhub_cli.command import CALLED, FORMATS, Command
from tests import tiny

NAMES = [name for names in COMMANDS.values() for name in names if name != "demo"]
# What only Python has: what a command line cannot give, or says otherwise.
PYTHON = {"progress", "report", "say", "settings", "names", "examples"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_folder: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    os.symlink(base_folder, "base")
    for i, name in enumerate(("task", "a", "b")):
        tiny.tiny_maskset(base_folder, seed=i).save(f"{name}.msk")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_command_and_its_function_have_the_same_options(name: str) -> None:
    function = getattr(maskhub, CALLED.get(name, name))
    command = typer.main.get_command(app)
    made = command.resolve_command(None, [name])[1]  # type: ignore[attr-defined]
    shown = {parameter.name for parameter in made.params} - {*FORMATS, "help"}
    own = {parameter.name for parameter, *_ in options(Command.named(name).show)}
    told = {parameter.name for parameter, *_ in options(function)}
    assert shown == told | own
    assert set(inspect.signature(function).parameters) - told - PYTHON <= own | {"expression", "masks"}


def test_paths_and_objects_alike(base: Checkpoint) -> None:
    mask, checkpoint = maskhub.open("task.msk"), maskhub.open_checkpoint("base")
    for given in ("base", Path("base"), checkpoint):
        built = maskhub.apply(given, "task.msk", f"out-{type(given).__name__}", dtype="bf16", shard_size="5GB")
        assert built[0].mask == mask.id
    for one in ("task.msk", Path("task.msk"), mask):
        assert maskhub.info(one).id == maskhub.verify(one, base="base").id == mask.id
        assert maskhub.diff(one, "a.msk").total.hamming == maskhub.diff(mask, "a.msk").total.hamming > 0
    composed = maskhub.compose("a & b", {"a": "a.msk", "b": maskhub.open("b.msk")}, head_from="a")
    assert isinstance(composed, MaskSet)
    assert composed.id == (maskhub.open("a.msk") & dense_of(maskhub.open("b.msk"), "a.msk")).id
    maskhub.export(mask, "masks.npz", to="npz")
    Path("shared").mkdir()
    assert maskhub.push("task.msk", "./shared", message="x").changed
    assert maskhub.pull("./shared/task").id == mask.id
    assert [one.entry.id for one in maskhub.list_masks("./shared") if one.entry] == [mask.id]


def dense_of(mask: MaskSet, head: str) -> MaskSet:
    import dataclasses

    return dataclasses.replace(mask, dense=maskhub.open(head).dense)


def test_outputs_are_not_overwritten() -> None:
    before = Path("task.msk").read_bytes()
    for write in (
        lambda: maskhub.save(maskhub.open("a.msk"), "task.msk"),
        lambda: maskhub.open("a.msk").save("task.msk"),
        lambda: maskhub.pack("a.msk", "task.msk"),
        lambda: maskhub.compose("not", {"a": "a.msk"}, "task.msk"),
        lambda: maskhub.export("a.msk", "task.msk", to="npz"),
    ):
        with pytest.raises(FileExistsError) as caught:
            write()
        assert isinstance(caught.value, MaskhubError)
        assert "--force" in str(caught.value)
    assert Path("task.msk").read_bytes() == before
    maskhub.save(maskhub.open("a.msk"), "task.msk", force=True)
    assert maskhub.open("task.msk").id == maskhub.open("a.msk").id


def test_wrong_arguments_are_value_errors() -> None:
    for call, message in {
        lambda: maskhub.diff("a.msk"): "at least two masks are compared. Name another one.",
        lambda: maskhub.diff("a.msk", "b.msk", measure="size"): "measure: there is no 'size'",
        lambda: maskhub.apply("base", []): "no mask is given. Name one or more.",
        lambda: maskhub.apply("base", maskhub.open("a.msk")): "a mask in memory has no name for a folder",
        lambda: maskhub.pack("a.msk", "a.txt"): "the output a.txt does not end in .msk. Such as a.msk.",
        lambda: maskhub.verify("a.msk", revision="main"): "--revision is for a base. Give one: --base.",
    }.items():
        with pytest.raises(ArgumentError) as caught:
            call()
        assert str(caught.value).startswith(message), caught.value
    assert sorted(os.listdir()) == ["a.msk", "b.msk", "base", "task.msk"]


def test_documented_names_work() -> None:
    assert callable(maskhub.interop.export)
    assert callable(maskhub.training.mask_model)
    assert maskhub.train.__name__ == "train"
    assert "learning_rate" in inspect.signature(maskhub.train).parameters
