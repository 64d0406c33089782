"""Random streams by name: a tensor's initial values depend on the seed and its name, not on which rank draws it, or when."""

from __future__ import annotations

import zlib

import torch


def stream(seed: int, name: str) -> torch.Generator:
    """Of one tensor on the CPU. Its generator (MT19937) reads the lower 32 bits of what it is seeded with, so both must be in them."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode(), seed & 0xFFFFFFFF))
