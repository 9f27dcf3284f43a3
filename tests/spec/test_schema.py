"""``spec/manifest.schema.json`` is the generated one, and agrees with our parser about what is broken."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import safetensors
import zstandard

from maskhub.container.manifest import parse
from maskhub.container.writer import save
from maskhub.errors import FormatError
from maskhub.masks.binding import BaseBinding, HubRevision, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage.tensor import RawTensor

PATH = Path(__file__).parents[2] / "spec" / "manifest.schema.json"
SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """The manifest of a saved file that uses every field."""
    digests = {"layer.weight": "a" * 64, "layer.bias": "b" * 64, "other": "c" * 64}
    parameters = {"layer.weight": "net.layer.weight", "layer.bias": "net.layer.bias", "other": "elsewhere"}
    hub = HubRevision("user/base", "0" * 40, {"model.safetensors": "d" * 64})
    maskset = MaskSet(
        BaseBinding.of("user/base", digests, parameters, hub),
        {"layer.weight": Mask.from_bool(np.arange(4000).reshape(40, 100) % 17 > 0)},
        dense={"head.bias": RawTensor.from_numpy(np.zeros(2, np.float32))},
        task=Task("text-classification", "NetForSequenceClassification", {"num_labels": 2}, "user/tokenizer", 128),
        initial=Initial(seed=0, cut=3277, low=-0.02, high=0.58),
        metrics={"accuracy": 0.5},
        lineage={"operation": "train", "settings": {"seed": 1}},
    )
    path = tmp_path_factory.mktemp("schema") / "mask.msk"
    save(maskset, path, codec="delta", parent=maskset)
    return json.loads(manifest_text(path))


def manifest_text(path):
    with safetensors.safe_open(path, "numpy") as file:
        return zstandard.decompress(file.get_tensor("maskhub.manifest").tobytes())


def changed(manifest, place, value):
    """A copy with the value at ``place`` (keys joined by slashes) set, or removed where it is ``...``."""
    copied = copy.deepcopy(manifest)
    *parents, last = place.split("/")
    inner = copied
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copied


def test_the_file_is_the_generated_one():
    command = [sys.executable, str(PATH.with_name("make_schema.py"))]
    generated = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    assert PATH.read_text(encoding="utf-8") == generated


def test_it_is_a_schema():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_saved_manifest_is_valid(manifest):
    assert set(manifest) == set(SCHEMA["$defs"]["Manifest"]["properties"])
    VALIDATOR.validate(manifest)


def test_example_is_valid():
    VALIDATOR.validate(json.loads(manifest_text(PATH.parent / "example.msk")))


@pytest.mark.parametrize("place", ["new", "base/new", "base/hub/new", "masks/layer.weight/new", "task/new"])
def test_unknown_keys_are_allowed(manifest, place):
    newer = changed(changed(manifest, place, {"any": [1]}), "version", "1.12")
    VALIDATOR.validate(newer)
    _, extra = parse(json.dumps(newer), "file")
    for key in place.split("/"):
        extra = extra[key]
    assert extra == {"any": [1]}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format", "other"),
        ("format", ...),
        ("version", "2.0"),
        ("version", "1"),
        ("version", 1.0),
        ("base", ...),
        ("base/root", "0" * 65),
        ("base/name", None),
        ("base/tensors/layer.bias", "0"),
        ("base/tensors/layer.bias", "0" * 17),
        ("base/tensors/layer.bias", "0" * 16 + "\n"),
        ("base/tensors/layer.bias", "A" * 16),
        ("base/tensors/line\nbreak", "0" * 16),
        ("base/tensors/last\n", "0" * 16),
        ("base/tensors/", "0" * 16),
        ("base/parameters/other", ""),
        ("base/parameter_prefix", 1),
        ("base/hub/commit", ...),
        ("base/hub/files/model.safetensors", "d" * 40),
        ("masks", []),
        ("masks", ...),
        ("masks/layer.weight/shape", [-1]),
        ("masks/layer.weight/shape", [1] * 9),
        ("masks/layer.weight/shape", "40,100"),
        ("masks/layer.weight/kept", "5"),
        ("masks/layer.weight/kept", 1 << 63),
        ("masks/layer.weight/codec", "bits"),
        ("masks/layer.weight/digest", ...),
        ("masks/layer.weight/bytes", ...),
        ("masks/layer.weight/bytes", -1),
        ("masks/layer.weight/bytes", 0.5),
        ("masks/layer.weight/bytes", 1 << 63),
        ("parent", "A" * 64),
        ("parent", "0" * 64 + "\n"),
        ("dense", []),
        ("dense/head.bias", {"digest": "0" * 64}),
        ("dense/head.bias", "0" * 63),
        ("dense/line\nbreak", "0" * 64),
        ("task/architecture", ...),
        ("task/max_length", "128"),
        ("metrics/accuracy", "high"),
        ("metrics/accuracy", None),
        ("lineage", None),
    ],
)
def test_schema_and_parser_refuse_the_same(manifest, place, value):
    broken = changed(manifest, place, value)
    assert not VALIDATOR.is_valid(broken)
    with pytest.raises(FormatError, match=r"^file: "):
        parse(json.dumps(broken), "file")
