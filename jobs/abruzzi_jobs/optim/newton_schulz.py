"""Newton-Schulz orthogonalisation of a batch of matrices (Muon, arXiv 2502.16982; coefficients by Keller Jordan).

X ← aX + (bA + cA²)X with A = XXᵀ, on X scaled to Frobenius norm 1, transposed when it has more rows than columns. The singular
values of the result lie around 1 (about 0.7 to 1.2 for well-conditioned input), its singular vectors are the input's.

For wide matrices the same polynomial is applied in Gram form: with P_k = aI + bA_k + cA_k² all iterates are X_k = Q_k X_0, so
only m×m matrices are multiplied between the first product (A_0) and the last (Q X_0). It needs 4m²n + 34m³ multiply-adds·2 in place
of 20m²n + 10m³ (five steps), less from n > 1.5 m, and is used in float32 and wider only, where rounding in A stays harmless.

Shapes: N matrices, m rows, n columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7
GRAM_ASPECT = 2.0
"""Columns over rows from which the Gram form measured faster."""
_CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}
"""A chunk's matrices stay in the cache through all iterations."""


def newton_schulz(x_Nmn: Tensor, *, steps: int = 5, out: Tensor | None = None) -> Tensor:
    """The orthogonal factor, approximately, of each matrix [N, m, n]; zero matrices stay zero. Computes in x's dtype."""
    out = torch.empty_like(x_Nmn) if out is None else out
    rows, cols = x_Nmn.shape[-2:]
    limit = _CHUNK_BYTES.get(x_Nmn.device.type, _CHUNK_BYTES["cpu"])
    size = max(1, limit // (rows * cols * x_Nmn.element_size()))
    for x, target in zip(x_Nmn.split(size), out.split(size), strict=True):
        if rows > cols:
            target.copy_(_orthogonalize(x.transpose(1, 2), steps).transpose(1, 2))
        else:
            target.copy_(_orthogonalize(x, steps))
    return out


def _orthogonalize(x_Nmn: Tensor, steps: int) -> Tensor:
    norm_N11 = torch.linalg.vector_norm(x_Nmn, dim=(1, 2), keepdim=True)
    x_Nmn = x_Nmn / (norm_N11 + EPS)
    rows, cols = x_Nmn.shape[-2:]
    if cols >= GRAM_ASPECT * rows and x_Nmn.dtype in (torch.float32, torch.float64):
        return _gram(x_Nmn, steps)
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
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial if product is None else torch.bmm(polynomial, product)
        if step + 1 < steps:
            gram = torch.bmm(torch.bmm(polynomial, gram), polynomial)
    return x_Nmn if product is None else torch.bmm(product, x_Nmn)
