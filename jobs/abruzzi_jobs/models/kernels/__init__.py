"""What the layers do between matrix products, on CUDA: one read and one write of each tensor, float32 inside, no wait for the device.

Triton comes with PyTorch's CUDA builds; these modules are imported when a tensor is there. The CPU's operations are the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_kernels(x: Tensor) -> bool:
    """Whether these modules compute x: on CUDA, but not in float64, which is for proofs."""
    return x.is_cuda and x.dtype != torch.float64
