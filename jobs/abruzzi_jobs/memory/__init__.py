"""Precision and activation memory."""

from abruzzi_jobs.memory.precision import MemoryPolicy, widened

__all__ = ["MemoryPolicy", "widened"]
