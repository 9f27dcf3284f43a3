"""What a training would mask, and the memory that takes: told before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from maskhub.masks.names import locate
from maskhub.training.examples import Data, classes
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
    """What a run would do.

    ``classes`` counts the examples (or tags) of each; ``dense`` the values trained besides scores; ``memory`` is in
    bytes, by what takes it.
    """

    task: str
    columns: tuple[str, ...]
    examples: int
    eval_examples: int
    classes: dict[str, int]
    steps: int
    weights: tuple[PlannedWeight, ...]
    dense: int
    memory: dict[str, int]

    @property
    def masked(self) -> int:
        """Number of weights masked."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    @property
    def masks(self) -> str:
        """One line on what is masked."""
        if not self.weights:
            return f"Finetuned: {self.dense:,} values"
        layers = len({weight.layer for weight in self.weights} - {None})
        outside = len([weight for weight in self.weights if weight.layer is None])
        others = f" and {outside} outside them" if outside else ""
        dense = f"; {self.dense:,} other values trained" if self.dense else ""
        inside = len(self.weights) - outside
        place = f"{layers} layer{'s' if layers != 1 else ''}{others}"
        return f"Masked: {self.masked:,} weights: {inside} tensors in {place}{dense}"

    @property
    def needs(self) -> str:
        """One line on the memory."""
        return (
            f"Memory: {size(sum(self.memory.values()))} for the base, scores, gradients and the optimiser; passes take "
            "more, by the batches' size and length"
        )


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def plan_of(model: nn.Module, data: Data, steps: int) -> Plan:
    """The plan of a masked model. Passes and masked copies of weights take memory besides, as the batches are."""
    masked = masked_weights(model)
    scores = {id(tensor) for tensor in scores_of(model).values()}
    trained = [p for p in model.parameters() if p.requires_grad]
    values = sum(p.nbytes for p in trained)
    buffers = (buffer for one in masked.values() for buffer in one.buffers())
    return Plan(
        data.training.task,
        data.training.columns,
        len(data.training),
        len(data.evaluation) if data.evaluation else 0,
        classes(data.training),
        steps,
        tuple(PlannedWeight(name, *locate(name), one.shape, one.scores.numel()) for name, one in masked.items()),
        sum(p.numel() for p in trained if id(p) not in scores),
        {
            "base": sum(p.nbytes for p in model.parameters() if not p.requires_grad),
            "trained values": values,
            "gradients": values,
            "optimiser state": ADAM * values,
            "initial scores": sum(b.nbytes for b in buffers),
        },
    )
