"""Casting floating-point tensors that NumPy alone does not know (BF16, FP8), by ml_dtypes."""

from __future__ import annotations

import numpy as np

from maskhub.storage.tensor import Bytes

# Safetensors' names of what can be cast, and torch's, as ``config.json`` has them.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def target(dtype: str, asked: str | None) -> str:
    """The dtype a tensor of ``dtype`` is written in: what was asked for, where both are floating-point."""
    return asked if asked is not None and dtype in FLOATS else dtype


def cast(data: Bytes, dtype: str, asked: str) -> Bytes:
    """Elements of one floating-point dtype as another, rounded to nearest, ties to even. As raw bytes."""
    return data.view(_numpy(dtype)).astype(_numpy(asked)).view(np.uint8)


def _numpy(dtype: str) -> np.dtype[np.generic]:
    if dtype == "BF16":
        import ml_dtypes

        bfloat16: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
