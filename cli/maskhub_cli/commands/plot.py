"""``maskhub plot``: a picture of a run or of a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskhub_cli.options import FormatOption, JsonOption, QuietOption, TokenOption
from maskhub_cli.output import Format, Output


def plot(
    source: Annotated[str, typer.Argument(metavar="RUN|MASK", help="A run folder or a mask.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The picture: .png, .svg or .pdf.", show_default=False),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw how a run goes, or what a mask drops.

    Of a run, also one that is not finished: loss and learning rate, metrics, and by layer the dropped weights and
    those that flipped since the start. Of a mask: dropped weights by layer and matrix. --quiet prints the path.

    Example: maskhub plot run -o run.png
    """
    from maskhub.pictures.plots import claim_picture, save_curves, save_picture, sparsity_map

    out = Output(format, json, quiet)
    claim_picture(output, force=force)
    if Path(source).is_dir():
        from maskhub.training.recording import read_recording

        recording = read_recording(source)
        save_curves(recording, output, f"Run {Path(source).resolve().name}")
        steps = [
            int(part[-1]) for part in (recording.train_steps, recording.eval_steps, recording.mask_steps) if len(part)
        ]
        shown: dict[str, object] = {"steps": max(steps, default=0), "evaluations": len(recording.eval_steps)}
    else:
        from maskhub.container.reader import MaskFile

        file = MaskFile(source, token=token)
        save_picture(sparsity_map(file.maskset().masks, f"Dropped weights of {Path(source).name}"), output)
        shown = {"tensors": len(file.manifest.masks)}
    out.show(
        {"picture": str(output)} | shown,
        quiet=output,
        title=str(output),
        fields={name: str(value) for name, value in shown.items()},
    )
