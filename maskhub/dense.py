"""Dense checkpoints from a base and a mask: one pass over the base that checks, drops and writes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskhub import digest
from maskhub.checkpoint import CONFIG, INDEX, TOKENIZER_FILES, WEIGHTS, Checkpoint
from maskhub.errors import BaseMismatchError, OutputError
from maskhub.files import atomic_folder
from maskhub.mask import Mask, MaskSet
from maskhub.tensor import ITEM_SIZE, Bytes, RawTensor
from maskhub.tensorfile import TensorFile, layout, write_header

Progress = Callable[[int, int], None]  # bytes done, bytes in all

MASKABLE = ITEM_SIZE.keys() - {"F8_E8M0"}  # whose every bit pattern is a power of two
# Keys of config.json that name code, or kernels of the Hub: a mask is data, and must not bring them.
CODE = {
    "auto_map", "custom_pipelines",
    "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation",
}  # fmt: skip
NAMED_AT_MOST = 5  # tensors listed in one error message


def apply(
    base: Checkpoint,
    maskset: MaskSet,
    output: str | Path,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write the dense checkpoint of a task to the new folder ``output``, sharded as the base is.

    Plain ``from_pretrained`` of the task's class loads it. With ``verify`` every base tensor is checked against
    its digest as it is read, which costs no second read. Raises BaseMismatchError (before anything is left
    behind) where the base is another one, and OutputError where ``output`` cannot be written.
    """
    output = Path(output)
    if not Path(base.name).is_file() and output.absolute().resolve().is_relative_to(base.folder.resolve()):
        raise OutputError(f"{output}: the output lies inside the base's own folder", hint="Name a folder elsewhere.")
    reader = _Reader(base, maskset, verify)
    shards = _plan(base, maskset)
    total = sum(ITEM_SIZE[d] * math.prod(s) for _, specs in shards for d, s in specs.values())
    with atomic_folder(output) as folder:
        # Every tensor is masked and written as it is read; a wrong one is found out at the latest at the end.
        names = _shard_names(len(shards))
        done = 0
        for filename, (shard, specs) in zip(names, shards, strict=True):
            own = {maskset.base.parameter(n): n for n in shard if n in maskset.base.tensors}
            with (folder / filename).open("wb") as file:
                write_header(file, specs, {"format": "pt"})
                for parameter in layout({name: dtype for name, (dtype, _) in specs.items()}):
                    tensor = reader.masked(own[parameter]) if parameter in own else maskset.dense[parameter]
                    file.write(tensor.data.data)
                    done += tensor.data.nbytes
                    if progress:
                        progress(done, total)
        reader.finish()
        if len(shards) > 1:
            weight_map = {p: f for f, (_, specs) in zip(names, shards, strict=True) for p in specs}
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="ascii")
        (folder / CONFIG).write_text(json.dumps(task_config(base, maskset), indent=2) + "\n", encoding="ascii")
        for filename in TOKENIZER_FILES:
            if (base.folder / filename).is_file():
                shutil.copyfile(base.folder / filename, folder / filename)
    return output


def tensors(base: Checkpoint, maskset: MaskSet, *, verify: bool = True) -> Iterator[tuple[str, RawTensor]]:
    """The task model's tensors, by its parameter names: base tensors with the dropped weights 0, then dense ones.

    Raises BaseMismatchError as ``apply`` does, at the end at the latest.
    """
    reader = _Reader(base, maskset, verify)
    for name in maskset.base.tensors:
        yield maskset.base.parameter(name), reader.masked(name)
    reader.finish()
    yield from maskset.dense.items()


def verify_base(base: Checkpoint, maskset: MaskSet, *, progress: Progress | None = None) -> None:
    """Check that every base tensor the mask was made for is there and the same. Raises BaseMismatchError."""
    reader = _Reader(base, maskset, verify=True)
    total = sum(base.info(n).stop - base.info(n).start for n in maskset.base.tensors)
    done = 0
    for name in maskset.base.tensors:
        done += reader.read(name).data.nbytes
        if progress:
            progress(done, total)
    reader.finish()


class _Reader:
    """Reads base tensors, checking each on the way; ``finish`` raises BaseMismatchError naming all that differ.

    Names, shapes and dtypes are checked before anything is read.
    """

    def __init__(self, base: Checkpoint, maskset: MaskSet, verify: bool) -> None:
        check_structure(base, maskset)
        self._base, self._maskset, self._verify = base, maskset, verify
        self._differ: list[str] = []

    def read(self, name: str) -> RawTensor:
        tensor = self._base.read(name)
        if self._verify:
            found = digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data)
            if found != self._maskset.base.tensors[name]:
                self._differ.append(name)
        return tensor

    def masked(self, name: str) -> RawTensor:
        tensor = self.read(name)
        mask = self._maskset.masks.get(name)
        return tensor if mask is None else RawTensor(tensor.dtype, tensor.shape, drop(tensor, mask))

    def finish(self) -> None:
        if self._differ:
            raise _mismatch(self._base, self._maskset, self._differ)


def drop(tensor: RawTensor, mask: Mask) -> Bytes:
    """The tensor's bytes with every dropped weight set to +0 and every kept one as it was."""
    keep = np.unpackbits(mask.bits, count=mask.size, bitorder="little")
    words = tensor.words()
    # Integer product with 0 or 1: bit patterns survive, also of NaN and negative zero.
    dropped: NDArray[np.unsignedinteger] = np.multiply(words, keep, dtype=words.dtype)
    return dropped.view(np.uint8)


def check_structure(base: Checkpoint, maskset: MaskSet) -> None:
    """Names and shapes, without reading tensors. Raises BaseMismatchError."""
    if missing := [name for name in maskset.base.tensors if name not in base.tensors]:
        raise _mismatch(base, maskset, missing, what="lacks")
    for name, mask in maskset.masks.items():
        info = base.info(name)
        if info.shape != mask.shape:
            raise BaseMismatchError(
                f"{base.name}: tensor {name} has shape {list(info.shape)}, and the mask is for {list(mask.shape)}",
                tensors=(name,),
                hint=f"This mask belongs to {maskset.base.name}.",
            )
        if info.dtype not in MASKABLE:
            raise BaseMismatchError(f"{base.name}: tensor {name} is {info.dtype}, which has no zero", tensors=(name,))


def task_config(base: Checkpoint, maskset: MaskSet) -> dict[str, Any]:
    """The base's ``config.json`` with what the task changes, and the ids of base and mask."""
    config = base.config()
    if maskset.task:
        config |= {key: value for key, value in maskset.task.config.items() if key not in CODE}
        config["architectures"] = [maskset.task.architecture]
    return config | {"maskhub": {"base": maskset.base.root, "mask": maskset.id}}


def _mismatch(base: Checkpoint, maskset: MaskSet, names: list[str], what: str = "differs in") -> BaseMismatchError:
    listed = ", ".join(names[:NAMED_AT_MOST]) + (
        f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    )
    return BaseMismatchError(
        f"{base.name}: not the base this mask was made for: it {what} {len(names)} of "
        f"{len(maskset.base.tensors)} tensors: {listed}",
        tensors=tuple(names),
        hint=f"This mask belongs to {maskset.base.name}.",
    )


Specs = dict[str, tuple[str, tuple[int, ...]]]  # parameter name to dtype and shape


def _plan(base: Checkpoint, maskset: MaskSet) -> list[tuple[TensorFile, Specs]]:
    """What each output shard holds: the base's tensors that the task reads, and dense tensors in the last one."""
    binding = maskset.base
    plan: list[tuple[TensorFile, Specs]] = []
    for shard in base.shards:
        names = [n for n in shard if n in binding.tensors and base.tensors[n] is shard]
        if names:
            plan.append((shard, {binding.parameter(n): (base.info(n).dtype, base.info(n).shape) for n in names}))
    if not plan:  # a task that reads nothing of the base
        plan.append((base.shards[0], {}))
    for name, tensor in maskset.dense.items():
        plan[-1][1][name] = (tensor.dtype, tensor.shape)
    return plan


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [WEIGHTS]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
