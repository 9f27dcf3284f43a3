"""Masks as sets: mask sets of one base combined into another, on packed bits."""

from __future__ import annotations

from collections.abc import Sequence

from maskhub.errors import BaseMismatchError, MaskhubError
from maskhub.mask import MaskSet

SHOWN = 5  # names that an error lists


def common_tensors(masksets: Sequence[MaskSet], names: Sequence[str]) -> list[str]:
    """The tensors that every one of the mask sets, which are called ``names``, has a mask for; sorted.

    Raises BaseMismatchError for mask sets of different bases, and MaskhubError where they have masks of different
    shapes for a tensor, or no tensor in common.
    """
    first, one = names[0], masksets[0]
    shapes = {name: (first, mask.shape) for name, mask in one.masks.items()}
    for called, other in zip(names[1:], masksets[1:], strict=True):
        if other.base.root != one.base.root:
            differ = [n for n, d in one.base.tensors.items() if other.base.tensors.get(n) != d]
            differ += sorted(other.base.tensors.keys() - one.base.tensors.keys())
            raise BaseMismatchError(
                f"{first} and {called} are masks of different bases: {one.base.name} (root {one.base.root[:12]}) and "
                f"{other.base.name} (root {other.base.root[:12]}); {len(differ)} tensors differ: {listed(differ)}",
                tensors=tuple(differ),
                hint="Masks go together only on the very same base; maskhub info shows it.",
            )
        for name, mask in other.masks.items():
            whose, shape = shapes.setdefault(name, (called, mask.shape))
            if mask.shape != shape:
                raise MaskhubError(
                    f"{name} has shape {list(shape)} in {whose}, and {list(mask.shape)} in {called}",
                    hint="One of them was not made for this base.",
                )
    common = sorted(name for name in shapes if all(name in maskset.masks for maskset in masksets))
    if not common:
        raise MaskhubError(
            f"{listed(names)} have no masked tensor in common", hint="maskhub info --tensors shows them."
        )
    return common


def listed(names: Sequence[str]) -> str:
    """The first of many names."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
