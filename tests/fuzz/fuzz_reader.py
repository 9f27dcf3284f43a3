"""Coverage-guided fuzzing of the reader: ``python -m tests.fuzz.fuzz_reader [CORPUS] [libFuzzer options]``."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris

with atheris.instrument_imports(include=["maskhub"]):
    from tests.attacks.forge import honest, make_vectors
    from tests.fuzz.cases import file_seeds, read

SEEDS = file_seeds()
ODD: list[Any] = [
    0, 1, -1, 2, 7, 8, 16, 32, 1 << 16, 1 << 20, 1 << 31, 1 << 48, 1 << 63, 1 << 64, 0.5, 1e308, None, True,
    "", "\0", "gaps", "0" * 64, [], [0], [1, 1], {}, {"name": "zstd"},
]  # fmt: skip


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change bytes as they are, or a coded mask, a field or the frame behind metadata and a seal that agree again."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return atheris.Mutate(data, max_size)
    try:
        content = make_vectors.parts(data)
        chosen = rng.random()
        if chosen < 0.5 and content.masks:
            name = rng.choice(list(content.masks))
            content.masks[name] = atheris.Mutate(content.masks[name], len(content.masks[name]) + 64)
        elif chosen < 0.9:
            change(content.manifest, rng)
        else:
            make_vectors.follow(content)
            change(content.plain, rng)
            text = make_vectors.written(content.manifest)
            frame = make_vectors.packed(text, level=1)
            frame = atheris.Mutate(frame, len(frame) + 64)
            return make_vectors.assembled(content, frame)[:max_size]
        result = honest(content)
    except Exception:  # what broke it may be all that was wrong with it
        return rng.choice(SEEDS)
    return result[:max_size]


def change(value: Any, rng: random.Random) -> None:
    """Change, drop or add something at a random place of a JSON value, in place."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    if isinstance(value[key], (dict, list)) and value[key] and rng.random() < 0.9:
        change(value[key], rng)
    elif rng.random() < 0.1:
        del value[key]
    elif rng.random() < 0.1 and isinstance(value, dict):
        value[rng.choice(("x", "initial", "parent", "__metadata__", "\u202e"))] = rng.choice(ODD)
    else:
        value[key] = value[key] + rng.choice((-1, 1)) if type(value[key]) is int else rng.choice(ODD)


def main() -> None:
    with TemporaryDirectory(prefix="maskhub-fuzz-") as folder:
        path = Path(folder) / "x.msk"
        atheris.Setup(sys.argv, lambda data: read(path, data), custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
