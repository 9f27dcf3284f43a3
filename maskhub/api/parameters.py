"""Parameters that several public functions share, and how words become masks and bases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from maskhub.errors import ArgumentError
from maskhub.options import Option

if TYPE_CHECKING:
    from maskhub.checkpoints.checkpoint import Checkpoint
    from maskhub.masks.mask import MaskSet

    PathLike: TypeAlias = str | Path
    MaskLike: TypeAlias = str | Path | MaskSet
    MasksLike: TypeAlias = MaskLike | Sequence[MaskLike]
    BaseLike: TypeAlias = str | Path | Checkpoint
else:  # words, which are all that the command line knows
    PathLike = MaskLike = BaseLike = str
    MasksLike = Sequence[str]

MASK_HELP = "The mask: a .msk file, the URL of one, or user/repo or user/repo/name@revision on the Hub."
BASE_HELP = "A checkpoint folder or file, or a model on the Hub."

Mask = Annotated[MaskLike, Option(MASK_HELP, "MASK")]
Masks = Annotated[MasksLike, Option("The mask, or several.", "MASK")]
Base = Annotated[BaseLike, Option(BASE_HELP, "BASE")]
CheckedBase = Annotated[BaseLike | None, Option(f"Check the fit to it, too. {BASE_HELP}", "BASE")]
BaseName = Annotated[str | None, Option("Record the base under this name, its Hub id if it has one.", "NAME")]
Parents = Annotated[
    Sequence[MaskLike], Option("A mask that MASK is coded against; may be given several times.", "FILE")
]
Like = Annotated[
    MaskLike | None,
    Option(
        "The mask, or the run, that it was built from: says where training began, which makes the file smaller.",
        "MASK",
    ),
]
Revision = Annotated[str | None, Option("Branch, tag or commit of a base on the Hub.", "REVISION")]
Token = Annotated[str | None, Option("Token for the Hub; else HF_TOKEN, or the one of hf auth login.", "TOKEN")]
Force = Annotated[bool, Option("Replace an existing output.", flags=("-f",))]
Picture = Annotated[PathLike | None, Option("Draw it: .png, .svg or .pdf.", "FILE")]
TextColumn = Annotated[
    str | None, Option("Text, tokens, prompt or image; found by the usual names if left.", "COLUMN", group="Examples")
]
PairColumn = Annotated[str | None, Option("The second text, or the choices.", "COLUMN", group="Examples")]
LabelColumn = Annotated[
    str | None, Option("Each example's class, tags, right choice or number.", "COLUMN", group="Examples")
]


def codecs() -> Iterable[str]:
    """What ``--codec`` takes."""
    from maskhub.container.codecs import names

    return names()


Codec = Annotated[str, Option("How masks are coded; auto takes the smallest for each tensor.", choices=codecs)]


def several(masks: MasksLike) -> list[MaskLike]:
    """One mask or a sequence of them, as a list; ArgumentError for none."""
    from maskhub.masks.mask import MaskSet

    found: list[Any] = [masks] if isinstance(masks, str | Path | MaskSet) else list(masks)
    if not found:
        raise ArgumentError("no mask is given", hint="Name one or more.")
    return found


def mask_path(output: PathLike) -> Path:
    """A path that a mask can be written to; ArgumentError for another suffix than .msk."""
    path = Path(output)
    if path.suffix != ".msk":
        raise ArgumentError(f"the output {path} does not end in .msk", hint=f"Such as {path.with_suffix('.msk')}.")
    return path


def names_of(masks: Sequence[MaskLike]) -> list[str]:
    """Short names that tell masks apart: those of their files, else numbers."""
    from maskhub.storage.address import distinct_names

    return distinct_names([one if isinstance(one, str | Path) else f"mask {i}" for i, one in enumerate(masks, 1)])
