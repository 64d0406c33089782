"""Checkpoints of a training stage: saving off the loop, loading with digests verified, retention."""

from abruzzi_jobs.checkpoint.load import load_checkpoint, load_weights, open_checkpoint
from abruzzi_jobs.checkpoint.save import Checkpointer
from abruzzi_jobs.checkpoint.state import Held, TrainingState

__all__ = ["Checkpointer", "Held", "TrainingState", "load_checkpoint", "load_weights", "open_checkpoint"]
