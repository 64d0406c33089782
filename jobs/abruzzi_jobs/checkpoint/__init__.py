"""Checkpoints of a training stage: saving, loading, retention."""

from abruzzi_jobs.checkpoint.load import load_checkpoint
from abruzzi_jobs.checkpoint.save import Checkpointer, TrainingState

__all__ = ["Checkpointer", "TrainingState", "load_checkpoint"]
