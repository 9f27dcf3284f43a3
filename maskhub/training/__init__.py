"""Learning masks: scores on a frozen base, trained by transformers' Trainer. Needs the extra ``maskhub[train]``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
