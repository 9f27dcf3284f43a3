"""Names that lead elsewhere, or that no file can have: left out of lists with a warning, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import maskhub
from maskhub.errors import MaskhubError
from maskhub.storage.address import is_name, parse, with_suffix
from tests.remote.conftest import TestHub

BAD = (
    "C:\\x.msk", "..\\..\\x.msk", "../x.msk", "../../../../../../tmp/x.msk", "a/../../x.msk", "/x.msk", "//host/x.msk",
    "a\0b.msk", "a\nb.msk", "a\x1b[31mb.msk", "\u202eksm.msk", "\udcff.msk", "\ud800.msk", "a@main.msk", ".hidden.msk",
    "a/.git/x.msk", "a//b.msk", "./x.msk", "x" * 300 + ".msk", "a/" * 600 + "x.msk",
)  # fmt: skip
GOOD = ("x.msk", "a/b/c.msk", "a b.msk", "C:x.msk", "é.msk", "-x.msk", "x..msk", "x" * 190 + ".msk")


def test_which_names_a_mask_can_have() -> None:
    assert [name for name in BAD if is_name(name)] == []
    assert [name for name in GOOD if not is_name(name) or with_suffix(name) != name] == []
    for name in BAD:
        if name not in ("a//b.msk", "./x.msk"):  # which are other words for good ones
            with pytest.raises(MaskhubError, match="not a name for a mask") as caught:
                with_suffix(name)
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize("alone", [True, False])
def test_a_hostile_repo_does_not_break_the_list(hub: TestHub, mask_path: Path, alone: bool) -> None:
    card = "---\ntags: [maskhub]\n---\n"
    names = {name: mask_path.read_bytes() for name in BAD}
    hub.put("bob/good", y__msk=mask_path.read_bytes(), README__md=card.encode())
    hub.put("bob/evil", README__md=card.encode(), **names, **({} if alone else {"z.msk": names[BAD[0]]}))
    for command in (("list",), ("list", "bob/evil")):
        ran = hub(*command)
        assert ran.status == 0, ran.err
        warnings = ran.stderr.splitlines()[: len(BAD)]
        assert all(line.startswith("Warning: bob/evil: ") for line in warnings), warnings
        assert all(line.endswith("not a name for a mask; left out") for line in warnings), warnings
        assert all(line.isprintable() for line in ran.stderr.splitlines())
        listed = hub(*command, "-q").out.split()
        assert listed == ([] if alone else ["bob/evil/z.msk"]) + (["bob/good/y.msk"] if command == ("list",) else [])
        found = json.loads(hub(*command, "--json").out)
        assert [one["address"] for one in found if one["entry"]] == listed
    ran = hub("pull", "bob/evil", "-o", "out.msk")
    assert (ran.status, ran.stderr.count("\n")) == ((1, 1) if alone else (0, 1)), ran.stderr
    assert {path.name for path in hub.folder.iterdir()} - {"hf"} == (set() if alone else {"out.msk"})
    assert hub("push", mask_path, "bob/evil", "--name", "mine", token="hf_bob").status == 0


def test_pull_of_a_hostile_name_is_one_line(hub: TestHub, mask_path: Path) -> None:
    hub.put("bob/evil", **dict.fromkeys(BAD, mask_path.read_bytes()))
    before = {path.name for path in hub.folder.iterdir()}
    for name in BAD:
        for address in (f"bob/evil/{name}", f"hf://bob/evil/{name}", f"hf://bob/evil@main/{name}"):
            if name in ("a//b.msk", "./x.msk"):  # other words for names that are not there
                continue
            for command in (("pull", address, "-o", "out.msk"), ("info", address)):
                ran = hub(*command)
                assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1), (address, ran.stderr)
                assert ran.stderr.startswith("Error: ")
                assert "unexpected error" not in ran.stderr, ran.stderr
                assert ran.stderr.rstrip("\n").isprintable()
    assert {path.name for path in hub.folder.iterdir()} - before <= {"hf", "maskhub"}


@pytest.mark.parametrize("key", ["self", "ignore_metadata_errors"])
def test_a_card_that_the_client_cannot_take_in_does_not_break_the_list(hub: TestHub, mask_path: Path, key: str) -> None:
    """The Hub's client raises a TypeError over such a key, for all of a list."""
    hub.put("bob/evil", x__msk=mask_path.read_bytes(), README__md=f"---\ntags: [maskhub]\n{key}: 1\n---\n".encode())
    assert hub("push", mask_path, "alice/good").status == 0
    assert hub("list", "-q").out.split() == ["alice/good/task.msk", "bob/evil/x.msk"]
    for command in (("list", "bob/evil"), ("pull", "bob/evil"), ("push", mask_path, "bob/evil/y")):
        ran = hub(*command, token="hf_bob")
        assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
        assert ran.stderr.startswith("Error: bob/evil"), ran.stderr
        assert "the Hub's client refuses it: " in ran.stderr


@pytest.mark.parametrize("number", ["-1", "1.5", str(1 << 70), ".inf", ".nan", "0x" + "f" * 5000])
def test_cards_with_impossible_numbers_are_not_believed(hub: TestHub, mask_path: Path, number: str) -> None:
    digest = "0" * 64
    entry = f'{{name: x.msk, id: "{digest}", base: b, root: "{digest}", bytes: {number}, weights: 1, sparsity: 0, '
    card = f"---\ntags: [maskhub]\nmaskhub: [{entry}bits_per_weight: 1}}]\n---\n"
    hub.put("bob/evil", x__msk=mask_path.read_bytes(), README__md=card.encode())
    ran = hub("list", "bob/evil", "--json")
    if len(number) > 4000:  # which no JSON of Python's holds
        assert (ran.status, ran.stderr.count("\n"), "unexpected" in ran.err) == (1, 1, False), ran.stderr
        return
    (found,) = json.loads(ran.out)
    assert found["entry"]["bytes"] == mask_path.stat().st_size  # read from the mask


def test_json_is_strict(hub: TestHub, mask_path: Path) -> None:
    digest = "0" * 64
    entry = f'{{name: x.msk, id: "{digest}", base: b, root: "{digest}", bytes: 1, weights: 1, sparsity: .nan, '
    entry += "bits_per_weight: .inf, metrics: {accuracy: .nan, f1: -.inf, right: 0.5}}"
    hub.put(
        "bob/odd", x__msk=mask_path.read_bytes(), README__md=f"---\ntags: [maskhub]\nmaskhub: [{entry}]\n---\n".encode()
    )

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    (found,) = json.loads(hub("list", "--json").out, parse_constant=refuse)
    assert found["entry"]["metrics"] == {"accuracy": None, "f1": None, "right": 0.5}
    assert (found["entry"]["sparsity"], found["entry"]["bits_per_weight"]) == (None, None)
    assert hub("list").status == 0


def test_odd_names_in_a_folder(mask_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))
    index = tmp_path / "shared" / "index"
    index.mkdir(parents=True)
    maskhub.push(mask_path, "shared", name="a")
    content = (index / "a.json").read_bytes()
    bad = [b"C:\\x.json", b"\xff.json", b"\x1b[31m.json", "\u202ex.json".encode(), b"y" * 200 + b".json"]
    for name in bad:
        Path(str(index), name.decode(errors="surrogateescape")).write_bytes(content)
    listed = maskhub.list_masks("shared")
    assert [one.address for one in listed if one.entry] == ["shared/a.msk"]
    assert len([one for one in listed if one.problem and "not a name for a mask" in one.problem]) == len(bad)
    assert all((one.problem or "").isprintable() for one in listed)
    assert maskhub.pull("shared").bytes == mask_path.stat().st_size  # there is one mask
    for name in [*BAD, *(one.decode(errors="surrogateescape") for one in bad)]:
        for address in (f"shared/{name}", f"./shared/{name.removesuffix('.msk')}", f"memory://shared/{name}"):
            with pytest.raises(MaskhubError) as caught:
                maskhub.pull(address, "out.msk")
            assert "\n" not in str(caught.value)
            assert str(caught.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {"shared", "cache", mask_path.name}


def test_parse_never_gives_a_name_that_leads_elsewhere() -> None:
    for name in BAD:
        for text in (f"bob/evil/{name}", f"bob/evil@main/{name}"):
            place = parse(text)
            assert not getattr(place, "repo", None) or place.name is None or is_name(place.name)
