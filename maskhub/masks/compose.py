"""Masks as sets: mask sets of one base combined into another, on packed bits."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from maskhub.errors import ArgumentError, BaseMismatchError, check_choice, listed
from maskhub.masks import expression as expressions
from maskhub.masks.binding import BaseBinding
from maskhub.masks.expression import Expression
from maskhub.masks.mask import LazyMask, Mask, MaskSet, clear_padding, packed_size
from maskhub.storage.tensor import Bytes

Missing = Literal["error", "keep", "drop"]


def compose(
    expression: str,
    masksets: Mapping[str, MaskSet],
    *,
    min: int | None = None,
    missing: Missing = "error",
    head_from: str | None = None,
) -> MaskSet:
    """A mask set from others of the same base, combined weight by weight, one tensor at a time when bits are asked for.

    ``expression`` is one over the names of ``masksets``, such as ``(a & b) | ~c`` or ``vote(2, a, b, c)`` (the
    consensus of TALL-masks, Wang et al. 2024), or a word of ``expression.over_all``, with ``min`` for its ``k``.

    ``missing`` says what becomes of a tensor that only some of the masks have: ``error``; ``keep`` takes a missing
    mask as one that keeps every weight, which is what its model does; ``drop`` leaves the tensor unmasked.

    Dense tensors, task and the list of base tensors that its model reads are those that all have, or of the mask set
    ``head_from``; what that model does not read is left out. The initial mask is kept where all have the same; metrics
    are not. The lineage holds the expression and the ids of ``masksets``.

    Raises ArgumentError for an expression, a name or a number that is wrong, heads that differ and tensors that are
    missing, and BaseMismatchError for different bases.
    """
    parsed = _read(expression, list(masksets), min, head_from)
    check_choice("missing", missing, get_args(Missing))
    names, sets = list(masksets), list(masksets.values())
    common = common_tensors(sets, names)
    partial = sorted({name for maskset in sets for name in maskset.masks} - set(common))
    if partial and missing == "error":
        lacking = next(called for called, maskset in masksets.items() if partial[0] not in maskset.masks)
        raise ArgumentError(
            f"not all of {listed(names)} mask {listed(partial)} ({lacking} lacks {partial[0]})",
            hint="--missing keep takes a mask that is missing as one that keeps all; drop leaves its tensor unmasked "
            "(missing in Python).",
        )
    head = _head(masksets, head_from)
    masks = {}
    kept = [name for name in partial if missing == "keep" and name in head.base.tensors]
    for name in sorted([*common, *kept]):
        shape = next(maskset[name].shape for maskset in sets if name in maskset.masks)
        parts = [maskset[name] for maskset in sets if name in maskset.masks]
        masks[name] = LazyMask(
            shape,
            functools.partial(_combined, parsed, masksets, name, shape),
            trust_shape=functools.partial(_trust_shapes, parts),
        )
    lineage: dict[str, Any] = {
        "operation": "compose",
        "expression": str(parsed),
        "parents": {name: maskset.id for name, maskset in masksets.items()},
    }
    if partial:
        lineage["missing"] = missing
    if head_from is not None:
        lineage["head_from"] = head_from
    same_start = all(maskset.initial == head.initial for maskset in sets)
    return MaskSet(head.base, masks, head.dense, head.task, head.initial if same_start else None, lineage=lineage)


def _trust_shapes(masks: Sequence[Mask]) -> None:
    for mask in masks:
        mask.trust_shape()


def _combined(expression: Expression, masksets: Mapping[str, MaskSet], tensor: str, shape: tuple[int, ...]) -> Bytes:
    """The bits of one tensor."""
    size = math.prod(shape)

    def bits(name: str) -> Bytes:
        if tensor in masksets[name].masks:
            return masksets[name][tensor].bits
        return clear_padding(np.full(packed_size(shape), 0xFF, np.uint8), size)

    return expressions.evaluate(expression, bits, size)


def _read(text: str, names: Sequence[str], min: int | None, head_from: str | None) -> Expression:
    """The expression, which must name each of the masks or take its head."""
    for name in names:
        if not expressions.can_name(name):
            raise ArgumentError(f"{name!r} cannot name a mask", hint="Letters, digits and _ can, such as sst2.")
    if head_from is not None and head_from not in names:
        raise ArgumentError(f"no mask is called {head_from!r} to take the head from", hint=f"One of {listed(names)}.")
    if text in (*expressions.WORDS, expressions.VOTE):
        if min is not None and text != expressions.VOTE:
            raise ArgumentError(f"a number of masks is for votes, not for {text!r}", hint="Leave --min out.")
        return expressions.over_all(text, names, min)
    if min is not None:
        raise ArgumentError("a number of masks beside an expression", hint="Write it there: vote(2, a, b, c).")
    parsed = expressions.parse(text, names)
    used = expressions.names_in(parsed)
    if unused := [name for name in names if name not in used and name != head_from]:
        raise ArgumentError(f"expression {text!r}: does not use {listed(unused)}", hint="Leave out what is not used.")
    return parsed


def _head(masksets: Mapping[str, MaskSet], head_from: str | None) -> MaskSet:
    """The mask set that dense tensors and task are taken from. Raises ArgumentError where there is none to choose."""
    if head_from is not None:
        return masksets[head_from]
    first, *others = masksets.values()
    conflicts = []
    for name in sorted({name for maskset in masksets.values() for name in maskset.dense}):
        tensors = [maskset.dense.get(name) for maskset in masksets.values()]
        found = {None if t is None else (t.dtype, t.shape, t.data.tobytes()) for t in tensors}
        if len(found) > 1:
            specs = ["none" if t is None else f"{t.dtype} {list(t.shape)}" for t in tensors]
            told = [f"{called} {spec}" for called, spec in zip(masksets, specs, strict=True)]
            conflicts.append(f"{name} ({listed(told) if len(set(specs)) > 1 else f'{specs[0]}, other values'})")
    if any(other.task != first.task for other in others):
        conflicts.append("task (" + listed([f"{c} {_task(m)}" for c, m in masksets.items()]) + ")")
    if any(other.base.root != first.base.root for other in others):
        reads = [f"{called} {len(maskset.base.tensors)}" for called, maskset in masksets.items()]
        conflicts.append(f"tensors of the base that their models read ({listed(reads)})")
    if conflicts:
        names = list(masksets)
        raise ArgumentError(
            f"the heads of {listed(names)} differ: {listed(conflicts)}",
            hint=f"Take that of one: --head-from {'|'.join(names)}, or in Python head_from={names[0]!r}.",
        )
    return first


def common_tensors(masksets: Sequence[MaskSet], names: Sequence[str]) -> list[str]:
    """The tensors that every one of the mask sets, which are called ``names``, has a mask for; sorted.

    Raises BaseMismatchError for mask sets of different bases, and ArgumentError where they have masks of different
    shapes for a tensor, or no tensor in common.
    """
    for (first, one), (second, other) in itertools.combinations(zip(names, masksets, strict=True), 2):
        _check_bases(first, one.base, second, other.base)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for called, maskset in zip(names, masksets, strict=True):
        for name, mask in maskset.masks.items():
            whose, shape = shapes.setdefault(name, (called, mask.shape))
            if mask.shape != shape:
                raise ArgumentError(
                    f"{name} has shape {list(shape)} in {whose}, and {list(mask.shape)} in {called}",
                    hint="One of them was not made for this base.",
                )
    common = sorted(name for name in shapes if all(name in maskset.masks for maskset in masksets))
    if not common:
        raise ArgumentError(
            f"{listed(names)} have no masked tensor in common", hint="maskhub info --tensors shows them."
        )
    return common


def _check_bases(first: str, one: BaseBinding, second: str, other: BaseBinding) -> None:
    """Models of one base may read different tensors of it; those that both read must be the same."""
    if one.root == other.root:
        return
    shared = one.tensors.keys() & other.tensors.keys()
    differ = sorted(name for name in shared if one.tensors[name] != other.tensors[name])
    if differ or not shared:
        raise BaseMismatchError(
            f"{first} and {second} are masks of different bases: {one.name} (root {one.root[:12]}) and {other.name} "
            f"(root {other.root[:12]}); "
            + (f"{len(differ)} tensors differ: {listed(differ)}" if differ else "they have no tensor in common"),
            tensors=tuple(differ),
            hint="Masks go together only on the very same base; maskhub info shows it.",
        )


def _task(maskset: MaskSet) -> str:
    if maskset.task is None:
        return "none"
    labels = maskset.task.config.get("id2label")
    return f"{maskset.task.type}, {len(labels)} labels" if isinstance(labels, Mapping) else maskset.task.type
