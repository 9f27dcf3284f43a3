"""A base whose tensors have other names than a mask knows them by: matched by their digests."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.masks.mask import MaskSet


def match(base: Checkpoint, masksets: Iterable[MaskSet]) -> Checkpoint:
    """The base with the names that the masks have for its tensors, where it has the very same ones under others.

    Checkpoints differ so by a prefix (``bert.``), or were saved before names changed (``LayerNorm.gamma``). Nothing is
    read where all names are there; a base that lacks a tensor is given back as it is. Warns of what was matched.
    """
    known = {name: digest for maskset in masksets for name, digest in maskset.base.tensors.items()}
    wanted = {name: digest for name, digest in known.items() if name not in base.tensors}
    others = [name for name in base if name not in known]
    if not wanted or not others:
        return base
    by_digest: dict[str, list[str]] = defaultdict(list)
    for name, digest in digests(base, others).items():
        by_digest[digest].append(name)
    if not all(digest in by_digest for digest in wanted.values()):
        return base
    stored = {name: max(by_digest[digest], key=lambda n: common_tail(n, name)) for name, digest in wanted.items()}
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
