"""Tasks that real tool servers solve: what the shipped ones offer, with answers that are known and states that are asked for afterwards."""

from abruzzi_jobs.synthesis.tasks.real.draw import draw_real_task

__all__ = ["draw_real_task"]
