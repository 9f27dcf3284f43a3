"""What a training would mask, and the memory that takes: told before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from maskhub.masks.names import locate
from maskhub.training.masking import masked_weights, scores_of

ADAM = 2  # values that the optimiser keeps for each trained one


@dataclass(frozen=True)
class PlannedWeight:
    """A weight to be masked: the parameter, where it belongs, and how many scores it has."""

    parameter: str
    layer: int | None
    kind: str
    shape: tuple[int, ...]
    scores: int


@dataclass(frozen=True)
class Plan:
    """``dense`` counts the values trained besides scores; ``memory`` is in bytes, by what takes it."""

    weights: tuple[PlannedWeight, ...]
    dense: int
    memory: dict[str, int]

    @property
    def masked(self) -> int:
        """Number of weights masked."""
        return sum(math.prod(weight.shape) for weight in self.weights)


def plan_of(model: nn.Module) -> Plan:
    """The plan of a masked model. Passes and masked copies of weights take memory besides, as the batches are."""
    masked = masked_weights(model)
    scores = {id(tensor) for tensor in scores_of(model).values()}
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.nbytes for p in trained)
    buffers = (buffer for one in masked.values() for buffer in one.buffers())
    return Plan(
        tuple(PlannedWeight(name, *locate(name), one.shape, one.scores.numel()) for name, one in masked.items()),
        sum(p.numel() for p in trained if id(p) not in scores),
        {
            "trained values": size,
            "gradients": size,
            "optimiser state": ADAM * size,
            "pull and band": sum(b.nbytes for b in buffers),
        },
    )
