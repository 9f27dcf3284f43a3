"""Coverage-guided fuzzing of the reader: ``python -m tests.fuzz.fuzz_reader [CORPUS] [libFuzzer options]``."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris

with atheris.instrument_imports(include=["maskhub"]):
    from tests.attacks.forge import honest
    from tests.fuzz.cases import file_seeds, read

SEEDS = file_seeds()
ODD: list[Any] = [
    0, 1, -1, 2, 7, 8, 16, 32, 1 << 16, 1 << 20, 1 << 31, 1 << 48, 1 << 63, 1 << 64, 0.5, 1e308, None, True,
    "", "\0", "gaps", "0" * 64, [], [0], [1, 1], {}, {"name": "zstd"},
]  # fmt: skip


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change bytes as they are, or a payload or a field behind digests that agree again."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return atheris.Mutate(data, max_size)
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        manifest = json.loads(header.pop("__metadata__")["maskhub"])
        body = data[8 + size :]
        payloads = {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}
        if rng.random() < 0.6 and payloads:
            name = rng.choice(list(payloads))
            payloads[name] = atheris.Mutate(payloads[name], len(payloads[name]) + 64)
        else:
            change(manifest, rng)
        result = honest(manifest, payloads)
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
