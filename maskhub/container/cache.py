"""The local cache: mask sets by id, decoded once and kept in a form that opens at once (``bits``).

Nothing but bits is taken from it: an id does not cover the base's name, metrics or lineage.
"""

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


def path(id: str) -> Path | None:
    """The file that would be that of the mask set with this id; None for what is no id."""
    return folder() / f"{id}.msk" if re.fullmatch("[0-9a-f]{64}", id) else None


def keep(maskset: MaskSet) -> Path:
    """Put a mask set into the cache, decoded, whatever lies there; its file. Raises OutputError where that fails."""
    from maskhub.container import writer

    target = folder() / f"{maskset.id}.msk"
    make_folder(target.parent)
    writer.save(maskset, target, codec=Bits.name, force=True)  # another process may do the same
    return target
