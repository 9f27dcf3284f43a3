"""Whether a mask fits a base: by the digests of one that is here, or by the hashes that the Hub keeps of its files."""

from __future__ import annotations

import re
from pathlib import Path

from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.container.reader import MaskFile
from maskhub.errors import BaseMismatchError
from maskhub.storage import address
from maskhub.storage.address import Hub
from maskhub.storage.hubfile import client, explained
from maskhub.storage.work import Progress


def check_base(
    file: MaskFile, base: str | Path | Checkpoint, *, token: str | None = None, progress: Progress | None = None
) -> str:
    """How it was found that ``base``, a checkpoint here or a model on the Hub, is the one that the mask was made for.

    One on the Hub is not downloaded. Raises BaseMismatchError where it is another one, or may be.
    """
    match = re.fullmatch(r"(?:hf://)?([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", str(base))
    if isinstance(base, Checkpoint) or address.exists(base) or match is None:
        verify_base(base if isinstance(base, Checkpoint) else open_checkpoint(base), file.maskset(), progress=progress)
        return "every tensor read, digests match"
    known = file.manifest.base.hub
    if known is None or not known.files:
        raise BaseMismatchError(
            f"{file.path}: does not tell which files on the Hub its base has, so {base} cannot be checked there",
            hint="Download the base, and name its folder.",
        )
    place = Hub(match[1], revision=match[2])
    with explained(place):
        info = client(token).model_info(place.repo, revision=place.revision, files_metadata=True)
    there = {s.rfilename: s.lfs.sha256 for s in info.siblings or () if s.lfs}
    if wrong := sorted(name for name, sha256 in known.files.items() if there.get(name) != sha256):
        raise BaseMismatchError(
            f"{file.path}: made for {known.id}@{known.commit[:12]}, and {base} has other files: {', '.join(wrong[:5])}",
            hint=f"Name that revision: --base {known.id}@{known.commit}",
        )
    return f"{len(known.files)} files on the Hub have the SHA-256 that the mask names"
