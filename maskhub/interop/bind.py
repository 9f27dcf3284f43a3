"""What all formats share: whose mask an entry is, whether it fits, and the mask set that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhub.checkpoints.apply import MASKABLE, drop
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.pruned import pair, plain_names, task_of
from maskhub.checkpoints.scan import digests
from maskhub.errors import ArgumentError, BaseMismatchError, FormatError
from maskhub.interop.tensors import Kind, NamedTensors
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage.tensor import RawTensor
from maskhub.storage.work import Progress

# The bit pattern of 1.
ONE = {
    "F64": 0x3FF0 << 48, "F32": 0x3F80 << 16, "F16": 0x3C00, "BF16": 0x3F80, "F8_E4M3": 0x38, "F8_E5M2": 0x3C,
    **dict.fromkeys(("BOOL", "U8", "I8", "I16", "I32", "I64"), 1),
}  # fmt: skip

Decode = Callable[[str, tuple[int, ...]], Mask]  # from an entry's name and the masked tensor's shape


@dataclass(frozen=True)
class Format:
    """One tool's way to keep masks, in files of these ``kinds``."""

    name: str  # as ``--to`` takes it
    fits: Callable[[NamedTensors, Checkpoint], bool]  # looks at names, dtypes and shapes only
    read: Callable[[NamedTensors, Checkpoint, Progress | None], MaskSet]  # raises MaskhubError
    kinds: tuple[Kind, ...] = ("safetensors", "torch")
    write: Callable[..., None] | None = None  # a mask set to an open file; where files hold several, also as ``hdf5``

    what: str = ""  # the name for people, where it is another
    several: bool = False  # a file may hold more than one mask set, each by its name
    whole: bool = False  # it holds all that a ``.msk`` file does

    @property
    def title(self) -> str:
        return self.what or self.name


def bind(
    source: NamedTensors,
    base: Checkpoint,
    masks: Mapping[str, str],
    decode: Decode,
    *,
    others: Mapping[str, str] | None = None,
    lineage: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> MaskSet:
    """The mask set of masks and other tensors, both given as parameter names with the names of their entries.

    Parameters are paired with base tensors with or without the task model's prefix, and what wrapped the model.
    Another tensor must be the base's, bit for bit; one that the base lacks travels whole, masked where it has a mask.
    Without any of the base's tensors in ``others`` the mask set binds the whole base. Raises CheckpointError where two
    parameters fit one base tensor.
    """
    others = others or {}
    names = plain_names(base, dict.fromkeys([*others, *masks]), source.name)
    others, masks = ({new: given[old] for new, old in names.items() if old in given} for given in (others, masks))
    pairs = pair(base, names, source.name)
    of_base = {parameter: name for name, parameter in pairs.items()}
    if not masks:
        raise FormatError(f"{source.name}: holds no mask")
    dense = {p: source.read(entry) for p, entry in others.items() if p not in of_base}
    if strangers := [entry for p, entry in masks.items() if p not in of_base and not (pairs and p in dense)]:
        raise FormatError(
            f"{source.name}: {strangers[0]} fits no tensor of {base.name} ({len(strangers)} of {len(masks)} masks)"
        )
    for parameter, entry in others.items():
        if parameter in of_base:
            _check_equal(source, entry, base, of_base[parameter])
    kept = {}
    for parameter, entry in masks.items():
        if parameter in of_base:
            name = of_base[parameter]
            if base.info(name).dtype not in MASKABLE:
                raise FormatError(f"{source.name}: {entry} masks {name}, which is {base.info(name).dtype}")
            kept[name] = decode(entry, base.info(name).shape)
        else:
            whole = dense[parameter]
            dense[parameter] = RawTensor(whole.dtype, whole.shape, drop(whole, decode(entry, whole.shape)))
    if not any(parameter in of_base for parameter in others):
        pairs = _extended(pairs, base)
    config = source.config() if others else {}
    binding = BaseBinding.of(base.name, digests(base, pairs, progress=progress), pairs, base.hub)
    try:
        return MaskSet(
            base=binding,
            masks=kept,
            dense=dense,
            task=task_of(base.config(), config) if config else None,
            lineage=lineage or {},
        )
    except ArgumentError as error:
        raise FormatError(f"{source.name}: {error.message}") from error


def expect(source: NamedTensors, entry: str, shape: tuple[int, ...]) -> RawTensor:
    """An entry that must have this shape, which is checked before it is read."""
    found = source.specs[entry].shape
    if found != shape:
        raise FormatError(f"{source.name}: {entry} has shape {list(found)}, and {list(shape)} is needed")
    return source.read(entry)


def zero_one(source: NamedTensors, entry: str, shape: tuple[int, ...]) -> Mask:
    """The mask that an entry of zeros and ones is, of any dtype; FormatError for other values."""
    tensor = expect(source, entry, shape)
    words = tensor.words()
    keep = words == ONE.get(tensor.dtype, 1)
    if np.any(words[~keep]):
        raise FormatError(f"{source.name}: {entry} is no mask: it holds values other than 0 and 1")
    return Mask.from_bool(keep.reshape(shape))


def _check_equal(source: NamedTensors, entry: str, base: Checkpoint, name: str) -> None:
    tensor, info = source.read(entry), base.info(name)
    if (tensor.dtype, tensor.shape) != (info.dtype, info.shape):
        differs = f"is {tensor.dtype} {list(tensor.shape)}, and the base's is {info.dtype} {list(info.shape)}"
    elif count := int(np.count_nonzero(tensor.words() != base.read(name).words())):
        differs = f"differs from the base's in {count} of {tensor.size} values"
    else:
        return
    raise BaseMismatchError(
        f"{source.name}: not made from {base.name}: {entry} {differs}",
        tensors=(name,),
        hint="Name the base that the masks were learned on; changed weights cannot be packed.",
    )


def _extended(pairs: Mapping[str, str], base: Checkpoint) -> dict[str, str]:
    """All base tensors with their parameter names, which differ from the base's as those of ``pairs`` do."""
    name, parameter = next(iter(pairs.items()))
    added = parameter.removesuffix(name) if parameter.endswith(name) else ""
    removed = name.removesuffix(parameter) if name.endswith(parameter) else ""
    return {n: pairs.get(n, added + n.removeprefix(removed)) for n in base}
