"""MaskHub and the independent reader find in each test vector what ``vectors.json`` says, or refuse it."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3

from maskhub.container.codecs import REGISTRY
from maskhub.container.codecs.codec import most
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import CodecError, FormatError, IntegrityError, ParentError
from maskhub.storage.tensor import ITEM_SIZE
from tests.spec.tools import SPEC, load

FOLDER = SPEC / "vectors"
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))["files"]
GOOD = {name: said for name, said in VECTORS.items() if "why" not in said}
REFUSED = {name: said for name, said in VECTORS.items() if "why" in said}
SEAL_ONLY = "refused/seal-wrong.msk"
RULES = (SPEC / "format.md").read_text(encoding="utf-8").partition("### Rules\n")[2].partition("\n## ")[0]
# The kind of MaskHub's error for a broken rule, where it is not FormatError.
KINDS = {
    IntegrityError: r"\w+\.matches|plain\..*",
    CodecError: r"codec|position|parent\.(mask|shape)|(bits|zstd|gaps|drift|rice|nm|delta|list)\..*",
    ParentError: r"parent\.id",
}

reader = load("reader")
make_vectors = load("make_vectors")


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKHUB_CACHE", str(tmp_path / "cache"))


def parents(said):
    return [FOLDER / name for name in said.get("parents", [])]


def is_as_said(said, shape, bits):
    digest = blake3(f"mask {','.join(map(str, shape))}\n".encode() + bits).hexdigest()
    kept = int.from_bytes(bits, "little").bit_count()
    expected = {"bits": bits.hex()} if "bits" in said else {"digest": digest}
    assert {"shape": shape, "kept": kept, "codec": said["codec"], **expected} == said


def test_vectors_never_change():
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert files == VECTORS.keys() | {"vectors.json"}
    for name, said in VECTORS.items():
        assert blake3((FOLDER / name).read_bytes()).hexdigest() == said["blake3"], name


def test_files_of_a_released_version_never_change():
    """All of 1.0, byte for byte, and what is said of it: only a new vector of 1.0 may ever change the first digest."""
    listed = {name: said for name, said in VECTORS.items() if said["since"] == "1.0"}
    text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
    assert blake3(text.encode()).hexdigest() == "17ff81e044becab9756bb2b3c49ae71819a019facc72a1585de334e522f725d6"
    example = (SPEC / "example.msk").read_bytes()
    assert blake3(example).hexdigest() == "1a500a5526051d3661075b9d69b6581358077cb3334d38b8b26745daceefc588"


def test_vectors_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 500_000


def test_every_codec_and_dtype_is_there():
    assert {mask["codec"] for said in GOOD.values() for mask in said["masks"].values()} == REGISTRY.keys()
    assert {tensor["dtype"] for said in GOOD.values() for tensor in said["dense"].values()} == ITEM_SIZE.keys()
    shapes = [mask["shape"] for said in GOOD.values() for mask in said["masks"].values()]
    assert [] in shapes
    assert [0] in shapes
    assert [1] in shapes
    assert max(map(len, shapes)) == 4
    assert [(1 << 20) + 13] in shapes


@pytest.mark.parametrize("name", GOOD)
def test_maskhub_decodes(name):
    said = GOOD[name]
    file = MaskFile(FOLDER / name, parents(said))
    file.verify()
    assert file.manifest.id == file.maskset().id == said["id"]
    assert file.manifest.masks.keys() == said["masks"].keys()
    for mask, expected in said["masks"].items():
        assert file.manifest.masks[mask].codec["name"] == expected["codec"]
        is_as_said(expected, list(file.mask(mask).shape), file.mask(mask).bits.tobytes())
    dense = {key: file.dense(key) for key in file.manifest.dense}
    found = {k: {"dtype": t.dtype, "shape": list(t.shape), "bytes": t.data.tobytes().hex()} for k, t in dense.items()}
    assert found == said["dense"]
    for tensor, parameter in said.get("parameters", {}).items():
        assert file.manifest.base.parameter(tensor) == parameter


@pytest.mark.parametrize("name", GOOD)
def test_the_other_reader_decodes(name):
    said = GOOD[name]
    file = reader.File(FOLDER / name, parents(said))
    file.check_seal()
    manifest = file.manifest
    assert file.id == said["id"]
    assert manifest["masks"].keys() == said["masks"].keys()
    for mask, expected in said["masks"].items():
        assert manifest["masks"][mask]["codec"]["name"] == expected["codec"]
        is_as_said(expected, manifest["masks"][mask]["shape"], file.mask(mask))
    found = reader.describe(file)["dense"]
    assert {
        tensor: {"dtype": entry["dtype"], "shape": entry["shape"], "bytes": file.dense(tensor).hex()}
        for tensor, entry in found.items()
    } == said["dense"]
    for tensor, parameter in said.get("parameters", {}).items():
        assert reader.parameter(manifest["base"], tensor) == parameter


def test_base_tensors_are_bound_and_selected():
    name = "base-dtypes.msk"
    file = reader.File(FOLDER / name)
    tensors = {tensor: bytes.fromhex(said["bytes"]) for tensor, said in GOOD[name]["base"].items()}
    digests = {
        tensor: reader.tensor_digest(said["dtype"], said["shape"], tensors[tensor])
        for tensor, said in GOOD[name]["base"].items()
    }
    assert {tensor: found[:16] for tensor, found in digests.items()} == file.manifest["base"]["tensors"]
    assert reader.base_root(digests) == file.manifest["base"]["root"]
    for tensor, said in GOOD[name]["base"].items():
        data = tensors[tensor]
        bits, width = file.mask(tensor), ITEM_SIZE[said["dtype"]]
        keep = [bits[i // 8] >> i % 8 & 1 for i in range(len(data) // width)]
        assert 0 < sum(keep[-5:]) < 5  # of the NaN, some are kept and some dropped
        selected = b"".join(data[i * width : (i + 1) * width] if k else bytes(width) for i, k in enumerate(keep))
        assert selected.hex() == said["selected"]


@pytest.mark.parametrize("name", REFUSED)
def test_maskhub_refuses(name):
    rule = REFUSED[name]["rule"]
    kind = next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, rule)), FormatError)
    with pytest.raises(kind) as caught:
        MaskFile(FOLDER / name, parents(REFUSED[name])).verify()
    assert type(caught.value) is (FormatError if rule == "parent.named" else kind)
    assert "\n" not in str(caught.value)


def describe(name, skipped=()):
    """What the other reader finds, without these checks."""
    reader.SKIPPED.update(skipped)
    try:
        return reader.describe(reader.File(FOLDER / name, parents(REFUSED[name])))
    finally:
        reader.SKIPPED.clear()


@pytest.mark.parametrize("name", REFUSED)
def test_the_other_reader_refuses_for_this_rule(name):
    with pytest.raises(reader.RefusedError) as caught:
        describe(name)
    assert "\n" not in str(caught.value)
    assert caught.value.rule == REFUSED[name]["rule"]


@pytest.mark.parametrize("name", [name for name, said in REFUSED.items() if "because" not in said])
def test_a_reader_without_this_check_accepts(name):
    said = REFUSED[name]
    if also := said.get("also"):
        with pytest.raises(reader.RefusedError) as caught:
            describe(name, [said["rule"]])
        assert caught.value.rule in also
    assert describe(name, [said["rule"], *said.get("also", [])])["masks"] is not None


@pytest.mark.parametrize("name", [name for name, said in REFUSED.items() if "because" in said])
def test_what_no_reader_could_accept_says_why(name):
    try:
        describe(name, [REFUSED[name]["rule"]])
    except Exception:  # of any kind: a reader may stumble over what it did not check
        return
    pytest.fail("it is accepted")


def test_every_rule_has_a_vector():
    table = re.findall(r"^\| (`.*?`) (\* )?\|", RULES, re.MULTILINE)
    named = {rule for rules, _ in table for rule in re.findall("`([^`]+)`", rules)}
    starred = {rule for rules, star in table if star for rule in re.findall("`([^`]+)`", rules)}
    parameters = {f"{codec}.{key}" for codec, keys in reader.PARAMETERS.items() for key in keys}
    assert parameters == set(re.findall("`((?:gaps|delta|nm)\\.\\w+)`", RULES.partition("| rule |")[0]))
    every = named | parameters | reader.FIELDS.keys()
    source = (SPEC / "reader.py").read_text(encoding="utf-8")
    raised = re.findall(r'(?:need\([^\n]*?|library\(|RefusedError\(|size, )"([a-z0-9]+(?:\.[a-z]+)*)"[,)]', source)
    assert set(raised) <= every
    assert every - starred == {said["rule"] for said in REFUSED.values()}


def test_every_field_of_the_table_is_a_rule():
    text = (SPEC / "format.md").read_text(encoding="utf-8").partition("## Manifest\n")[2].partition("\n## ")[0]
    fields = {
        field for row in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for field in re.findall("`(.+?)`", row)
    }
    assert fields - set(ITEM_SIZE) == reader.FIELDS.keys()


def test_a_file_is_checked_for_its_seal_when_it_is_opened():
    with pytest.raises(IntegrityError, match=r"\(seal\)"):
        MaskFile(FOLDER / SEAL_ONLY)


def test_text_and_readers_have_one_limit():
    text = (SPEC / "format.md").read_text(encoding="utf-8")
    limits = re.findall(r"more than 2\^(\d+) bytes \+ 2\^(\d+) times", text)
    assert len(limits) == 2
    for free, expansion in limits:
        for size in (0, 1, 700, 1 << 30):
            assert reader.most(size) == most(size) == 2 ** int(free) + size * 2 ** int(expansion)


@pytest.mark.parametrize("more", [0, 1])
def test_the_other_reader_takes_masks_up_to_the_limit(more, tmp_path):
    """Of masks that keep everything in payloads of no bytes. They are not decoded here."""

    def file(bytes_of_bits):
        shape = [bytes_of_bits - 1, 8]  # and a second mask for the rest
        masks = make_vectors.maskset({name: np.ones(8, bool) for name in ("w", "v")})
        parts = make_vectors.parts(make_vectors.saved(masks, "gaps"))
        parts.manifest["masks"]["w"] |= {"shape": shape, "kept": 8 * shape[0]}
        text = make_vectors.written(parts.manifest)  # not compressed, as its size must not vary
        return make_vectors.assembled(parts, make_vectors.framed(text, make_vectors.LARGEST_WINDOW))

    size = len(file(most(1000)))
    content = file(most(size) + more)
    assert len(content) == size
    (tmp_path / "x.msk").write_bytes(content)
    if not more:
        reader.File(tmp_path / "x.msk")
        return
    with pytest.raises(reader.RefusedError) as caught:
        reader.File(tmp_path / "x.msk")
    assert caught.value.rule == "limit.file"


def test_the_program_prints_what_a_file_holds():
    command = [sys.executable, str(SPEC / "reader.py")]
    chain = [str(FOLDER / f"chain-{i}.msk") for i in (3, 2, 1)]
    done = subprocess.run(
        [*command, chain[0], "--parent", chain[1], "--parent", chain[2]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = GOOD["chain-3.msk"]
    found = json.loads(done.stdout)
    assert found["id"] == said["id"]
    assert found["parent"] == GOOD["chain-2.msk"]["id"]
    assert found["masks"]["w"].items() >= {"shape": [60, 70], "kept": said["masks"]["w"]["kept"]}.items()
    done = subprocess.run([*command, *chain[:1]], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"the parent {found['parent']} is not at hand" in done.stderr
    assert "(rule parent.id)" in done.stderr
    seal = [*command, str(FOLDER / SEAL_ONLY)]
    assert subprocess.run(seal, capture_output=True).returncode == 1
    assert subprocess.run([*seal, "--skip", "seal.matches"], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["unknown-keys.msk", "newer-minor.msk"])
def test_unknown_keys_are_kept(name, tmp_path):
    def news(value, place=()):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from [(place, inner)] if key == "new" else news(inner, (*place, key))

    save(MaskFile(FOLDER / name).maskset(), tmp_path / "again.msk")
    before, after = (reader.File(path) for path in (FOLDER / name, tmp_path / "again.msk"))
    expected = [place for place in news(before.manifest) if place[0][-1:] != ("codec",)]
    assert len(expected) == 7
    assert sorted(news(after.manifest)) == sorted(expected)
    assert after.manifest["version"] == "1.0"
    assert after.id == before.id


def test_a_vector_is_never_overwritten(tmp_path, capsys):
    shutil.copytree(FOLDER, tmp_path / "vectors")
    folder = tmp_path / "vectors"
    before = (folder / "vectors.json").read_bytes()
    assert make_vectors.main(["--new", "bits.msk"], folder) == 1
    assert "bits.msk is there already" in capsys.readouterr().err
    assert make_vectors.main(["--new", "other.msk"], folder) == 1
    assert (folder / "vectors.json").read_bytes() == before
    listed = json.loads(before)
    del listed["files"]["bits.msk"]
    (folder / "vectors.json").write_text(json.dumps(listed), encoding="utf-8")
    assert make_vectors.main(["--new", "bits.msk"], folder) == 1  # the file is still there
    (folder / "bits.msk").unlink()
    assert make_vectors.main(["--new", "bits.msk"], folder) == 0
    assert make_vectors.listing(folder)["bits.msk"].keys() == VECTORS["bits.msk"].keys()
    assert reader.File(folder / "bits.msk").id == VECTORS["bits.msk"]["id"]


@pytest.mark.parametrize("stop", [1, 15, 16, 17, 100])
def test_draws_of_the_other_reader(stop):
    from maskhub.masks.scores import draw

    assert np.array_equal(reader.draws(5, "ä", 0, stop), draw(5, "ä", stop))
    assert np.array_equal(reader.draws(5, "ä", 32, 32 + stop), draw(5, "ä", stop, 32))
