"""Masks from dense checkpoints that were pruned from the base: every weight is the base's or 0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Any, Protocol

import numpy as np

from maskhub.checkpoints.beside import COUNTS, LABELS
from maskhub.checkpoints.checkpoint import PACKING, Checkpoint
from maskhub.checkpoints.scan import Sink, scan
from maskhub.errors import CheckpointError, listed
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet, packed_size
from maskhub.storage.tensor import ITEM_SIZE, Bytes, RawTensor, Spec
from maskhub.storage.work import Progress

# Keys of config.json that say how a checkpoint was written, not what the task is.
BOOKKEEPING = {
    "architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype", "maskhub", *PACKING,
}  # fmt: skip
# Whose classes' outputs are as many as the labels.
WITH_LABELS = ("classification", "question-answering")
# What wraps models while they are trained puts these into the names of their parameters: DataParallel and DDP,
# torch.compile, FSDP, checkpointed layers.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

ONE_MODEL = "Save the one that is meant alone."

# Multiplying a negative weight by 0, as torch.nn.utils.prune does, gives -0: it is dropped, too.
MINUS_ZERO = {"F64": 1 << 63, "F32": 1 << 31, "F16": 1 << 15, "BF16": 1 << 15, "F8_E4M3": 1 << 7, "F8_E5M2": 1 << 7}


class DenseTensors(Protocol):
    """A dense checkpoint in whatever file: ``read`` gives one of its tensors, ``config`` its ``config.json``."""

    @property
    def name(self) -> str: ...

    def __iter__(self) -> Iterator[str]: ...

    def read(self, name: str, /) -> RawTensor: ...

    def config(self) -> dict[str, Any]: ...


def from_pruned(
    base: Checkpoint, dense: DenseTensors, *, base_name: str | None = None, progress: Progress | None = None
) -> MaskSet:
    """The mask set that makes ``dense`` from ``base``.

    A tensor of the dense checkpoint is paired with the base tensor of its name, with or without the task model's
    prefix (``bert.``), and without what wrapped the model (``module.``); one without a partner travels whole. Raises
    CheckpointError naming a paired tensor that holds a weight which is neither the base's nor 0, or has another shape
    or dtype.
    """
    dense = _Renamed(dense, plain_names(base, dense, dense.name))
    pairs = pair(base, dense, dense.name)
    if not pairs:
        raise CheckpointError(f"{dense.name}: no tensor has a name of {base.name}, so it was not pruned from it")
    masks: dict[str, Mask] = {}
    reading = Lock()  # of other tools' files, whose readers need not bear several threads

    def sinks(name: str, spec: Spec) -> Sequence[Sink]:
        with reading:
            other = dense.read(pairs[name])
        return (_comparison(spec, other, f"{dense.name}: tensor {pairs[name]}", partial(masks.__setitem__, name)),)

    digests = scan(base, pairs, sinks, progress=progress)
    if not masks:
        raise CheckpointError(f"{dense.name}: equals the base {base.name}: no weight is pruned")
    paired = set(pairs.values())
    return MaskSet(
        base=BaseBinding.of(base_name or base.name, digests, pairs, base.hub),
        masks={name: masks[name] for name in pairs if name in masks},
        dense={name: dense.read(name) for name in dense if name not in paired},
        task=task_of(base.config(), dense.config()),
        lineage={"operation": "pack", "source": "pruned checkpoint"},
    )


class _Renamed:
    """A dense checkpoint with other names for its tensors: ``stored`` has those that they lie under."""

    def __init__(self, dense: DenseTensors, stored: dict[str, str]) -> None:
        self.name, self.config = dense.name, dense.config
        self._dense, self._stored = dense, stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def read(self, name: str) -> RawTensor:
        return self._dense.read(self._stored[name])


def plain_names(base: Iterable[str], names: Iterable[str], source: str) -> dict[str, str]:
    """The names that a model's parameters have by themselves, with those that they have in ``source``.

    A wrapper's components go. The first component goes, too, where more names are the base's without it: a module that
    the model was an attribute of, as Lightning's are. What does not begin so is that module's own: it is left out, with
    a warning. Raises CheckpointError where there are several such models, or one parameter twice.
    """
    stored: dict[str, str] = {}
    for name in names:
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if plain in stored:
            raise CheckpointError(f"{source}: {stored[plain]} and {name} are both {plain}", hint=ONE_MODEL)
        stored[plain] = name
    found = _candidates(base, stored)
    inner: dict[str, dict[str, str]] = {}
    for name, old in stored.items():
        first, _, rest = name.partition(".")
        inner.setdefault(first, {})[rest] = old
    better = {first: count for first, names in inner.items() if (count := len(_candidates(base, names))) > len(found)}
    if not better:
        return stored
    best = max(better, key=lambda first: better[first])
    if also := [first for first, count in better.items() if count == better[best] and first != best]:
        raise CheckpointError(f"{source}: holds several models: {', '.join([best, *also])}", hint=ONE_MODEL)
    if left := sorted(name for name in stored if not name.startswith(f"{best}.")):
        warnings.warn(f"{source}: left out, since it is not of {best!r}: {listed(left)}", stacklevel=2)
    return inner[best]


def pair(base: Iterable[str], parameters: Iterable[str], source: str) -> dict[str, str]:
    """Base tensor name to the parameter of its name, with or without the task model's prefix (``bert.``).

    Raises CheckpointError, naming ``source``, where a base tensor has two of them.
    """
    found = _candidates(base, parameters)
    for name, candidates in found.items():
        if len(candidates) > 1:
            raise CheckpointError(
                f"{source}: {candidates[0]} and {candidates[1]} can both be the base's {name}", hint=ONE_MODEL
            )
    return {name: candidates[0] for name, candidates in found.items()}


def _candidates(base: Iterable[str], parameters: Iterable[str]) -> dict[str, list[str]]:
    """By base tensor name what ``pair`` can pair it with: a parameter of just its name comes first."""
    known = dict.fromkeys(parameters)
    found = {name: [name] for name in base if name in known}
    taken = set(found)
    prefixed: dict[str, list[str]] = {}
    for parameter in known:
        if parameter not in taken:
            prefixed.setdefault(parameter.partition(".")[2], []).append(parameter)
    for name in base:
        short = name.partition(".")[2]
        free = [p for p in prefixed.get(name, []) if p not in taken]
        if not free and name not in found and short in known and short not in taken:
            free = [short]
        if free:
            found[name] = found.get(name, []) + free
            taken.update(free)
    return found


def _comparison(base: Spec, dense: RawTensor, what: str, found: Callable[[Mask], None]) -> Sink:
    """Compares two tensors chunk by chunk, and gives the mask between them to ``found`` if they differ."""
    if (base.dtype, base.shape) != (dense.dtype, dense.shape):
        raise CheckpointError(
            f"{what} is {dense.dtype} {list(dense.shape)}, and the base's is {base.dtype} {list(base.shape)}"
        )
    bits = np.empty(packed_size(base.shape), np.uint8)
    width = ITEM_SIZE[base.dtype]
    strange = 0

    def sink(start: int, chunk: Bytes) -> None:
        nonlocal strange
        after = dense.data[start : start + chunk.size].view(f"<u{width}")
        keep = chunk.view(f"<u{width}") == after
        first = start // width // 8
        bits[first : first + (keep.size + 7) // 8] = np.packbits(keep, bitorder="little")
        strange += int(np.count_nonzero(~keep & (after != 0) & (after != MINUS_ZERO.get(dense.dtype, 0))))
        if start + chunk.size < base.nbytes:
            return
        if strange:
            raise CheckpointError(
                f"{what} was not pruned from the base: {strange} of {base.size} weights are neither the base's nor 0",
                hint="Only pruning can be packed as a mask; changed weights cannot.",
            )
        mask = Mask(base.shape, bits)
        if mask.kept < base.size:
            found(mask)

    return sink


def task_of(base: dict[str, Any], dense: dict[str, Any]) -> Task | None:
    """The task that a dense checkpoint's configuration tells, beside the base's."""
    match dense.get("architectures"):
        case [str(architecture), *_]:
            changed = {k: v for k, v in dense.items() if k not in BOOKKEEPING and base.get(k) != v}
            kind = task_type(architecture)
            if kind.endswith(WITH_LABELS) and any(base.get(key) != dense.get(key) for key in LABELS):
                changed |= {"num_labels": 2} if not COUNTS & dense.keys() else {}  # which are left out of a config.json
                changed |= {key: dense[key] for key in LABELS & dense.keys()}
            noted = dense.get("maskhub")  # which ``apply`` wrote
            noted = noted if isinstance(noted, dict) else {}
            tokenizer, length = noted.get("tokenizer"), noted.get("max_length")
            return Task(
                kind,
                architecture,
                changed,
                tokenizer if isinstance(tokenizer, str) else None,
                length if isinstance(length, int) else None,
            )
    return None


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
