"""The part of an attempt that runs on one machine. On a laptop that is all of it; on a cluster a pod has the ranks of its node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL when the request names no other time."""
LINGER_SECONDS = 900.0
"""How long a launcher goes on shipping logs after the outcome."""
POD_LINGER_SECONDS = 60.0
"""The same in a pod, which holds its devices as long."""


@dataclass(frozen=True, slots=True)
class Node:
    first_rank: int
    ranks: int
    cores: int
    """CPU cores that all of its ranks share."""
    master_address: str = "127.0.0.1"
    master_port: int | None = None
    """None: any free port, as all ranks are here."""
    grace_seconds: float = GRACE_SECONDS
    linger_seconds: float = LINGER_SECONDS

    @property
    def all_ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.ranks)


def whole(world_size: int) -> Node:
    """All ranks on this machine."""
    return Node(first_rank=0, ranks=world_size, cores=usable_cores())


def from_pod(environment: Mapping[str, str], *, world_size: int) -> Node:
    """From what the renderer set (ABRUZZI_…) and what the operator of the kind adds: PyTorchJob MASTER_ADDR, MASTER_PORT and the node's number
    in RANK; TrainJob the same as PET_MASTER_ADDR, PET_MASTER_PORT, PET_NODE_RANK; an Indexed Job JOB_COMPLETION_INDEX; a plain Job nothing.
    """
    a_node = int(environment["ABRUZZI_RANKS_PER_NODE"])
    # In this order: a TrainJob's pods, which are of Indexed Jobs, have the last, too.
    names = ("PET_NODE_RANK", "RANK", "JOB_COMPLETION_INDEX")
    index = int(next((value for name in names if (value := environment.get(name))), 0))
    first = index * a_node
    alone = a_node >= world_size
    address = environment.get("MASTER_ADDR") or environment.get("PET_MASTER_ADDR") or "127.0.0.1"
    port = environment.get("MASTER_PORT") or environment.get("PET_MASTER_PORT")
    return Node(
        first_rank=first,
        ranks=max(0, min(a_node, world_size - first)),
        cores=int(environment.get("ABRUZZI_CPUS") or usable_cores()),
        # Rank 0 listens here: its own name may not be in the cluster's DNS yet.
        master_address="127.0.0.1" if index == 0 else address,
        master_port=None if alone or port is None else int(port),
        grace_seconds=float(environment.get("ABRUZZI_GRACE_SECONDS") or GRACE_SECONDS),
        linger_seconds=POD_LINGER_SECONDS,
    )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
