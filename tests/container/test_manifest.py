from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskhub.container.manifest import DEPTH, parse, render
from maskhub.errors import FormatError
from tests.tiny import read_parts


@pytest.fixture
def raw(mask_path: Path) -> dict[str, Any]:
    """The manifest of a real file, to be changed."""
    return read_parts(mask_path)[0]


def put(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``raw`` with ``value`` at the keys in ``path``; a masked tensor's name is written ``*``."""
    *keys, last = (min(raw["masks"]) if key == "*" else key for key in path.split("/"))
    inner = raw
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return raw


def test_parse_and_render_are_inverse(raw: dict[str, Any]) -> None:
    manifest, extra = parse(json.dumps(raw), "x")
    assert extra == {}
    text = render(manifest, extra)
    assert json.loads(text) == raw
    assert parse(text, "x") == (manifest, {})


def test_render_sorts_keys_at_every_level(raw: dict[str, Any]) -> None:
    manifest, _ = parse(json.dumps(raw), "x")
    text = render(manifest, {})
    backwards = json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert render(*parse(json.dumps(backwards), "x")) == text


@pytest.mark.parametrize("place", ["new", "base/new", "masks/*/new", "task/new"])
@pytest.mark.parametrize("value", [1, "text", None, [1, {"a": []}], {"deep": {"er": 1.5}}])
def test_unknown_keys_are_kept(raw: dict[str, Any], place: str, value: Any) -> None:
    put(raw, place, value)
    manifest, extra = parse(json.dumps(raw), "x")
    assert json.loads(render(manifest, extra)) == raw


def test_unknown_keys_of_a_dropped_entry_go_with_it(raw: dict[str, Any]) -> None:
    put(raw, "masks/*/new", 1)
    name = min(raw["masks"])
    _, extra = parse(json.dumps(raw), "x")
    del raw["masks"][name]
    without, _ = parse(json.dumps(raw), "x")
    assert json.loads(render(without, extra)) == raw


def test_a_known_key_wins_over_an_unknown_one(raw: dict[str, Any]) -> None:
    manifest, _ = parse(json.dumps(raw), "x")
    assert json.loads(render(manifest, {"base": "f" * 64, "lineage": "?", "task": {"type": "?"}})) == raw


def test_a_newer_minor_is_read(raw: dict[str, Any]) -> None:
    manifest, _ = parse(json.dumps(raw | {"version": "1.17"}), "x")
    assert manifest.version == "1.17"


@pytest.mark.parametrize("number", ["3", "0", "-7", "3.0", "0.25", "1e+30", "1" + "0" * 30, "-1" + "0" * 308])
def test_a_number_is_written_again_as_it_was(raw: dict[str, Any], number: str) -> None:
    value = json.loads(number)
    raw |= {"metrics": {"steps": value}, "lineage": {"steps": value}, "new": value}
    raw["initial"] = {"seed": 0, "cut": 0, "low": value, "high": value}
    text = json.loads(render(*parse(json.dumps(raw), "x")))
    for found in (text["metrics"]["steps"], text["lineage"]["steps"], text["new"], text["initial"]["low"]):
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "999999999.0"])
def test_another_major_is_refused_by_its_version(raw: dict[str, Any], version: str) -> None:
    with pytest.raises(FormatError, match=f"file.msk: format version {version}, and this MaskHub reads 1.x") as caught:
        parse(json.dumps(raw | {"version": version}), "file.msk")
    assert caught.value.hint == "Upgrade it: pip install --upgrade maskhub."
    # Nothing else of the manifest is looked at.
    with pytest.raises(FormatError, match="format version"):
        parse(json.dumps({"format": "maskhub", "version": version}), "file.msk")


@pytest.mark.parametrize(
    "version",
    ["1", "", "1.", "1.0.0", "1.0\n", "١.٠", "1.-1", "01.0", "1.00", "1.01", "9" * 5000 + ".0", 1.0, None, ["1.0"]],
)
def test_what_is_no_version_is_refused(raw: dict[str, Any], version: Any) -> None:
    with pytest.raises(FormatError, match="the field 'version' is not a version: "):
        parse(json.dumps(raw | {"version": version}), "x")


@pytest.mark.parametrize("text", ["[]", "1", "null", '"maskhub"', "{}", '{"format":"other","version":"1.0"}'])
def test_another_format_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="x: the manifest's field 'format' is not 'maskhub'"):
        parse(text, "x")


@pytest.mark.parametrize(
    "text", ["", "{", "{}{}", "nan", '{"a":NaN}', '{"a":1e999}', '{"a":' + "9" * 5000 + "}", '"\\ud800"', "\x00"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="x: the manifest is not valid: "):
        parse(text, "x")


@pytest.mark.parametrize("digits", ["1" + "0" * 309, "-1" + "0" * 309, "18" + "0" * 307, "1e309", "-1e309", "9" * 5000])
@pytest.mark.parametrize("place", ["lineage/x", "metrics/x", "new", "initial/low", "task/config/x"])
def test_a_number_beyond_64_bit_floats_is_refused(raw: dict[str, Any], digits: str, place: str) -> None:
    raw |= {"lineage": {}, "metrics": {}, "initial": {"seed": 0, "cut": 0, "low": 0, "high": 1}}
    raw["task"] |= {"config": {}}
    text = json.dumps(put(raw, place, "HERE"))
    parse(text.replace('"HERE"', "17" + "0" * 307), "x")
    with pytest.raises(FormatError, match=r"x: the manifest is not valid: .*out of range"):
        parse(text.replace('"HERE"', digits), "x")


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        ("base/root", "x", "root"),
        ("base/root", "F" * 64, "root"),
        ("base/root", "f" * 64 + "\n", "root"),
        ("parent", "0" * 63, "parent"),
        ("base", None, "base"),
        ("base", [], "base"),
        ("base/root", 1, "base.root"),
        ("base/tensors", [], "base.tensors"),
        ("base/tensors/x", "y", "base.tensors"),
        ("base/tensors/\n", "0" * 64, "key"),
        ("base/tensors/x\n", "0" * 64, "key"),
        ("base/tensors/\x1b[2J", "0" * 64, "key"),
        ("base/parameters", {"x": "\x07"}, "base.parameters"),
        ("base/hub", {"id": "a/b"}, "base.hub"),
        ("masks", {"": {}}, "key"),
        ("masks", {"x" * 1025: {}}, "key"),
        ("masks/*", [], r"masks\[...\]"),
        ("masks/*/shape", [-1], "shape"),
        ("masks/*/shape", [1.5], "shape"),
        ("masks/*/shape", [(1 << 62) + 1], "shape"),
        ("masks/*/shape", [1 << 70], "shape"),
        ("masks/*/shape", [1] * 9, "shape"),
        ("masks/*/shape", 6, "shape"),
        ("masks/*/kept", -1, "kept"),
        ("masks/*/kept", "1", "kept"),
        ("masks/*/codec", "bits", "codec"),
        ("masks/*/digest", "", "digest"),
        ("masks/*/bytes", -1, "bytes"),
        ("base/tensors/x", "0" * 16 + "\n", "tensors"),
        ("base/tensors/x", "0" * 64, "tensors"),
        ("dense/x", "0" * 16, "dense"),
        ("dense", [], "dense"),
        ("metrics", {"accuracy": None}, "metrics"),
        ("lineage", [], "lineage"),
        ("task", {"type": "text-classification"}, "task"),
        ("task/max_length", "long", "task.max_length"),
    ],
)
def test_a_wrong_field_is_named(raw: dict[str, Any], place: str, value: Any, where: str) -> None:
    with pytest.raises(FormatError, match=rf"^x: the manifest is not valid: .* at `.*{where}"):
        parse(json.dumps(put(raw, place, value)), "x")


@pytest.mark.parametrize("field", ["format", "version", "base", "masks"])
def test_a_missing_field_is_named(raw: dict[str, Any], field: str) -> None:
    del raw[field]
    with pytest.raises(FormatError, match=field):
        parse(json.dumps(raw), "x")


@pytest.mark.parametrize("field", ["lineage", "new"])
def test_deep_nesting_is_refused_before_it_can_hurt(raw: dict[str, Any], field: str) -> None:
    def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
        value = opening * levels + "1" + closing * levels
        return json.dumps(raw | {field: 0}).replace(f'"{field}": 0', f'"{field}": {value}')

    for innermost, levels in (("1", DEPTH - 1), ("{}", DEPTH - 1), ('{"a":{}}', DEPTH - 2)):
        manifest, extra = parse(nested(levels).replace("1}", innermost + "}"), "x")
        assert parse(render(manifest, extra), "x") == (manifest, extra)
    for levels in (DEPTH, 200, 500):
        with pytest.raises(FormatError, match="x: the manifest is nested deeper than 63 objects and arrays"):
            parse(nested(levels), "x")
    for levels in (900, 990, 5_000, 500_000):
        with pytest.raises(FormatError, match="x: the manifest is n"):
            parse(nested(levels), "x")
    if field == "new":
        with pytest.raises(FormatError, match="nested deeper"):
            parse(nested(500, "[", "]"), "x")
