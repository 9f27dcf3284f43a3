"""``maskhub pack``: a mask from a pruned checkpoint, a run, another mask, or another tool's file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskhub_cli.options import BASE_HELP, FormatOption, JsonOption, QuietOption, RevisionOption, TokenOption, stem
from maskhub_cli.output import Format, Output

if TYPE_CHECKING:
    from maskhub.checkpoints.checkpoint import Checkpoint
    from maskhub.masks.mask import MaskSet

CODECS = "auto|bits|zstd|gaps|drift|nm|nm:N:M|delta"
RUN = "run.json"  # what makes a folder a run


def codec_names() -> list[str]:
    from maskhub.container.codecs import NAMES

    return list(NAMES)


def pack(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A pruned checkpoint, a run's folder, a .msk file, another tool's masks.",
            show_default=False,
        ),
    ],
    base: Annotated[str | None, typer.Option(metavar="BASE", help=f"What SOURCE was pruned from. {BASE_HELP}")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The mask to write; SOURCE's name with .msk, here, if left."
        ),
    ] = None,
    codec: Annotated[
        str,
        typer.Option(metavar=CODECS, autocompletion=codec_names, help="Auto takes the smallest for each tensor."),
    ] = "auto",
    parent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Code against this mask of the same base, which readers then need; further ones are its own parents.",
        ),
    ] = None,
    base_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Record the base under this name, its Hub id if it has one."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="SCORE", help="Of a file of scores, keep the weights above; 0.01, the paper's, if left."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output file.")] = False,
    revision: RevisionOption = None,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a mask of a pruned checkpoint, a run or another tool's file, or code a mask anew.

    A pruned checkpoint needs --base: every weight is the base's or 0, and tensors that the base lacks travel whole.
    So do the masks of other tools (MaskLLM, torch.nn.utils.prune, compressed-tensors, TALL-masks, ...), in files of
    safetensors, PyTorch, NumPy or HDF5; FILE#NAME is one of a file's several. A .msk file keeps its id. --quiet
    prints the mask's path.

    Example: maskhub pack pruned/ --base user/base -o task.msk
    """
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container.reader import open_mask
    from maskhub.container.writer import save
    from maskhub.errors import OutputError
    from maskhub.masks.summary import summarize, to_data, to_fields
    from maskhub.storage.atomic import claim_file

    out = Output(format, json, quiet)
    if codec.partition(":")[0] not in codec_names():
        raise typer.BadParameter(f"{codec!r} is not one of {', '.join(codec_names())}", param_hint="'--codec'")
    path = Path(source)
    if base is None and revision:
        raise typer.BadParameter("only with --base", param_hint="'--revision'")
    target = output or Path(_stem(source) + ".msk")
    if target.suffix != ".msk":
        raise typer.BadParameter(f"{target} does not end in .msk", param_hint="'--output'")
    if target.exists() and path.exists() and target.samefile(path):
        raise OutputError(f"{target}: the output is SOURCE itself", hint="Name another one with -o.")
    claim_file(target, replace=force)
    opened = open_checkpoint(base, revision=revision, token=token) if base else None
    maskset = _read(path, source, opened, parent or [], threshold, token, out)
    before = open_mask(parent[0], parent[1:], whole=True, token=token) if parent else None
    if base_name:
        maskset = maskset.with_base_name(base_name)
    with out.progress("Coding", unit="masks") as progress:
        save(maskset, target, codec=codec, parent=before, progress=progress)
    summary = summarize(open_mask(target, parent or (), token=token))
    out.show(to_data(summary), quiet=target, title=str(summary.file), fields=to_fields(summary))
    if opened and not opened.hub and summary.base.name == opened.name:
        out.hint(f"The base is recorded as {opened.name}, a path here; --base-name gives it a name for others.")
    out.hint(f"Next: maskhub apply {shlex.join([base or summary.base.name, str(summary.file)])}")


def _read(
    path: Path,
    source: str,
    base: Checkpoint | None,
    parents: list[str],
    threshold: float | None,
    token: str | None,
    out: Output,
) -> MaskSet:
    from maskhub import interop
    from maskhub.checkpoints.apply import verify_base
    from maskhub.container.reader import open_mask
    from maskhub.storage.url import public_name

    run = (path / RUN).is_file()
    mask = re.search(r"\.msk(@[^@]+)?$", public_name(source)) is not None
    if threshold is not None and (run or mask):
        raise typer.BadParameter("only for another tool's file of scores", param_hint="'--threshold'")
    if run:
        from maskhub.training.run import maskset_from_run

        return maskset_from_run(path, base)
    if mask:
        maskset = open_mask(source, parents, whole=True, token=token)
        if base:
            with out.progress("Reading the base") as progress:
                verify_base(base, maskset, progress=progress)
        return maskset
    if base is None:
        raise typer.BadParameter(
            f"needed, as {source} is neither a run's folder nor a .msk file", param_hint="'--base'"
        )
    with out.progress("Comparing with the base") as progress:
        return interop.read(source, base, threshold=threshold, token=token, progress=progress)


def _stem(source: str) -> str:
    """The name of a folder, of a file without its suffix, or of a repo without its owner and revision."""
    from maskhub.storage.url import public_name

    path = Path(source)
    if path.exists():
        return path.resolve().name if path.is_dir() else path.stem
    if public_name(source).endswith(".msk"):
        return stem(source)
    file, mark, name = source.rpartition("#")
    if mark and Path(file).is_file():  # one of a file's mask sets
        return name
    return Path(source.partition("@")[0]).name.removesuffix(".msk")
