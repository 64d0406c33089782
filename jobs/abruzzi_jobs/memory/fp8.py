"""Saved activations in eight bits: FP8-E4M3 in tiles of 1×128 with one float32 scale each (paper section 2.4.3; DeepSeek-V3, arXiv 2412.19437).

A store, not a way to compute: what comes back is widened before use. A tile's scale puts its largest magnitude at 448, the largest number of
E4M3, so that one outlier costs only its own tile. An element comes back within max(|x| / 16, scale / 1024).
On CUDA one kernel (fp8_kernels.py) does in one pass what the operations below do, to the same bits.

Shapes: leading dimensions are free; D the last one, N = ceil(D / 128) tiles of it, the last of which may be shorter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 128
E4M3_MAX = 448.0
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
    tiles_NT = _tiled(x_D.float())
    scales_N = tiles_NT.abs().amax(-1).div_(E4M3_MAX).clamp_(min=SMALLEST_SCALE)
    codes_NT = (tiles_NT / scales_N.unsqueeze(-1)).to(torch.float8_e4m3fn)
    return Fp8Tiles(codes_NT.flatten(-2)[..., : x_D.shape[-1]].contiguous(), scales_N)


def from_fp8_tiles(tiles: Fp8Tiles, dtype: torch.dtype) -> Tensor:
    """codes times scale, rounded once to `dtype`."""
    if tiles.codes_D.is_cuda:
        from abruzzi_jobs.memory.fp8_kernels import load

        return load(tiles.codes_D, tiles.scales_N, dtype)
    wide_NT = _tiled(tiles.codes_D.float()) * tiles.scales_N.unsqueeze(-1)
    return wide_NT.flatten(-2)[..., : tiles.codes_D.shape[-1]].to(dtype)


def num_tiles(size: int) -> int:
    """N"""
    return -(-size // TILE)


def _tiled(x_D: Tensor) -> Tensor:
    """[..., N, 128], filled up with zeros."""
    size = x_D.shape[-1]
    return F.pad(x_D, (0, num_tiles(size) * TILE - size)).unflatten(-1, (-1, TILE))
