"""Newton-Schulz orthogonalisation of a batch of matrices (Muon, arXiv 2502.16982; coefficients by Keller Jordan).

X ← aX + (bA + cA²)X with A = XXᵀ, on X scaled to Frobenius norm 1, transposed when it has more rows than columns. The singular
values of the result lie around 1 (0.68 to 1.2 where the input's are not far apart), its singular vectors are the input's.

For wide matrices the same polynomial is applied in Gram form: with P = aI + bA + cA² the next A is AP² and the iterates are products of
P's times X, so only m×m matrices are multiplied between the first product and the last. From n > 1.5 m that is less work.
The Gram form feeds rounding of A back into A. Float32 bears five steps of it; bfloat16 does not (a rank-one matrix comes out 10⁵ too large),
so there A is formed anew from X after three steps, after which its error is that of plain bfloat16 iteration (tests/parity).

Shapes: N matrices, m rows, n columns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7
GRAM_ASPECT = 1.5
"""Columns over rows from which the Gram form needs fewer operations."""
BFLOAT16_RESTART = 3
"""Steps in Gram form before A is formed anew, in bfloat16."""

Precision = Literal["auto", "float32", "bfloat16"]

_CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}
"""Float32 size of the matrices that go through all iterations together; on CPU what the cache holds."""


def newton_schulz(x_Nmn: Tensor, *, steps: int = 5, precision: Precision = "auto", out: Tensor | None = None) -> Tensor:
    """The orthogonal factor, approximately, of each matrix [N, m, n], in x's dtype; zero matrices stay zero. `out` may be `x_Nmn`."""
    out = torch.empty_like(x_Nmn) if out is None else out
    rows, cols = x_Nmn.shape[-2:]
    dtype = compute_dtype(x_Nmn, precision)
    size = matrices_per_chunk(rows, cols, x_Nmn.device)
    for x, target in zip(x_Nmn.split(size), out.split(size), strict=True):
        wide = x.transpose(1, 2) if rows > cols else x
        result = _orthogonalize(wide, steps, dtype)
        target.copy_(result.transpose(1, 2) if rows > cols else result)
    return out


def matrices_per_chunk(rows: int, cols: int, device: torch.device) -> int:
    """How many matrices go through all iterations together."""
    return max(1, _CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cpu"]) // (rows * cols * 4))


def compute_dtype(x: Tensor, precision: Precision) -> torch.dtype:
    """`auto`: bfloat16 where matrix units have it (CUDA; CPUs with AVX512-BF16 or AMX run it at about twice float32's rate), else float32."""
    if x.dtype == torch.float64:
        return torch.float64
    if precision == "auto":
        return torch.bfloat16 if x.is_cuda or _cpu_multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _orthogonalize(x_Nmn: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    norm_N11 = torch.linalg.vector_norm(x_Nmn, dim=(1, 2), keepdim=True)
    inverse_N11 = (norm_N11 + EPS).reciprocal_()
    x_Nmn = x_Nmn * inverse_N11 if dtype == x_Nmn.dtype else x_Nmn.to(dtype).mul_(inverse_N11.to(dtype))
    rows, cols = x_Nmn.shape[-2:]
    if cols < GRAM_ASPECT * rows:
        return _plain(x_Nmn, steps)
    bounds = [0, steps]
    if dtype == torch.bfloat16:
        bounds = [*range(0, steps, BFLOAT16_RESTART), steps]
    for first, last in pairwise(bounds):
        x_Nmn = _gram(x_Nmn, last - first)
    return x_Nmn


def _plain(x_Nmn: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = torch.bmm(x_Nmn, x_Nmn.transpose(1, 2))
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x_Nmn = torch.baddbmm(x_Nmn, polynomial, x_Nmn, beta=a)
    return x_Nmn


def _gram(x_Nmn: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    gram = torch.bmm(x_Nmn, x_Nmn.transpose(1, 2))
    product: Tensor | None = None
    for step in range(steps):
        # P without its diagonal term aI, which goes in as beta: it would cost the small entries their digits in bfloat16.
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        if product is None:
            product = polynomial.clone()
            product.diagonal(dim1=1, dim2=2).add_(a)
        else:
            product = torch.baddbmm(product, polynomial, product, beta=a)
        if step + 1 < steps:
            half = torch.baddbmm(gram, gram, polynomial, beta=a)
            gram = torch.baddbmm(half, half, polynomial, beta=a)
    return x_Nmn if product is None else torch.bmm(product, x_Nmn)


def _cpu_multiplies_bfloat16() -> bool:
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)
