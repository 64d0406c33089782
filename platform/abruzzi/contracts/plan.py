"""Where a stage of the dry run would go, and whether it would fit there now."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from abruzzi.contracts.pool import Amounts
from abruzzi.contracts.resources import Resource


class Verdict(StrEnum):
    FITS = "fits"
    """It would be let in at once."""
    QUEUES = "queues"
    """It would wait for quota."""
    NEVER_FITS = "never_fits"
    """More than the pool can ever give: submitting it is refused."""
    NO_QUOTA = "no_quota"
    """The pool has none: nobody queues, nodes alone decide."""
    NO_POOL = "no_pool"
    """There is no such pool: submitting it is refused."""


class PlacementOut(Resource):
    """Of one stage, as if it were to start now."""

    pool: str
    pool_kind: Literal["local", "kubernetes"] | None
    flavor: str
    workload: str | None
    """`process` on this machine; Job, PyTorchJob or TrainJob in a cluster; None: the pool's cluster has none that could run it, or nobody knows it yet."""
    nodes: int
    pods: int
    ranks: int
    ranks_per_node: int
    asked: Amounts
    """By the whole stage."""
    per_pod: Amounts
    verdict: Verdict
    sentence: str
    position: int | None
    """In the queue, if it came now."""
    eta_seconds: float | None
    eta_basis: str
    memory_least: int | None
    """Bytes a rank of a training stage: states and activations of one micro-batch, the optimizer shared by the data-parallel ranks."""
    memory_most: int | None
    """With the whole optimizer on every rank."""
    memory_there: int | None
    """Of the flavor's GPU, or what the pool gives a rank."""
    memory_of: str
