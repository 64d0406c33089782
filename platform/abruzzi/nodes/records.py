"""What the node controller reads and writes of a node's row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from abruzzi.contracts.node import NodeFacts, NodeFault, NodeState, NodeWord


@dataclass(frozen=True, slots=True)
class Quarantine:
    reason: str
    since: datetime
    seen_at: datetime
    """When the fault was last seen; the quarantine ends some time after that."""


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """What is remembered of a node from one look to the next, by whichever controller."""

    name: str
    state: NodeState
    since: datetime
    faults: tuple[NodeFault, ...] = ()
    """The newest first."""
    quarantine: Quarantine | None = None
    drain: NodeWord | None = None
    forgiven_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a look found, to be written down."""

    name: str
    kind: Literal["local", "kubernetes"]
    pool: str | None
    state: NodeState
    reason: str
    since: datetime
    facts: NodeFacts
    heartbeat_at: datetime | None
    attempts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """{attempt: its ranks there}"""
    faults: tuple[NodeFault, ...] = ()
    quarantine: Quarantine | None = None
    forgiven_at: datetime | None = None
    """As it was when this was decided: what somebody returned meanwhile stays returned."""
