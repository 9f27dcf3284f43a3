"""``maskhub compose``: a mask from others."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from maskhub.errors import ArgumentError, check_choice
from maskhub.options import Option
from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.masks.mask import MaskSet

Operation = Literal["and", "or", "xor", "minus", "not", "vote"]


def compose(
    call: Call[MaskSet],
    out: Output,
    arguments: Annotated[
        list[str],
        Option(
            "An expression of & | ^ - ~ ( ) and vote(k, a, b, ...), and the masks that it names; or masks alone.",
            "EXPRESSION NAME=MASK... | --op OP MASK...",
        ),
    ],
    output: Annotated[str, Option("The mask to write.", "FILE", ("-o",))],
    *,
    op: Annotated[
        Operation | None, Option("One operation over all masks; minus takes the others off the first.")
    ] = None,
) -> None:
    """With --op, masks are named by their files (a.msk is a, and run/mask.msk run_mask), or as NAME=MASK.

    --quiet prints the mask's path.

    Example: maskhub compose "(a & b) | ~c" a=x.msk b=y.msk c=z.msk --head-from a -o out.msk
    """
    from maskhub.masks.expression import VOTE, WORDS
    from maskhub.masks.summary import to_data, to_fields

    if op is not None:
        check_choice("operation", op, get_args(Operation))
    if op is None and arguments[0] in (*WORDS, VOTE):
        raise ArgumentError(f"{arguments[0]!r} over masks goes with --op", hint=f"As in: --op {arguments[0]} A B.")
    masks = named(arguments if op else arguments[1:], all_named=op is None)
    composed = call("Composing", unit="masks", expression=op or arguments[0], masks=masks, output=output)
    summary = composed.summary()
    out.show(to_data(summary), quiet=output, title=output, fields=to_fields(summary))
    out.hint(f"Next: maskhub apply {shlex.join([summary.base.name, output])}")


def named(arguments: list[str], *, all_named: bool) -> dict[str, str]:
    """Masks by name, from NAME=MASK or, unless ``all_named``, from the names of the masks' files."""
    from maskhub.masks.expression import NAME, can_name
    from maskhub.storage.address import distinct_names
    from maskhub.storage.url import public_name

    matches = [re.fullmatch(rf"({NAME})=(.+)", argument) for argument in arguments]
    bare = [argument for argument, match in zip(arguments, matches, strict=True) if not match]
    if all_named and bare:
        raise ArgumentError(
            f"{public_name(bare[0])!r} is not NAME=MASK", hint="As in a=x.msk; masks without names go with --op."
        )
    masks: dict[str, str] = {}
    short = iter(distinct_names(bare))
    for argument, match in zip(arguments, matches, strict=True):
        if match:
            name, mask = match.groups()
        else:
            name, mask = re.sub(r"[^A-Za-z0-9_]+", "_", next(short)).strip("_"), argument
            if not can_name(name):
                name = f"_{name}"
        if name in masks:
            raise ArgumentError(f"two masks are called {name!r}", hint="Name them: NAME=MASK.")
        masks[name] = mask
    return masks
