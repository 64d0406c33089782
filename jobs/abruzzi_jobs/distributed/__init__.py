"""Pipeline, expert and data parallelism over gloo or NCCL."""

from abruzzi_jobs.distributed.gradients import GradientAccumulator
from abruzzi_jobs.distributed.mesh import Layout, Mesh
from abruzzi_jobs.distributed.ranks import Ranks, lone_rank, node_name, start_ranks, stop_ranks

__all__ = ["GradientAccumulator", "Layout", "Mesh", "Ranks", "lone_rank", "node_name", "start_ranks", "stop_ranks"]
