"""The local cache: mask sets by id, decoded once and kept in a form that opens at once (``bits``, memory-mapped)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from maskhub.container.codecs.bits import Bits
from maskhub.masks.mask import MaskSet
from maskhub.storage.atomic import make_folder


def folder() -> Path:
    """``MASKHUB_CACHE``, else ``maskhub`` in the user's cache folder."""
    if given := os.environ.get("MASKHUB_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskhub"


def find(id: str) -> Path | None:
    """The cached file of the mask set with this id; None where there is none."""
    path = folder() / f"{id}.msk"
    return path if re.fullmatch("[0-9a-f]{64}", id) and path.is_file() else None


def keep(maskset: MaskSet) -> Path:
    """Put a mask set into the cache, decoded, unless it is there; its file. Raises OutputError where that fails."""
    path = folder() / f"{maskset.id}.msk"
    if not path.is_file():
        from maskhub.container import writer

        make_folder(path.parent)
        writer.save(maskset, path, codec=Bits.name, force=True)  # another process may do the same
    return path
