"""Masks from dense checkpoints that were pruned from the base: every weight is the base's or 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.errors import CheckpointError
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage import digest
from maskhub.storage.tensor import RawTensor
from maskhub.storage.work import Progress

# Keys of config.json that say how a checkpoint was written, not what the task is.
BOOKKEEPING = {"architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype", "maskhub"}

# Multiplying a negative weight by 0, as torch.nn.utils.prune does, gives -0: it is dropped, too.
MINUS_ZERO = {"F64": 1 << 63, "F32": 1 << 31, "F16": 1 << 15, "BF16": 1 << 15, "F8_E4M3": 1 << 7, "F8_E5M2": 1 << 7}


class DenseTensors(Protocol):
    """A dense checkpoint in whatever file: ``read`` gives one of its tensors, ``config`` its ``config.json``."""

    @property
    def name(self) -> str: ...

    def __iter__(self) -> Iterator[str]: ...

    @property
    def read(self) -> Callable[[str], RawTensor]: ...

    @property
    def config(self) -> Callable[[], dict[str, Any]]: ...


def from_pruned(
    base: Checkpoint, dense: DenseTensors, *, base_name: str | None = None, progress: Progress | None = None
) -> MaskSet:
    """The mask set that makes ``dense`` from ``base``.

    A tensor of the dense checkpoint is paired with the base tensor of its name, with or without the task model's
    prefix (``bert.``); one without a partner travels whole. Raises CheckpointError naming a paired tensor that
    holds a weight which is neither the base's nor 0, or has another shape or dtype.
    """
    pairs = pair(base, dense)
    if not pairs:
        raise CheckpointError(f"{dense.name}: no tensor has a name of {base.name}, so it was not pruned from it")
    masks = {}
    digests = {}
    total = sum(base.info(name).nbytes for name in pairs)
    done = 0
    for name, parameter in pairs.items():
        tensor = base.read(name)
        digests[name] = digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data)
        mask = _compare(tensor, dense.read(parameter), f"{dense.name}: tensor {parameter}")
        if mask is not None:
            masks[name] = mask
        done += tensor.data.nbytes
        if progress:
            progress(done, total)
    if not masks:
        raise CheckpointError(f"{dense.name}: equals the base {base.name}: no weight is pruned")
    paired = set(pairs.values())
    return MaskSet(
        base=BaseBinding.of(base_name or base.name, digests, pairs, base.hub),
        masks=masks,
        dense={name: dense.read(name) for name in dense if name not in paired},
        task=task_of(base.config(), dense.config()),
        lineage={"operation": "pack", "source": "pruned checkpoint"},
    )


def pair(base: Iterable[str], parameters: Iterable[str]) -> dict[str, str]:
    """Base tensor name to the parameter of its name, with or without the task model's prefix (``bert.``)."""
    known = set(parameters)
    pairs = {name: name for name in base if name in known}
    taken = set(pairs)
    without_prefix = {p.partition(".")[2]: p for p in parameters if p not in pairs}
    for name in base:
        if name not in pairs:
            candidates = without_prefix.get(name), name.partition(".")[2]
            parameter = next((p for p in candidates if p in known and p not in taken), None)
            if parameter:
                pairs[name] = parameter
                taken.add(parameter)
    return pairs


def _compare(base: RawTensor, dense: RawTensor, what: str) -> Mask | None:
    """The mask between two tensors; None where they are equal."""
    if (base.dtype, base.shape) != (dense.dtype, dense.shape):
        raise CheckpointError(
            f"{what} is {dense.dtype} {list(dense.shape)}, and the base's is {base.dtype} {list(base.shape)}"
        )
    before, after = base.words(), dense.words()
    keep = before == after
    if keep.all():
        return None
    if strange := int(np.count_nonzero(~keep & (after != 0) & (after != MINUS_ZERO.get(dense.dtype, 0)))):
        raise CheckpointError(
            f"{what} was not pruned from the base: {strange} of {base.size} weights are neither the base's nor 0",
            hint="Only pruning can be packed as a mask; changed weights cannot.",
        )
    return Mask.from_bool(keep.reshape(base.shape))


def task_of(base: dict[str, Any], dense: dict[str, Any]) -> Task | None:
    """The task that a dense checkpoint's configuration tells, beside the base's."""
    match dense.get("architectures"):
        case [str(architecture), *_]:
            pass
        case _:
            return None
    changed = {k: v for k, v in dense.items() if k not in BOOKKEEPING and base.get(k) != v}
    return Task(task_type(architecture), architecture, changed)


# The end of a transformers class name, and what the Hub calls its task.
TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForConditionalGeneration": "text2text-generation",
    "ForImageClassification": "image-classification",
}


def task_type(architecture: str) -> str:
    """The Hub's name for the task of a transformers class."""
    return next((task for end, task in TASKS.items() if architecture.endswith(end)), "feature-extraction")
