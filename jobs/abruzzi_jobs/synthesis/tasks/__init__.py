"""Tasks with rubrics, from simple to complex, each made backwards from a plan that works (paper 3.1.1)."""

from abruzzi_jobs.synthesis.tasks.make import make_tasks

__all__ = ["make_tasks"]
