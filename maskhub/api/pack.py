"""``pack``: a mask from a pruned checkpoint, a run, another mask, or another tool's file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from maskhub.api.parameters import (
    BASE_HELP,
    BaseLike,
    BaseName,
    Codec,
    Force,
    Like,
    MaskLike,
    PathLike,
    Revision,
    Token,
    mask_path,
)
from maskhub.errors import ArgumentError, MissingError, OutputError
from maskhub.options import Option

ALIKE = 0.95  # of what the changes of a mask take that began elsewhere

if TYPE_CHECKING:
    from maskhub.checkpoints.checkpoint import Checkpoint
    from maskhub.masks.mask import MaskSet
    from maskhub.storage.work import Progress


def pack(
    source: Annotated[
        MaskLike, Option("A pruned checkpoint, a run's folder, a .msk file, another tool's masks.", "SOURCE")
    ],
    output: Annotated[
        PathLike | None, Option("The mask to write; SOURCE's name with .msk, here, if left.", "FILE", ("-o",))
    ] = None,
    *,
    base: Annotated[BaseLike | None, Option(f"What SOURCE was pruned from. {BASE_HELP}", "BASE")] = None,
    codec: Codec = "auto",
    parent: Annotated[
        Sequence[MaskLike],
        Option("Code against this mask, which readers then need; further ones are its own parents.", "FILE"),
    ] = (),
    like: Like = None,
    base_name: BaseName = None,
    threshold: Annotated[
        float | None, Option("Of a file of scores, keep the weights above; 0.01, the paper's, if left.", "SCORE")
    ] = None,
    size: Annotated[
        str | None, Option("Of a run: undo the flips that matter least, until the file is of this size, as 40KB.")
    ] = None,
    eval_file: Annotated[
        PathLike | None, Option("Measure the mask of that size on these examples, on --base or the run's own.", "FILE")
    ] = None,
    force: Force = False,
    revision: Revision = None,
    token: Token = None,
    progress: Progress | None = None,
) -> MaskSet:
    """Make a mask of a pruned checkpoint, a run or another tool's file, or code a mask anew.

    A pruned checkpoint needs a base: every weight is the base's or 0, and tensors that the base lacks travel whole. So
    do the masks of other tools (MaskLLM, torch.nn.utils.prune, compressed-tensors, TALL-masks, ...), in files of
    safetensors, PyTorch, NumPy or HDF5; ``FILE#NAME`` is one of a file's several. A .msk file keeps its id.

    A run's mask can be made smaller: --size undoes the flips that matter least, without training. What that costs is
    measured with an --eval-file.

    A mask that train made is stored as what training changed of its first one, which no checkpoint tells: --like does,
    and about halves the file. A parent pays where two masks differ in few weights.

    Gives the mask that was written.

    Raises MaskhubError naming the entry or weight of ``source`` that does not fit the base.

    >>> import maskhub
    >>> maskhub.pack("task.msk", "small.msk", codec="gaps").summary().codecs
    {'gaps': 13}
    """
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container import codecs
    from maskhub.container.reader import open_mask
    from maskhub.container.writer import save
    from maskhub.storage.atomic import claim_file

    codecs.encoder(codec)  # before any work
    if base is None and revision:
        raise ArgumentError("--revision is for a base", hint="Give one: --base.")
    if output is None and not isinstance(source, str | Path):
        raise ArgumentError("a mask in memory has no name for a file", hint="Name one: output.")
    run = isinstance(source, str | Path) and (Path(source) / "run.json").is_file()
    if eval_file is not None and size is None:
        raise ArgumentError("eval_file is for a size", hint="Give one: --size; else maskhub evaluate measures.")
    if size is not None and not run:
        raise ArgumentError(f"{source}: no run's folder, which a size is for", hint="Name the folder of a run.")
    if size is not None and (codec != "auto" or parent):
        raise ArgumentError("a size is that of a file by the codec auto, alone", hint="Leave codec and parent out.")
    target = mask_path(output if output is not None else f"{stem(str(source))}.msk")
    if isinstance(source, str | Path) and target.exists() and Path(source).exists() and target.samefile(source):
        raise OutputError(f"{target}: the output is SOURCE itself", hint="Name another one with -o.")
    claim_file(target, force=force)
    checkpoint = None if base is None else open_checkpoint(base, revision=revision, token=token)
    maskset = _read(source, checkpoint, parent, threshold, base_name, size, token, progress)
    if eval_file is not None:
        maskset = _measured(maskset, str(source), checkpoint, eval_file, token)
    before = open_mask(parent[0], parent[1:], whole=True, token=token) if parent else None
    if like is not None:
        maskset = _begun_as(maskset, like, str(source), token)
    if base_name:
        maskset = maskset.with_base_name(base_name)
    save(maskset, target, codec=codec, parent=before, force=True, progress=progress)
    return open_mask(target, parent, token=token)


def _measured(maskset: MaskSet, run: str, base: Checkpoint | None, eval_file: PathLike, token: str | None) -> MaskSet:
    """The mask set with its metrics on a file."""
    from maskhub.api.evaluate import evaluate
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.training.run import read_record

    settings = read_record(Path(run)).settings
    if base is None:
        try:
            base = open_checkpoint(settings.base, revision=settings.revision, token=token)
        except MissingError as error:
            error.hint = "It is where the run's base was; name where it is now: --base BASE."
            raise
    columns = {name: getattr(settings, name) for name in ("text_column", "pair_column", "label_column")}
    found = evaluate(base, maskset, file=eval_file, **columns)
    return dataclasses.replace(maskset, metrics=found[0].metrics)


def _begun_as(maskset: MaskSet, like: MaskLike, source: str, token: str | None) -> MaskSet:
    """The mask set with the initial mask that is recorded in ``like``. ArgumentError where it did not begin there."""
    from maskhub.container.reader import open_mask
    from maskhub.container.writer import payload_bytes
    from maskhub.masks.compose import common_tensors
    from maskhub.training.run import RECORD, maskset_from_run

    run = isinstance(like, str | Path) and (Path(like) / RECORD).is_file()
    other = maskset_from_run(str(like)) if run else open_mask(like, token=token)
    name = str(like) if isinstance(like, str | Path) else "like"
    common_tensors((maskset, other), (source, name))
    if other.initial is None:
        raise ArgumentError(f"{name}: does not record where training began", hint="Leave --like out.")
    if maskset.initial is not None:
        raise ArgumentError(f"{source}: records where its training began", hint="Leave --like out.")
    begun = dataclasses.replace(maskset, initial=other.initial)
    elsewhere = msgspec.structs.replace(other.initial, seed=(other.initial.seed + 1) % (1 << 32))
    if payload_bytes(begun, "drift") > ALIKE * payload_bytes(dataclasses.replace(begun, initial=elsewhere), "drift"):
        raise ArgumentError(
            f"{source}: its masks are not changed ones of the initial mask of {name}",
            hint="Name the mask or the run that it was built from, or leave --like out.",
        )
    return begun


def _read(
    source: MaskLike,
    base: Checkpoint | None,
    parents: Sequence[MaskLike],
    threshold: float | None,
    base_name: str | None,
    size: str | None,
    token: str | None,
    progress: Progress | None,
) -> MaskSet:
    from maskhub import interop
    from maskhub.checkpoints.apply import verify_base
    from maskhub.container.reader import open_mask
    from maskhub.storage.address import exists, hub
    from maskhub.storage.url import is_url, public_name

    path = Path(source) if isinstance(source, str | Path) else None
    run = path is not None and (path / "run.json").is_file()
    mask = path is None or re.search(r"\.msk(@[^@]+)?$", public_name(str(source))) is not None
    if threshold is not None and (run or mask):
        raise ArgumentError(f"{source}: holds no scores, which a threshold is for", hint="Leave --threshold out.")
    if run:
        from maskhub.training.run import maskset_from_run

        return maskset_from_run(str(source), base, base_name=base_name, size=size)
    if mask:
        maskset = open_mask(source, parents, whole=True, token=token)
        if base:
            verify_base(base, maskset, progress=progress)
        return maskset
    if base is None:
        file = str(source).rpartition("#")[0] or str(source)
        if not (is_url(file) or exists(file) or hub(file)):
            raise MissingError(f"{source}: no such file or folder")
        raise ArgumentError(
            f"{source}: neither a run's folder nor a .msk file, and what it was pruned from is not given",
            hint="Name it: --base BASE.",
        )
    return interop.read(str(source), base, threshold=threshold, token=token, progress=progress)


def stem(source: str) -> str:
    """The name of a folder, of a file without its suffix, or of a repo without its owner and revision."""
    from maskhub.storage.address import distinct_names
    from maskhub.storage.url import public_name

    path = Path(source)
    if path.exists():
        return path.resolve().name if path.is_dir() else path.stem
    if public_name(source).endswith(".msk"):
        return distinct_names([source])[0]
    file, mark, name = source.rpartition("#")
    if mark and Path(file).is_file():  # one of a file's mask sets
        return name
    return Path(source.partition("@")[0]).name.removesuffix(".msk")
