"""MaskHub: learned binary masks as the way to store, ship and serve task-specific models.

Importing this package imports neither torch nor transformers; names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskhub.algebra import compose as compose
    from maskhub.checkpoint import Checkpoint as Checkpoint
    from maskhub.checkpoint import open_checkpoint as open_checkpoint
    from maskhub.compare import diff as diff
    from maskhub.compare import matrix as matrix
    from maskhub.container.reader import open_mask as open  # noqa: F401
    from maskhub.container.writer import save as save
    from maskhub.dense import apply as apply
    from maskhub.dense import apply_all as apply_all
    from maskhub.dense import verify_base as verify_base
    from maskhub.errors import MaskhubError as MaskhubError
    from maskhub.mask import Mask as Mask
    from maskhub.mask import MaskSet as MaskSet
    from maskhub.pruned import from_pruned as from_pruned
    from maskhub.remote import list_masks as list_masks
    from maskhub.remote import pull as pull
    from maskhub.remote import push as push
    from maskhub.remote.entry import PushOptions as PushOptions
    from maskhub.runtime.load import load_model as load_model
    from maskhub.runtime.load import pipeline as pipeline

_PLACES = {
    "Checkpoint": ("checkpoint", "Checkpoint"),
    "Mask": ("mask", "Mask"),
    "MaskSet": ("mask", "MaskSet"),
    "MaskhubError": ("errors", "MaskhubError"),
    "PushOptions": ("remote.entry", "PushOptions"),
    "apply": ("dense", "apply"),
    "apply_all": ("dense", "apply_all"),
    "compose": ("algebra", "compose"),
    "diff": ("compare", "diff"),
    "from_pruned": ("pruned", "from_pruned"),
    "list_masks": ("remote", "list_masks"),
    "load_model": ("runtime.load", "load_model"),
    "matrix": ("compare", "matrix"),
    "open": ("container.reader", "open_mask"),
    "open_checkpoint": ("checkpoint", "open_checkpoint"),
    "pipeline": ("runtime.load", "pipeline"),
    "pull": ("remote", "pull"),
    "push": ("remote", "push"),
    "save": ("container.writer", "save"),
    "verify_base": ("dense", "verify_base"),
}

__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'maskhub' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(importlib.import_module(f"maskhub.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
