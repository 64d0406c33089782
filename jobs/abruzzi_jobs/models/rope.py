"""Rotary position embedding with YaRN, as DeepSeek-V3 and K2 use it.

Source: "YaRN" (arXiv 2309.00071) in the form of DeepSeek-V3's published code: frequencies are interpolated by a linear ramp,
attention is sharpened through the softmax scale (mscale squared), and cos and sin stay unscaled.
Dimensions are rotated as interleaved pairs (x0, x1), (x2, x3), …, so that a pair is one complex number.

Shapes: L positions, R rotary dims of a head.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from abruzzi_jobs.memory import widened
from abruzzi_jobs.models.config import DecoderConfig, YarnConfig


def rope_inverse_frequencies(dim: int, *, theta: float, yarn: YarnConfig | None) -> Tensor:
    """Radians a position for each of the R/2 pairs, float32."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    plain = 1.0 / theta**exponent
    if yarn is None:
        return plain
    low, high = yarn_correction_range(dim, theta=theta, yarn=yarn)
    span = high - low if high != low else 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return plain * (1 - ramp) + plain / yarn.factor * ramp


def yarn_correction_range(dim: int, *, theta: float, yarn: YarnConfig) -> tuple[int, int]:
    """Indices between which frequencies blend: below `low` untouched, from `high` on divided by the factor."""

    def index_of(rotations: float) -> float:
        return dim * math.log(yarn.original_max_position / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    return max(math.floor(index_of(yarn.beta_fast)), 0), min(math.ceil(index_of(yarn.beta_slow)), dim - 1)


def softmax_scale(config: DecoderConfig) -> float:
    """1/sqrt(d), times (0.1 · mscale_all_dim · ln factor + 1)² under YaRN."""
    scale = config.qk_head_dim**-0.5
    if config.yarn is not None and config.yarn.factor > 1 and config.yarn.mscale_all_dim:
        scale *= (0.1 * config.yarn.mscale_all_dim * math.log(config.yarn.factor) + 1.0) ** 2
    return scale


def rotations(config: DecoderConfig, length: int, *, device: torch.device) -> Tensor:
    """cis_LR: unit complex numbers e^{i · position · frequency}, complex64 [length, R/2]."""
    return _rotations(config.rotary_dim, config.rope_theta, config.yarn, length, str(device))


@lru_cache(maxsize=16)
def _rotations(dim: int, theta: float, yarn: YarnConfig | None, length: int, device: str) -> Tensor:
    with torch.inference_mode(False):  # an engine may be the first to ask, and a trainer the next
        frequencies = rope_inverse_frequencies(dim, theta=theta, yarn=yarn)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        return torch.polar(torch.ones_like(angles), angles).to(device)


def rotate(x_R: Tensor, cis_R: Tensor) -> Tensor:
    """Interleaved pairs as complex numbers, times cis (broadcast); in float32, or float64 where x is."""
    pairs = torch.view_as_complex(widened(x_R).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * cis_R).flatten(-2).to(x_R.dtype)
