"""Precision and activation memory."""

from abruzzi_jobs.memory.fp8 import Fp8Tiles, from_fp8_tiles, to_fp8_tiles
from abruzzi_jobs.memory.ledger import Ledger
from abruzzi_jobs.memory.precision import MemoryPolicy, widened
from abruzzi_jobs.memory.saved import Activations, ActivationStore, in_eight_bits, recomputed

__all__ = [
    "ActivationStore",
    "Activations",
    "Fp8Tiles",
    "Ledger",
    "MemoryPolicy",
    "from_fp8_tiles",
    "in_eight_bits",
    "recomputed",
    "to_fp8_tiles",
    "widened",
]
