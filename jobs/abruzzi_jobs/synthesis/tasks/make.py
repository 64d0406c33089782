"""Tasks for agents: as many as wanted, no two alike, every one of a world solved once before it is handed out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from abruzzi.contracts.agent import AgentSpec, Difficulty, Task, WorldGround
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.tasks.proof import Catalogue, catalogue_of, is_sound
from abruzzi_jobs.synthesis.tasks.real import draw_real_task
from abruzzi_jobs.synthesis.tasks.world_tasks import draw_world_task

DIFFICULTIES: tuple[Difficulty, ...] = ("simple", "moderate", "complex")
Tell = Callable[[int, int], None]
"""(tasks made, of all)."""
_TRIES = 40
_REAL_OF_A_MIXTURE = 0.3


def make_tasks(
    agents: Sequence[AgentSpec],
    tools: Sequence[ToolSpec],
    count: int,
    seed: int = 0,
    *,
    difficulties: Sequence[Difficulty] = DIFFICULTIES,
    tell: Tell = lambda done, count: None,
) -> list[Task]:
    """In turn for each agent and difficulty. Raises AbruzziError `too_few_tasks` where the agents' tools do not give so many."""
    catalogue = catalogue_of(tools)
    order = list(agents)
    random.Random(f"tasks/{seed}").shuffle(order)
    made: dict[str, Task] = {}
    for number in range(count * _TRIES if order else 0):
        if len(made) == count:
            break
        agent = order[number % len(order)]
        difficulty = difficulties[(number // len(order) + number) % len(difficulties)]
        task = draw_task(agent, catalogue, difficulty, seed * 1_000_003 + number)
        if task is not None:
            made.setdefault(task.id, task)
            tell(len(made), count)
    if len(made) < count:
        raise AbruzziError(
            "too_few_tasks",
            f"{len(order)} agents gave {len(made)} different tasks, not {count}.",
            hint="Ask for fewer tasks, or make more agents.",
            status=422,
        )
    return list(made.values())


def draw_task(agent: AgentSpec, catalogue: Catalogue, difficulty: Difficulty, seed: int) -> Task | None:
    """One task for the agent, proven where it plays in a world; None where this draw gave none."""
    tools = [catalogue[tool.source, tool.name] for tool in agent.tools]
    worldly = [tool for tool in tools if tool.is_synthetic]
    real = [tool for tool in tools if not tool.is_synthetic]
    if real and (not worldly or random.Random(f"ground/{seed}").random() < _REAL_OF_A_MIXTURE):
        return draw_real_task(agent, real, difficulty, seed)
    task = draw_world_task(agent, worldly, difficulty, seed)
    if task is not None and isinstance(task.ground, WorldGround) and is_sound(task, catalogue):
        return task
    return None
