"""A tensor as raw little-endian bytes, so that every dtype passes through bit for bit; and casts between floats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhub.errors import check_choice

Bytes = NDArray[np.uint8]

# Safetensors' dtype names and their width in bytes.
ITEM_SIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

NUMPY_DTYPE = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "I16": "<i2", "U16": "<u2", "F16": "<f2",
    "I32": "<i4", "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

# What can be cast, with torch's name of it, as ``config.json`` has it.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Spec:
    """A tensor before it is read."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return ITEM_SIZE[self.dtype] * self.size


@dataclass(frozen=True)
class RawTensor(Spec):
    """``data`` holds the elements, row-major and little-endian, as a flat uint8 array."""

    data: Bytes

    @classmethod
    def from_numpy(cls, array: NDArray[np.generic]) -> RawTensor:
        names = {np.dtype(code): name for name, code in NUMPY_DTYPE.items()}
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # also of 0-d arrays
        return cls(names[array.dtype], array.shape, data)

    def numpy(self) -> NDArray[np.generic]:
        """The tensor as a NumPy array; TypeError for dtypes NumPy lacks (BF16, FP8)."""
        if self.dtype not in NUMPY_DTYPE:
            raise TypeError(f"NumPy has no dtype for {self.dtype}")
        return self.data.view(NUMPY_DTYPE[self.dtype]).reshape(self.shape)

    def words(self) -> NDArray[np.unsignedinteger]:
        """The elements as unsigned integers of their width: equal integers mean equal bit patterns."""
        return self.data.view(f"<u{ITEM_SIZE[self.dtype]}")


def float_dtype(name: str) -> str:
    """Safetensors' name of a floating-point dtype, given it or torch's in any case. Raises ArgumentError."""
    called = name.lower().removeprefix("torch.")
    found = next((dtype for dtype, torch in FLOATS.items() if called in (dtype.lower(), torch)), None)
    if found is None:
        check_choice("dtype", name, FLOATS)
    return found  # type: ignore[return-value]


def cast_dtype(dtype: str, asked: str | None) -> str:
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
