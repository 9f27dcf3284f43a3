"""Coverage-guided fuzzing of the decoders: ``python -m tests.fuzz.fuzz_codecs [CORPUS] [libFuzzer options]``."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["maskhub"]):
    from maskhub.container import codecs
    from maskhub.container.codecs import pco
    from tests.fuzz.cases import case as joined
    from tests.fuzz.cases import codec_seeds, decode, drift_payload

SEEDS = codec_seeds()
SIZES = (0, 1, 7, 8, 9, 63, 64, 100, 400, 630, 800, (1 << 16) - 3, (1 << 17) + 8)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change the payload, or now and then what the manifest says of it."""
    rng = random.Random(seed)
    head, _, payload = data.partition(b"\n")
    try:
        codec, shape, kept = json.loads(head)
    except ValueError:
        return rng.choice(SEEDS)
    match rng.randrange(12):
        case 0:
            size = rng.choice(SIZES)
            shape = [size] if rng.random() < 0.7 else [size // 8, 8]
        case 1:
            kept = rng.randrange(1 + shape[0])
        case 2:
            other, _, more = rng.choice(SEEDS).partition(b"\n")
            codec, shape, kept = json.loads(other)
            payload = more if rng.random() < 0.5 else payload
        case 3:
            codec = {"name": rng.choice(list(codecs.REGISTRY)), "width": rng.choice((16, 32))}
            codec |= {"count": rng.randrange(99), "m": rng.choice((2, 4, 8, 16)), "n": rng.randrange(1, 9)}
        case 4 | 5:
            kept = min(shape[0], rng.choice((0, 1, 2, 3, 50)))
            codec["count"] = rng.choice((kept, 3))
            payload = numbers(rng, rng.choice((kept, 3)), codec)
        case _:
            payload = atheris.Mutate(payload, max(max_size - len(head) - 1, 1))
    return joined(codec, shape, kept, payload)[:max_size]


def numbers(rng: random.Random, count: int, codec: dict[str, Any]) -> bytes:
    """A payload of right form, or nearly so, with ``count`` numbers, small and large."""
    width: pco.Width = 32 if codec.get("width") == 32 else 16
    values = [rng.choice((0, 1, 2, 99, rng.randrange(1 << rng.randrange(1, width + 1)))) for _ in range(count)]
    if codec["name"] != "drift":
        return pco.compress(np.array(values, np.int64), width)
    return drift_payload(rng, values)


def main() -> None:
    atheris.Setup(sys.argv, decode, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
