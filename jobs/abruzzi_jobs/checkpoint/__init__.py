"""Checkpoints of a training stage: saving off the loop, each rank what it owns; loading with digests verified, into any layout; retention."""

from abruzzi_jobs.checkpoint.load import load_checkpoint, load_weights, open_checkpoint
from abruzzi_jobs.checkpoint.peers import Peers
from abruzzi_jobs.checkpoint.save import Checkpointer
from abruzzi_jobs.checkpoint.state import TrainingState

__all__ = ["Checkpointer", "Peers", "TrainingState", "load_checkpoint", "load_weights", "open_checkpoint"]
