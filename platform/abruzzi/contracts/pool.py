"""Pools: nodes of one flavor, with quota. Cluster-wide, not of a project: everybody sees them, administrators of the platform make them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt, StringConstraints, model_validator

from abruzzi.contracts.quantity import ByteCount
from abruzzi.contracts.resources import Resource
from abruzzi.contracts.training import Strict

PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]

LOCAL = "local"
"""In a recipe: the platform's default pool. On a laptop it is this machine."""


class Amounts(Strict):
    """Of processor, memory and accelerators."""

    cpus: StrictFloat = Field(ge=0)
    memory: ByteCount = Field(ge=0)
    gpus: StrictInt = Field(default=0, ge=0)


class Toleration(Strict):
    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Capacity(Amounts):
    """Of the machine behind a local pool: all that its stages can have together."""

    share: StrictFloat = Field(gt=0)
    """CPUs that a stage counts for whose recipe names no threads."""


class PoolSpec(Strict):
    name: PoolName
    kind: Literal["local", "kubernetes"]
    """`local`: processes of the machine that the controller runs on."""
    flavor: Annotated[str, StringConstraints(max_length=40)] = ""
    """What people call its nodes, such as H800."""
    ranks_per_node: StrictInt = Field(default=1, ge=1, le=64)
    """As many as a node has GPUs."""
    rank: Amounts = Amounts(cpus=1.0, memory=2 << 30)
    """What one rank gets."""
    quota: Amounts | None = None
    """Of all its runs together, held by Kueue; absent: nobody queues. A local pool's stages share what the machine has."""
    cohort: PoolName | None = None
    """Pools of one cohort lend each other what they do not use, where their nodes are the same: labels, tolerations and topology."""
    borrow: Amounts | None = None
    """At most so much from the cohort; absent: no limit."""
    node_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Which nodes belong to it."""
    tolerations: tuple[Toleration, ...] = ()
    topology: tuple[LabelKey, ...] = ()
    """Node labels from the widest level to the narrowest, such as block, rack, kubernetes.io/hostname."""
    required_topology: LabelKey | None = None
    """The level that all nodes of a stage must share."""
    preferred_topology: LabelKey | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PoolSpec:
        for key in ("required_topology", "preferred_topology"):
            level = getattr(self, key)
            if level is not None and level not in self.topology:
                levels = ", ".join(self.topology) or "none"
                raise ValueError(f"{key}: {level!r} is no level of the pool's topology; there are {levels}")
        if self.borrow is not None and self.cohort is None:
            raise ValueError("borrow: only pools of a cohort can borrow; set cohort, or leave borrow out")
        return self

    def needs(self, ranks: int, *, threads: int | None = None, capacity: Capacity | None = None) -> Amounts:
        """`threads`: of a rank, where the recipe says so. `capacity`: of the machine, where the pool is one."""
        share = capacity.share if capacity is not None else self.rank.cpus * ranks
        cpus = stage_cpus(ranks, threads=threads, share=share)
        return Amounts(cpus=cpus, memory=self.rank.memory * ranks, gpus=self.rank.gpus * ranks)

    def never_fits(self, ranks: int, *, threads: int | None = None) -> str | None:
        """A sentence when so many ranks can never run here, whatever else does."""
        if self.quota is None:
            return None
        needed, most = self.needs(ranks, threads=threads), self._most()
        for field, unit in (("gpus", "GPUs"), ("cpus", "CPUs"), ("memory", "bytes of memory")):
            asked, there = getattr(needed, field), getattr(most, field)
            if there is not None and asked > there:
                return f"{ranks} ranks need {asked:g} {unit}, but pool {self.name!r} has {there:g} at most"
        return None

    def _most(self) -> _Most:
        """Quota and what may be borrowed; None where the cohort sets the only limit."""
        assert self.quota is not None
        if self.cohort is None:
            return _Most(self.quota.cpus, self.quota.memory, self.quota.gpus)
        if self.borrow is None:
            return _Most(None, None, None)
        return _Most(
            self.quota.cpus + self.borrow.cpus,
            self.quota.memory + self.borrow.memory,
            self.quota.gpus + self.borrow.gpus,
        )


def stage_cpus(ranks: int, *, threads: int | None, share: float) -> float:
    """CPUs that a stage counts for on a machine. Without `threads` of its own its ranks divide all cores among them, however many they are:
    it counts for the `share` that the platform is set to, or a machine would do one such stage at a time."""
    return float(threads * ranks) if threads is not None else share


class _Most(Resource):
    cpus: float | None
    memory: int | None
    gpus: int | None

    def __init__(self, cpus: float | None, memory: int | None, gpus: int | None) -> None:
        super().__init__(cpus=cpus, memory=memory, gpus=gpus)


class PoolStatus(Resource):
    """What the pool controller last saw."""

    ready: bool | None
    """None: nobody has looked yet, or nothing has to be prepared."""
    message: str
    used: dict[str, float]
    """Admitted, by resource: cpu, memory, nvidia.com/gpu."""
    borrowed: dict[str, float]
    pending: int
    """Workloads that wait for admission."""
    admitted: int
    kinds: list[str]
    """Workloads that its cluster can make: Job, PyTorchJob, TrainJob."""
    capacity: Capacity | None
    """Of a local pool, once its controller has told."""
    observed_at: datetime | None


class PoolOut(Resource):
    name: str
    spec: PoolSpec
    status: PoolStatus
    is_default: bool
    """Recipes that say `pool = "local"` run here."""
    running_ranks: int
    """Of all projects."""
    waiting_ranks: int
    version: int
    updated_at: datetime


UNSEEN: dict[str, Any] = {
    "ready": None,
    "message": "",
    "used": {},
    "borrowed": {},
    "pending": 0,
    "admitted": 0,
    "kinds": [],
    "capacity": None,
    "observed_at": None,
}
"""Status of a pool that nobody has looked at."""
