"""``plot``: a picture of a run or of a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from maskhub.api.parameters import Force, MaskLike, PathLike, Token
from maskhub.options import Option


def plot(
    source: Annotated[MaskLike, Option("A run folder or a mask.", "RUN|MASK")],
    output: Annotated[PathLike, Option("The picture: .png, .svg or .pdf.", "FILE", ("-o",))],
    *,
    force: Force = False,
    token: Token = None,
) -> Path:
    """Draw how a run goes, or what a mask drops.

    Of a run, also one that is not finished: loss and learning rate, metrics, and by layer the dropped weights and those
    that flipped since the start. Of a mask: dropped weights by layer and matrix.

    Gives the picture's path.

    Raises TrainingError for a folder that is no run, and MaskhubError where matplotlib is missing.

    >>> import maskhub
    >>> maskhub.plot("task.msk", "task.png")
    PosixPath('task.png')
    """
    from maskhub.container.reader import open_mask
    from maskhub.pictures.plots import claim_picture, described, save_curves, save_picture, sparsity_map
    from maskhub.storage.address import file_name

    path = Path(output)
    claim_picture(path, force=force)
    if isinstance(source, str | Path) and Path(source).is_dir():
        from maskhub.training.recording import read_recording
        from maskhub.training.run import RECORD, read_record

        recording, folder = read_recording(source), Path(source)
        title = f"Run {folder.resolve().name}"
        if (folder / RECORD).is_file():
            record = read_record(folder)
            title = f"{described(record.task)} on {record.base.name}\n{title}"
        save_curves(recording, path, title)
    else:
        name = file_name(source) if isinstance(source, str | Path) else "a mask"
        save_picture(sparsity_map(open_mask(source, whole=True, token=token).masks, f"Dropped weights of {name}"), path)
    return path
