"""How a stage lies on nodes, and which kind of workload it becomes. Pure: the executor and the dry run follow the same rule."""

from __future__ import annotations

from collections.abc import Collection

from abruzzi.contracts.states import StageKind

JOB, PYTORCH_JOB, TRAIN_JOB, RAY_JOB = "Job", "PyTorchJob", "TrainJob", "RayJob"
INDEXED_JOB = "indexed-job"
"""Framework of a stage whose ranks need no rendezvous: a Job whose indices are its pods."""


def node_count(ranks: int, ranks_per_node: int) -> int:
    return -(-ranks // ranks_per_node)


def workload_kind(kind: StageKind, nodes: int, served: Collection[str], *, framework: str | None = None) -> str | None:
    """`served`: what the cluster has. None: nothing of it could run the stage."""
    if framework == "ray":
        return RAY_JOB if RAY_JOB in served else None
    if framework == INDEXED_JOB:
        return JOB if JOB in served else None
    if not kind.trains and nodes == 1:
        return JOB
    for candidate in (PYTORCH_JOB, TRAIN_JOB):
        if candidate in served:
            return candidate
    return JOB if nodes == 1 else None  # one node's ranks need no rendezvous between pods
