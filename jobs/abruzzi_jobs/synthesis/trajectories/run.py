"""A stage's conversations from its tools to its rows: planned, played where they are missing, written in their order."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from abruzzi.contracts.agent import AgentSpec, Task
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.synthesis.agents import make_agents
from abruzzi_jobs.synthesis.agents.wording import reprompt
from abruzzi_jobs.synthesis.tasks import make_tasks
from abruzzi_jobs.synthesis.tasks.wording import reword
from abruzzi_jobs.synthesis.trajectories.parts import Parts
from abruzzi_jobs.synthesis.trajectories.plan import Planned, planned
from abruzzi_jobs.synthesis.trajectories.rows import NOUN
from abruzzi_jobs.synthesis.trajectories.toolbox import toolboxes
from abruzzi_jobs.synthesis.trajectories.tools import StageTools

Row = dict[str, Any]
Tell = Callable[[int, int], None]
"""(conversations or tasks done, of all)."""


def _silent(done: int, total: int) -> None:
    """Nobody is told."""


def plan_of(found: StageTools, config: SynthesisConfig, *, seed: int, tell: Tell = _silent) -> list[Planned]:
    """Raises AbruzziError `no_tasks` where these tools make no task."""
    agents = make_agents(found.tools, config.agents, seed, tools_at_most=config.tools_per_agent)
    return _planned(agents, _tasks(agents, found, config, seed, tell), found, config, seed)


async def worded_plan(
    found: StageTools, config: SynthesisConfig, roles: Mapping[str, ChatBackend], *, seed: int, tell: Tell = _silent
) -> tuple[list[Planned], dict[str, dict[str, int]]]:
    """The plan in the words of the roles that there are, and how many prompts and instructions stayed as they were, by reason. The same again where the
    roles' answers are."""
    agents = make_agents(found.tools, config.agents, seed, tools_at_most=config.tools_per_agent)
    left: dict[str, dict[str, int]] = {}
    if "tool_author" in roles:
        agents, refused = await reprompt(agents, roles["tool_author"])
        left["prompts"] = dict(sorted(refused.items()))
    tasks = _tasks(agents, found, config, seed, tell)
    if "user" in roles:
        tasks, refused = await reword(tasks, roles["user"])
        left["instructions"] = dict(sorted(refused.items()))
    return _planned(agents, tasks, found, config, seed), left


def _tasks(
    agents: Sequence[AgentSpec], found: StageTools, config: SynthesisConfig, seed: int, tell: Tell
) -> list[Task]:
    tasks = make_tasks(agents, found.tools, config.tasks, seed, difficulties=config.difficulties, tell=tell)
    if not tasks:
        raise AbruzziError(
            "no_tasks", "No task can be made of these tools.", hint="Take more tools: set synthetic = 500."
        )
    return tasks


def _planned(
    agents: Sequence[AgentSpec], tasks: Sequence[Task], found: StageTools, config: SynthesisConfig, seed: int
) -> list[Planned]:
    return planned(tasks, agents, toolboxes(agents, found.tools, found.extra), seed=seed, faults=config.faults)


def settings_of(config: SynthesisConfig, *, seed: int, roles: Any) -> str:
    """All that rows depend on beside the plan: with other settings nothing is taken over from an earlier attempt."""
    bounds = config.model_dump(mode="json", exclude={"concurrency", "shard_rows"})
    return json.dumps([1, seed, bounds, roles], sort_keys=True)


class Gathering:
    """Takes finished rows, commits whole parts without stopping the conversations, and tells how far it is."""

    def __init__(self, parts: Parts, total: int, missing: int, tell: Tell) -> None:
        self._parts, self._tell, self._total = parts, tell, total
        self.done = total - missing
        self.fates: Counter[str] = Counter()
        self.turns = 0
        self.began = time.monotonic()

    async def take(self, row: Row) -> None:
        self.done += 1
        self.fates[row["fate"]] += 1
        self.turns += row["turns"]
        number = self._parts.take(row)
        if number is not None:
            await asyncio.to_thread(self._parts.commit, number)
        self._tell(self.done, self._total)


def write_trajectories(folder: Path, rows: Sequence[Row] | Any, **described: Any) -> dict[str, Any]:
    """`trajectories-00000.jsonl.zst` … and trajectories.json, which it returns."""
    writer = RowShardWriter(folder, NOUN)
    numbers: Counter[str] = Counter()
    kept_by_difficulty: Counter[str] = Counter()
    for row in rows:
        writer.write(row)
        numbers.update(turns=row["turns"], calls=len(row["calls"]), failed_calls=sum(not c["ok"] for c in row["calls"]))
        numbers["real_calls"] += sum(call["is_real"] for call in row["calls"])
        if row["fate"] == "kept":
            kept_by_difficulty[row["task"]["difficulty"]] += 1
    return writer.close(
        **{name: numbers[name] for name in ("turns", "calls", "failed_calls", "real_calls")},
        kept_by_difficulty=dict(sorted(kept_by_difficulty.items())),
        **described,
    )
