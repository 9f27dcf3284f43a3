"""The programs of ``spec/``, which are no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SPEC = Path(__file__).parents[2] / "spec"


def load(name: str) -> ModuleType:
    full = f"spec_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, SPEC / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
    return sys.modules[full]
