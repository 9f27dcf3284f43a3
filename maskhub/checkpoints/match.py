"""A base whose tensors have other names than a mask knows them by: matched by their digests."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.masks.mask import MaskSet
from maskhub.storage.digest import HINT


def match(base: Checkpoint, masksets: Iterable[MaskSet]) -> Checkpoint:
    """The base with the names that the masks have for its tensors, where it has the very same ones under others.

    Checkpoints differ so by a prefix (``bert.``), or were saved before names changed (``LayerNorm.gamma``). Nothing is
    read where all names are there; a base that lacks a tensor is given back as it is. Warns of what was matched.
    """
    known = {name: hint for maskset in masksets for name, hint in maskset.base.tensors.items()}
    wanted = {name: hint for name, hint in known.items() if name not in base.tensors}
    others = [name for name in base if name not in known]
    if not wanted or not others:
        return base
    by_hint: dict[str, list[str]] = defaultdict(list)
    for name, digest in digests(base, others).items():
        by_hint[digest[:HINT]].append(name)
    if not all(hint in by_hint for hint in wanted.values()):
        return base
    stored = {name: max(by_hint[hint], key=lambda n: common_tail(n, name)) for name, hint in wanted.items()}
    new, old = next(iter(stored.items()))
    warnings.warn(
        f"{base.name}: the same {len(stored)} tensors lie there under other names, as {old} for {new}: matched by "
        "their digests",
        stacklevel=2,
    )
    return base.renamed(stored)


def common_tail(a: str, b: str) -> int:
    """How many of the last components two names have in common."""
    pairs = zip(reversed(a.split(".")), reversed(b.split(".")), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
