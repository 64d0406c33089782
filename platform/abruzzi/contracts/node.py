"""Nodes: machines that ranks run on. Of the platform, not of a project: everybody sees them, its administrators drain and return them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from abruzzi.contracts.resources import Resource


class NodeState(StrEnum):
    READY = "ready"
    SUSPECT = "suspect"
    """Something speaks against it, not enough to move what runs there."""
    LOST = "lost"
    """It does not answer, or is gone: its attempts are replaced elsewhere."""
    QUARANTINED = "quarantined"
    """It had a fault: nothing new is placed there for a while, or until somebody returns it."""
    DRAINING = "draining"
    """Somebody asked for it: its stages save and go on elsewhere."""
    DRAINED = "drained"
    """Nothing of the platform runs there any more."""


class FaultKind(StrEnum):
    LOST = "lost"
    NOT_READY = "not_ready"
    GPU = "gpu"
    KERNEL = "kernel"
    DISK = "disk"


FAULT_WEIGHT: dict[FaultKind, float] = {
    FaultKind.LOST: 1.0,
    FaultKind.GPU: 1.0,
    FaultKind.KERNEL: 1.0,
    FaultKind.DISK: 1.0,
    FaultKind.NOT_READY: 0.5,
}
FAULT_HALF_LIFE_SECONDS = 7 * 86400.0
"""After so long a fault counts half."""
LEMON_SCORE = 2.5
"""From here on (three faults within some days) a node is a lemon: it stays in quarantine until somebody returns it."""
KEPT_FAULTS = 20


class NodeFault(Resource):
    at: datetime
    kind: FaultKind
    sentence: str
    weight: float
    """What it counted when it happened."""


class NodeCondition(Resource):
    """As the kubelet or a problem detector reports it."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None
    is_bad: bool


class NodeTaint(Resource):
    key: str
    value: str
    effect: str
    is_ours: bool


class NodeGpus(Resource):
    total: int
    healthy: int
    """That the device plugin offers."""
    used: int
    """By attempts of the platform."""


class NodeAttempt(Resource):
    attempt_id: str
    run_id: str
    stage_id: str
    ranks: list[int]


class NodeWord(Resource):
    """What somebody decided about it."""

    reason: str
    by: str
    at: datetime


class NodeFacts(Resource):
    """What a node is and has, as it was last seen."""

    cpus: float = 0.0
    memory: int = 0
    """Bytes."""
    gpus: NodeGpus = NodeGpus(total=0, healthy=0, used=0)
    topology: dict[str, str] = Field(default_factory=dict)
    """Of the pool's levels, such as block, rack and host."""
    conditions: list[NodeCondition] = Field(default_factory=list)
    taints: list[NodeTaint] = Field(default_factory=list)
    cordoned: bool = False
    """By whomever."""


class NodeOut(Resource):
    name: str
    pool: str | None
    """The pool whose labels it has; of several, the one that asks for most."""
    kind: Literal["local", "kubernetes"]
    state: NodeState
    reason: str
    """One sentence, empty where there is nothing to say."""
    since: datetime
    """Of this state."""
    cpus: float
    memory: int
    gpus: NodeGpus
    topology: dict[str, str]
    conditions: list[NodeCondition]
    taints: list[NodeTaint]
    cordoned: bool
    heartbeat_at: datetime | None
    """The last sign of life, of its kubelet or of a rank on it; written down now and then, not each time."""
    lemon_score: float
    """Its faults, each worth half after a week; see LEMON_SCORE."""
    faults: list[NodeFault]
    """The newest first."""
    attempts: list[NodeAttempt]
    """Those that the caller may see."""
    hidden_attempts: int
    """Of other projects."""
    drain: NodeWord | None
    """Asked for, and not returned yet."""
    returned: NodeWord | None
    """The last return: faults before it do not count."""
    observed_at: datetime


class NodeListOut(Resource):
    items: list[NodeOut]
    """By name."""
    note: str | None
    """Why the list is empty or old; None when all is well."""


class NodeRequest(BaseModel):
    """Body of a drain and of a return."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    """For the audit log and for whoever wonders."""


def lemon_score(faults: Iterable[NodeFault], *, now: datetime, forgiven_at: datetime | None = None) -> float:
    """Sum of the weights, each halved with every half-life. Faults before `forgiven_at` do not count."""
    return sum(
        fault.weight * 0.5 ** (max(0.0, (now - fault.at).total_seconds()) / FAULT_HALF_LIFE_SECONDS)
        for fault in faults
        if forgiven_at is None or fault.at > forgiven_at
    )
