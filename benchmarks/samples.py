"""Random masks of real models' shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from maskhub.container.codecs import Target
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial, draw
from maskhub.storage.tensor import RawTensor

Shapes = dict[str, tuple[int, ...]]


def encoder(layers: int, hidden: int) -> Shapes:
    """The matrices that are masked in a BERT encoder: six a layer."""
    inner = 4 * hidden
    return {
        f"encoder.layer.{layer}.{name}.weight": shape
        for layer in range(layers)
        for name, shape in (
            ("attention.self.query", (hidden, hidden)),
            ("attention.self.key", (hidden, hidden)),
            ("attention.self.value", (hidden, hidden)),
            ("attention.output.dense", (hidden, hidden)),
            ("intermediate.dense", (inner, hidden)),
            ("output.dense", (hidden, inner)),
        )
    }


def masks(shapes: Shapes, sparsity: float) -> dict[str, Mask]:
    """Masks that drop each weight with probability ``sparsity``, on its own."""
    rng = np.random.default_rng(0)
    return {name: Mask.from_bool(rng.random(shape, dtype=np.float32) >= sparsity) for name, shape in shapes.items()}


def target(mask: Mask, initial: Initial | None = None, name: str = "") -> Target:
    """What a decoder knows of a mask beforehand."""
    return Target(name, mask.shape, mask.kept, initial)


def drifted(shapes: Shapes, initial: Initial, *, reach: int = 2500, seed: int = 0) -> dict[str, Mask]:
    """Masks as training leaves them: the nearer a weight's draw lay to the cut, the likelier it changed sides.

    ``reach`` is the distance at which that is 2.7 times less likely; ``seed`` tells tasks apart that began alike.
    """
    rng = np.random.default_rng(seed)
    result = {}
    for name, shape in shapes.items():
        draws = draw(initial.seed, name, math.prod(shape))
        keep = draws >= initial.cut
        near = np.flatnonzero((draws >= initial.cut - 12 * reach) & (draws < initial.cut + 12 * reach))  # all but a few
        at = draws[near].astype(np.int32)
        distance = np.where(at >= initial.cut, at - initial.cut, initial.cut - 1 - at)
        keep[near] ^= rng.random(near.size, dtype=np.float32) < 0.5 * np.exp(-distance / reach)
        result[name] = Mask.from_bool(keep.reshape(shape))
    return result


def drift_entropy(masks: Mapping[str, Mask], initial: Initial) -> float:
    """Bytes of masks for who knows the initial scores: conditional entropy of the changes, given the distance.

    In 32 bins of equal size for each tensor, by a weight's distance from the cut.
    """
    bits = 0.0
    for name, mask in masks.items():
        draws = draw(initial.seed, name, mask.size).astype(np.int32)
        keep = draws >= initial.cut
        distance = np.where(keep, draws - initial.cut, initial.cut - 1 - draws)
        changed = keep ^ mask.to_bool().reshape(-1)
        place = np.searchsorted(np.quantile(distance, np.linspace(0, 1, 33)[1:-1]), distance, side="right")
        count, found = np.bincount(place, minlength=32), np.bincount(place, changed, minlength=32)
        mixed = (found > 0) & (found < count)
        share = found[mixed] / count[mixed]
        bits -= float(np.sum(count[mixed] * (share * np.log2(share) + (1 - share) * np.log2(1 - share))))
    return bits / 8


def maskset(layers: int, hidden: int, sparsity: float) -> MaskSet:
    """A task on a BERT encoder: random masks, a classifier of two labels, a binding to made-up base digests."""
    shapes = encoder(layers, hidden)
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    names = [
        *shapes,
        *(name.removesuffix("weight") + "bias" for name in shapes),
        *(f"encoder.layer.{layer}.{n}.{end}" for layer in range(layers) for n in norms for end in ("weight", "bias")),
        *(f"embeddings.{n}.weight" for n in ("word_embeddings", "position_embeddings", "token_type_embeddings")),
        *(f"embeddings.LayerNorm.{end}" for end in ("weight", "bias")),
        *(f"pooler.dense.{end}" for end in ("weight", "bias")),
    ]
    digests = {name: blake3(name.encode()).hexdigest() for name in names}
    labels = {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
    return MaskSet(
        base=BaseBinding.of("user/base-model", digests, {name: f"bert.{name}" for name in names}, None),
        masks=masks(shapes, sparsity),
        dense={
            "classifier.weight": RawTensor.from_numpy(np.zeros((2, hidden), np.float32)),
            "classifier.bias": RawTensor.from_numpy(np.zeros(2, np.float32)),
        },
        task=Task("text-classification", "BertForSequenceClassification", labels),
    )


def shannon(masks: dict[str, Mask]) -> float:
    """Entropy in bits a weight of independent draws with these masks' sparsity: no code without a model does better."""
    size = sum(mask.size for mask in masks.values())
    kept = sum(mask.kept for mask in masks.values()) / size
    return -sum(share * math.log2(share) for share in (kept, 1 - kept) if share)
