"""Saved activations in eight bits: FP8-E4M3 in tiles of 1×128 with one float32 scale each (paper section 2.4.3; DeepSeek-V3, arXiv 2412.19437).

A store, not a way to compute: what comes back is widened before use. A tile's scale puts its largest magnitude at 448, the largest number of
E4M3, so that one outlier costs only its own tile. An element comes back within max(|x| / 16, scale / 1024).
On CUDA one kernel (fp8_kernels.py) does in one pass what the operations below do, to the same bits.

Shapes: leading dimensions are free; D the last one, N = ceil(D / 128) tiles of it, the last of which may be shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 128
E4M3_MAX = 448.0
_PIECE = 1 << 18
"""Elements."""
SMALLEST_SCALE = 2.0**-126
"""Of a tile of zeros, too: no division by zero, and every scale a normal number."""


class Fp8Tiles(NamedTuple):
    codes_D: Tensor
    """float8_e4m3fn, shaped as what was stored."""
    scales_N: Tensor
    """float32 [..., N]"""

    @property
    def num_bytes(self) -> int:
        return self.codes_D.nbytes + self.scales_N.nbytes


def to_fp8_tiles(x_D: Tensor) -> Fp8Tiles:
    """Of a floating tensor with at least one dimension. A tile with NaN or infinity in it comes back as NaN throughout: nothing is hidden.

    Raises ValueError for other dtypes."""
    if x_D.ndim == 0 or x_D.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(
            f"to_fp8_tiles: {x_D.dtype} of {x_D.ndim} dimensions; give float32, bfloat16 or float16 of at least one"
        )
    if x_D.is_cuda:
        from abruzzi_jobs.memory.fp8_kernels import store

        return Fp8Tiles(*store(x_D.contiguous()))
    size = x_D.shape[-1]
    codes_D = torch.empty(x_D.shape, dtype=torch.float8_e4m3fn, device=x_D.device)
    scales_N = torch.empty(*x_D.shape[:-1], num_tiles(size), dtype=torch.float32, device=x_D.device)
    for x, codes, scales in _pieces(x_D, codes_D, scales_N):
        tiles_NT = _tiled(x.float())
        scales.copy_(tiles_NT.abs().amax(-1).div_(E4M3_MAX).clamp_(min=SMALLEST_SCALE))
        codes.copy_((tiles_NT / scales.unsqueeze(-1)).flatten(-2)[..., :size])
    return Fp8Tiles(codes_D, scales_N)


def from_fp8_tiles(tiles: Fp8Tiles, dtype: torch.dtype) -> Tensor:
    """codes times scale, rounded once to `dtype`."""
    if tiles.codes_D.is_cuda:
        from abruzzi_jobs.memory.fp8_kernels import load

        return load(tiles.codes_D, tiles.scales_N, dtype)
    size = tiles.codes_D.shape[-1]
    out_D = torch.empty(tiles.codes_D.shape, dtype=dtype, device=tiles.codes_D.device)
    for codes, scales, out in _pieces(tiles.codes_D, tiles.scales_N, out_D):
        wide_NT = _tiled(codes.float()).mul_(scales.unsqueeze(-1))
        out.copy_(wide_NT.flatten(-2)[..., :size])
    return out_D


def num_tiles(size: int) -> int:
    """N"""
    return -(-size // TILE)


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of each, few enough to stay in the cache between the operations on them."""
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors] if tensors[0].numel() else []
    if flat:
        rows = max(1, _PIECE // max(tensor.shape[-1] for tensor in flat))
        yield from zip(*(tensor.split(rows) for tensor in flat), strict=True)


def _tiled(x_D: Tensor) -> Tensor:
    """[..., N, 128], filled up with zeros."""
    filled = num_tiles(x_D.shape[-1]) * TILE - x_D.shape[-1]
    return (F.pad(x_D, (0, filled)) if filled else x_D).unflatten(-1, (-1, TILE))
