"""Raw tensors to torch's and back, bit for bit."""

from __future__ import annotations

import numpy as np
import torch

from maskhub.errors import MaskhubError
from maskhub.storage.tensor import RawTensor

TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def to_torch(tensor: RawTensor) -> torch.Tensor:
    """A copy of the tensor in torch; MaskhubError for a dtype that torch lacks."""
    if tensor.dtype not in TORCH_DTYPES:
        raise MaskhubError(f"torch has no dtype for {tensor.dtype}")
    if not tensor.size:
        return torch.empty(tensor.shape, dtype=TORCH_DTYPES[tensor.dtype])
    return torch.from_numpy(np.array(tensor.data)).view(TORCH_DTYPES[tensor.dtype]).reshape(tensor.shape)


def from_torch(tensor: torch.Tensor) -> RawTensor:
    """The tensor's elements as they are, from any device; a view where torch allows one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return RawTensor(NAMES[tensor.dtype], tuple(tensor.shape), flat.view(torch.uint8).numpy())
