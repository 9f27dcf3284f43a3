"""``compose``: a mask from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from maskhub.api.parameters import Codec, Force, MaskLike, Parents, PathLike, Token, mask_path
from maskhub.errors import OutputError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet
    from maskhub.storage.work import Progress


def compose(
    expression: str,
    masks: Mapping[str, MaskLike],
    output: Annotated[PathLike | None, Option("The mask to write.", "FILE", ("-o",))] = None,
    *,
    min: Annotated[int | None, Option("For --op vote: keep what at least K masks keep.", "K")] = None,
    missing: Annotated[
        Literal["error", "keep", "drop"],
        Option("A tensor that only some mask: error; keep, a missing mask keeps all of it; drop, it is left unmasked."),
    ] = "error",
    head_from: Annotated[
        str | None, Option("The mask whose dense tensors and task the result gets, if they differ.", "NAME")
    ] = None,
    codec: Codec = "auto",
    parent: Parents = (),
    force: Force = False,
    token: Token = None,
    progress: Progress | None = None,
) -> MaskSet:
    """Combine masks of one base, weight by weight, into a new one.

    Operators bind as in Python: ~ first, then -, &, ^ and |. The lineage records the expression and the ids of the
    masks.

    In Python ``expression`` is one over the names of ``masks``, such as ``(a & b) | ~c`` or ``vote(2, a, b, c)``, or
    one of and, or, xor, minus, not and vote (with ``min``) over all of them in their order. Bits are combined when they
    are asked for, or written to ``output``.

    Raises ArgumentError for an expression that is wrong, MaskhubError for heads that differ and tensors that are
    missing, and BaseMismatchError for different bases.

    >>> import maskhub
    >>> both = maskhub.compose("a & b", {"a": "a.msk", "b": "b.msk"}, head_from="a")
    >>> both.lineage["expression"]
    'a & b'
    """
    from maskhub.container.reader import open_mask
    from maskhub.container.writer import save
    from maskhub.masks.compose import compose as combine
    from maskhub.storage.address import exists
    from maskhub.storage.atomic import claim_file

    inputs = [*masks.values(), *parent]
    if output is not None:
        path = mask_path(output)
        words = [one for one in inputs if isinstance(one, str | Path)]
        if same := next((one for one in words if path.exists() and exists(one) and path.samefile(one)), None):
            raise OutputError(f"{path}: the output is the input {same}", hint="Name another one with -o.")
        claim_file(path, force=force)
    sets = {
        name: open_mask(mask, [one for one in inputs if one is not mask], whole=output is not None, token=token)
        for name, mask in masks.items()
    }
    composed = combine(expression, sets, min=min, missing=missing, head_from=head_from)
    if output is None:
        return composed
    save(composed, path, codec=codec, force=True, progress=progress)
    return open_mask(path)
