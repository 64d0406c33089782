"""Which conversations there will be: each with its place, its id and its seed, known before the first word."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from abruzzi.contracts.agent import AgentSpec, Task
from abruzzi.contracts.synthesis import FaultRates
from abruzzi_jobs.synthesis.trajectories.toolbox import Toolbox


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One conversation. `seed` draws its world's faults and whatever a scripted player draws."""

    index: int
    id: str
    seed: int
    task: Task
    agent: AgentSpec
    toolbox: Toolbox
    faults: FaultRates


def planned(
    tasks: Sequence[Task],
    agents: Sequence[AgentSpec],
    boxes: Mapping[str, Toolbox],
    *,
    seed: int,
    faults: FaultRates,
) -> list[Planned]:
    """In the order of the tasks."""
    by_id = {agent.id: agent for agent in agents}
    return [
        Planned(
            index=index,
            id=f"trajectory-{_drawn(seed, task.id, index):016x}",
            seed=_drawn(seed, task.id, index) & 0x7FFFFFFF,
            task=task,
            agent=by_id[task.agent_id],
            toolbox=boxes[task.agent_id],
            faults=faults,
        )
        for index, task in enumerate(tasks)
    ]


def _drawn(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")
