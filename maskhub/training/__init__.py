"""Learning masks: scores on a frozen base, trained by transformers' Trainer. Needs the extra ``maskhub[train]``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskhub.training.masking import attach as attach
    from maskhub.training.model import MaskCallback as MaskCallback
    from maskhub.training.model import mask_model as mask_model
    from maskhub.training.model import pack as pack
    from maskhub.training.recording import read_recording as read_recording
    from maskhub.training.settings import TrainSettings as TrainSettings
    from maskhub.training.settings import settings_from as settings_from

_PLACES = {
    "MaskCallback": "model",
    "TrainSettings": "settings",
    "attach": "masking",
    "mask_model": "model",
    "pack": "model",
    "read_recording": "recording",
    "settings_from": "settings",
}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'maskhub.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"maskhub.training.{_PLACES[name]}"), name)
