"""Instruction following: rules in code, a judge, and a check for answers that claim what they do not do (paper 3.2.1)."""

from abruzzi_jobs.rl.environments.gyms.instructions.instructions import Instructions

__all__ = ["Instructions"]
