"""Precision and activation memory."""

from abruzzi_jobs.memory.fp8 import Fp8Tiles, from_fp8_tiles, to_fp8_tiles
from abruzzi_jobs.memory.precision import MemoryPolicy, widened

__all__ = ["Fp8Tiles", "MemoryPolicy", "from_fp8_tiles", "to_fp8_tiles", "widened"]
