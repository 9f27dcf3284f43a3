"""Which masks fit a base: by the digests of one that is here, or by the hashes that the Hub keeps of its files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from maskhub.checkpoints.apply import verify_base
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.container.reader import MaskFile
from maskhub.errors import BaseMismatchError, MaskhubError
from maskhub.remote.entry import Entry
from maskhub.storage import address
from maskhub.storage.address import Hub
from maskhub.storage.digest import base_root
from maskhub.storage.hubfile import ask, client
from maskhub.storage.work import Progress

Opener = Callable[[], MaskFile]


def chooser(base: str | Path | Checkpoint | None) -> Callable[[Entry | None, Opener], bool]:
    """What tells which masks are for a base: for a checkpoint here by its digests, for any other by its name.

    It is asked with what a list says of a mask, and how to open that mask: its header is read where the list cannot
    tell, once for all masks that read the same tensors of a base.
    """
    if base is None:
        return lambda entry, opener: True
    if not isinstance(base, Checkpoint) and not address.exists(base):
        return lambda entry, opener: entry is not None and entry.base == str(base)
    here = digests(open_checkpoint(base))
    known = {base_root(here): True}

    def fits(entry: Entry | None, opener: Opener) -> bool:
        if entry is None:
            return False
        if entry.root not in known:
            try:
                binding = opener().manifest.base
            except MaskhubError:
                return False
            if binding.root != entry.root:  # the list is wrong
                return False
            known[entry.root] = binding.tensors.keys() <= here.keys() and not binding.differing(here)
        return known[entry.root]

    return fits


def check_base(
    file: MaskFile, base: str | Path | Checkpoint, *, token: str | None = None, progress: Progress | None = None
) -> str:
    """How it was found that ``base``, a checkpoint here or a model on the Hub, is the one that the mask was made for.

    One on the Hub is not downloaded. Raises BaseMismatchError where it is another one, or may be.
    """
    match = re.fullmatch(r"(?:hf://)?([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", str(base))
    if isinstance(base, Checkpoint) or address.exists(base) or match is None:
        verify_base(open_checkpoint(base), file.maskset(), progress=progress)
        return "every tensor read, digests match"
    known = file.manifest.base.hub
    if known is None or not known.files:
        raise BaseMismatchError(
            f"{file.path}: does not tell which files on the Hub its base has, so {base} cannot be checked there",
            hint="Download the base, and name its folder.",
        )
    place = Hub(match[1], revision=match[2])
    info = ask(place, client(token).model_info, place.repo, revision=place.revision, files_metadata=True)
    there = {s.rfilename: s.lfs.sha256 for s in info.siblings or () if s.lfs}
    if wrong := sorted(name for name, sha256 in known.files.items() if there.get(name) != sha256):
        raise BaseMismatchError(
            f"{file.path}: made for {known.id}@{known.commit[:12]}, and {base} has other files: {', '.join(wrong[:5])}",
            hint=f"Name that revision: --base {known.id}@{known.commit}",
        )
    return f"{len(known.files)} files on the Hub have the SHA-256 that the mask names"
