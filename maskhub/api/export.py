"""``export``: a mask as a file for other tools."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from maskhub.api.parameters import Force, Mask, Parents, PathLike, Token, names_of
from maskhub.errors import ArgumentError
from maskhub.options import Option


def _kinds() -> Iterable[str]:
    from maskhub import interop

    return interop.writable()


def export(
    mask: Mask,
    output: Annotated[
        PathLike | None, Option("The file to write; MASK's name, here, if left.", "FILE", ("-o",))
    ] = None,
    *,
    to: Annotated[
        str,
        Option(
            "npz: packed bits, as MaskLLM has them; pt, safetensors: boolean tensors; h5: a bank of mask sets.",
            choices=_kinds,
        ),
    ],
    name: Annotated[str | None, Option("What the mask is called in a bank (h5); MASK's name if left.", "NAME")] = None,
    force: Force = False,
    parent: Parents = (),
    token: Token = None,
) -> Path:
    """Write a mask as a file for other tools.

    With h5 it is added to the file, if that is a bank, and keeps its id. The others hold masks alone: no base, no
    dense tensors, no notes.

    Gives the file's path.

    Raises OutputError where it cannot be written.

    >>> import maskhub
    >>> maskhub.export("task.msk", "mask_compressed.npz", to="npz")
    PosixPath('mask_compressed.npz')
    """
    from maskhub import interop
    from maskhub.container.reader import open_mask
    from maskhub.storage.atomic import claim_file

    called = names_of([mask])[0] if isinstance(mask, str | Path) else None
    if output is None and called is None:
        raise ArgumentError("a mask in memory has no name for a file", hint="Name one: output.")
    target = Path(output if output is not None else f"{called}.{to}")
    bank = interop.check(to, name).several
    claim_file(target, force=force or bank)  # before anything is fetched
    interop.export(
        open_mask(mask, parent, whole=True, token=token),
        target,
        to,
        name=name or (called if bank else None),
        force=force,
    )
    return target
