"""RMSNorm that keeps its input and 1 / rms; what reads its output may have it computed once more in backward (memory/saved.py).

Shapes: D features; leading dimensions are free.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from abruzzi_jobs.memory import recomputed, widened
from abruzzi_jobs.models.kernels import has_kernels


class RMSNorm(nn.Module):
    """x / rms(x) · weight, in float32 inside, in x's dtype outside."""

    def __init__(self, size: int, *, eps: float, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if not torch.is_grad_enabled():
        return _normed(x, weight, eps)[0]
    out: Tensor = _RMSNorm.apply(x, weight, eps)
    recomputed("layernorm", (out,), lambda x, weight: _normed(x, weight, eps)[0], (x, weight))
    return out


def _normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(the result, 1 / rms)"""
    if has_kernels(x):
        from abruzzi_jobs.models.kernels import norm

        return norm.normed(x, weight, eps)
    x_wide = widened(x)
    rstd = torch.linalg.vector_norm(x_wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x_wide * rstd).mul_(widened(weight)).to(x.dtype), rstd


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, rstd = _normed(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        if has_kernels(x):
            from abruzzi_jobs.models.kernels import norm

            return *norm.normed_backward(x, weight, rstd, grads[0]), None
        grad = widened(grads[0])
        x_hat = widened(x) * rstd
        product = grad * x_hat
        grad_weight = product.reshape(-1, product.shape[-1]).sum(0)
        # dx = rstd · (g·w − x̂ · mean(g·w·x̂)); the mean is a matrix-vector product of g·x̂ with w.
        mean = torch.matmul(product, widened(weight)).unsqueeze_(-1).div_(x.shape[-1])
        grad_x = (grad * widened(weight)).addcmul_(x_hat, mean, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
