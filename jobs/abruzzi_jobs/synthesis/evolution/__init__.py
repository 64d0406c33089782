"""Synthetic tools by hierarchical domain evolution (paper 3.1.1): domains → applications, which grow by generations → tools with their world."""

from abruzzi_jobs.synthesis.evolution.blueprint import Application
from abruzzi_jobs.synthesis.evolution.evolve import GENERATOR, evolve, synthetic_tools

__all__ = ["GENERATOR", "Application", "evolve", "synthetic_tools"]
