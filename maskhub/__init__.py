"""MaskHub: learned binary masks as the way to store, ship and serve task-specific models.

Importing this package imports neither NumPy, torch nor transformers: names are loaded when they are first used.
``__init__.pyi`` lists them.
"""

import os

import lazy_loader

if os.name != "posix":
    raise ImportError("MaskHub runs on Linux and macOS. On Windows, install it in WSL.")

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
