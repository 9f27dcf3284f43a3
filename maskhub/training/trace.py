"""Which base tensor each of a task model's parameters came from: found by value, so that no name is trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from maskhub.checkpoints.match import common_tail
from maskhub.errors import TrainingError
from maskhub.storage import digest
from maskhub.storage.torch import from_torch


def trace(tensors: Iterable[tuple[str, Tensor]], digests: Mapping[str, str], source: str) -> dict[str, str]:
    """Map base tensor names to the task model's names (``state_dict`` entries loaded from the base).

    ``digests`` are those of the base tensors. Of base tensors with equal values the one whose name ends most alike is
    taken. Raises TrainingError, naming ``source``, for a tensor that no base tensor equals bit for bit.
    """
    by_digest: dict[str, list[str]] = defaultdict(list)
    for name, value in digests.items():
        by_digest[value].append(name)
    traced: dict[str, str] = {}
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    for parameter, tensor in tensors:
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place in seen:  # tied to one that is traced already
            continue
        seen[place] = parameter
        raw = from_torch(tensor)
        value = digest.tensor_digest(raw.dtype, raw.shape, raw.data)
        candidates = [n for n in by_digest.get(value, []) if n not in traced]
        if not candidates:
            raise TrainingError(
                f"{source}: parameter {parameter} equals no tensor of the checkpoint",
                hint="A mask is tied to weights as they are stored: without cast or conversion.",
            )
        traced[max(candidates, key=lambda n: common_tail(n, parameter))] = parameter
    return traced
