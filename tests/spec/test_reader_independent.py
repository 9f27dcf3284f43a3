"""``spec/reader.py`` uses nothing of MaskHub, and agrees with it on random mask sets."""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskhub.container import codecs
from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from maskhub.errors import CodecError, MaskhubError
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial, draw
from maskhub.storage.tensor import ITEM_SIZE, RawTensor
from tests.spec.tools import SPEC, load

reader = load("reader")

CHARACTERS = st.characters(exclude_categories=["Cs"])
NAMES = st.text(
    st.characters(exclude_characters="\x7f", exclude_categories=["Cs"], min_codepoint=32), min_size=1, max_size=12
)
NUMBERS = st.integers(-(10**308), 10**308) | st.floats(allow_nan=False, allow_infinity=False)
CONFIGS = st.dictionaries(
    st.text(CHARACTERS),
    st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(CHARACTERS),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(CHARACTERS), inner),
        max_leaves=8,
    ),
    max_size=4,
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=24)


@st.composite
def masks(data: st.DrawFn, name: str, initial: Initial) -> np.ndarray:
    """Random, in whole rows, near the initial mask, or in an N:M pattern."""
    shape = data(SHAPES)
    rng = np.random.default_rng(data(st.integers(0, 2**32)))
    density = data(st.sampled_from([0, 0.02, 0.5, 0.95, 1]))
    kind = data(st.sampled_from(["random", "rows", "drift", "pattern"]))
    if kind == "rows":
        return np.broadcast_to(rng.random(shape[:1] + (1,) * (len(shape) - 1)) < density, shape)
    if kind == "drift":
        keep = draw(initial.seed, name, math.prod(shape)).reshape(shape) >= initial.cut
        return keep ^ (rng.random(shape) < 0.05)
    if kind == "pattern" and shape:
        m = data(st.sampled_from([2, 4, 8, 16]))
        n = data(st.integers(1, m - 1))
        groups = rng.permuted(np.tile(np.arange(m) < n, (math.prod(shape), 1)), axis=1)
        return groups.reshape(*shape[:-1], shape[-1] * m)
    return rng.random(shape) < density


@st.composite
def masksets(data: st.DrawFn) -> tuple[MaskSet, MaskSet]:
    """A mask set, and one of the same base and shapes that could be its parent."""
    cuts = st.sampled_from([0, 1, 3277, 30_000, 65_535, 65_536])
    initial = Initial(data(st.integers(0, 2**32 - 1)), data(cuts), -0.02, 0.58)
    names = data(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    flags = {name: data(masks(name, initial)) for name in names}
    dtypes = st.sampled_from(sorted(ITEM_SIZE))
    dense = {}
    for i in range(data(st.integers(0, 2))):
        dtype, shape = data(dtypes), data(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        content = np.arange(math.prod(shape) * ITEM_SIZE[dtype], dtype=np.uint8)
        dense["\x80" * 20 + str(i)] = RawTensor(dtype, shape, content)
    digests = {name: f"{i:064x}" for i, name in enumerate([*names, "not masked"])}
    base = BaseBinding.of("base", digests, {name: f"net.{name}" for name in digests}, None)
    task = data(st.none() | st.builds(Task, st.text(CHARACTERS), st.text(CHARACTERS), CONFIGS))
    changed = {name: keep ^ (np.arange(keep.size).reshape(keep.shape) % 50 == 7) for name, keep in flags.items()}
    sets = [{name: Mask.from_bool(keep) for name, keep in some.items()} for some in (flags, changed)]
    return MaskSet(base, sets[0], dense, task, initial), MaskSet(base, sets[1])


def test_it_imports_nothing_of_maskhub() -> None:
    program = (
        "import json, runpy, sys\n"
        f"sys.argv = ['reader.py', {str(SPEC / 'example.msk')!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(SPEC / 'reader.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "print('\\0' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    modules = set(json.loads(done.stdout.partition("\0")[2]))
    assert modules >= {"blake3", "numpy", "pcodec", "safetensors", "zstandard"}
    assert not modules & {"maskhub", "maskhub_cli", "msgspec", "torch"}


@pytest.mark.parametrize("codec", codecs.names())
@settings(max_examples=40)
@given(sets=masksets())
def test_both_readers_find_the_same(codec: str, sets: tuple[MaskSet, MaskSet]) -> None:
    maskset, parent = sets
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "mask.msk", Path(folder) / "parent.msk"
        save(parent, other)
        try:
            manifest = save(maskset, path, codec=codec, parent=parent)
        except CodecError:
            assert codec == "nm"
            return
        file = reader.File(path, [other])
        said = reader.describe(file)
        ours = MaskFile(path, [other])
        ours.verify()
        assert said["id"] == manifest.id == maskset.id == ours.maskset().id
        assert said["masks"].keys() == maskset.masks.keys()
        for name, mask in maskset.masks.items():
            assert file.mask(name) == mask.bits.tobytes() == ours.mask(name).bits.tobytes()
            assert said["masks"][name]["kept"] == mask.kept
        assert said["dense"].keys() == maskset.dense.keys()
        for name, tensor in maskset.dense.items():
            assert file.dense(name) == tensor.data.tobytes()


VECTORS = [path for path in sorted((SPEC / "vectors").glob("*.msk")) if path.stat().st_size < 8000]


@settings(max_examples=150)
@given(path=st.sampled_from(VECTORS), data=st.data())
@example(path=VECTORS[0], data=None)
def test_both_refuse_a_changed_byte(path: Path, data: st.DataObject | None) -> None:
    content = bytearray(path.read_bytes())
    if data is not None:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "mask.msk"
        broken.write_bytes(content)
        parents = [other for other in VECTORS if other != path]
        if data is None:
            reader.describe(reader.File(broken, parents))
            return
        with pytest.raises(reader.RefusedError):
            reader.describe(reader.File(broken, parents))
        with pytest.raises(MaskhubError):
            MaskFile(broken, parents).verify()
