"""MaskHub: learned binary masks as the way to store, ship and serve task-specific models.

Importing this package imports neither torch nor transformers; names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskhub.checkpoints.apply import verify_base as verify_base
    from maskhub.checkpoints.checkpoint import Checkpoint as Checkpoint
    from maskhub.checkpoints.checkpoint import open_checkpoint as open_checkpoint
    from maskhub.checkpoints.pruned import from_pruned as from_pruned
    from maskhub.container.reader import open_mask as open  # noqa: F401
    from maskhub.container.writer import save as save
    from maskhub.errors import MaskhubError as MaskhubError
    from maskhub.masks.compare import diff as diff
    from maskhub.masks.compare import matrix as matrix
    from maskhub.masks.compose import compose as compose
    from maskhub.masks.mask import Mask as Mask
    from maskhub.masks.mask import MaskSet as MaskSet
    from maskhub.remote import list_masks as list_masks
    from maskhub.remote import pull as pull
    from maskhub.remote import push as push
    from maskhub.runtime.load import load_model as load_model
    from maskhub.runtime.load import pipeline as pipeline

_PLACES = {
    "Checkpoint": ("checkpoints.checkpoint", "Checkpoint"),
    "Mask": ("masks.mask", "Mask"),
    "MaskSet": ("masks.mask", "MaskSet"),
    "MaskhubError": ("errors", "MaskhubError"),
    "compose": ("masks.compose", "compose"),
    "diff": ("masks.compare", "diff"),
    "from_pruned": ("checkpoints.pruned", "from_pruned"),
    "list_masks": ("remote", "list_masks"),
    "load_model": ("runtime.load", "load_model"),
    "matrix": ("masks.compare", "matrix"),
    "open": ("container.reader", "open_mask"),
    "open_checkpoint": ("checkpoints.checkpoint", "open_checkpoint"),
    "pipeline": ("runtime.load", "pipeline"),
    "pull": ("remote", "pull"),
    "push": ("remote", "push"),
    "save": ("container.writer", "save"),
    "verify_base": ("checkpoints.apply", "verify_base"),
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
