"""Tasks on real tool servers, solved for real by their plans: two servers in `make test`, all in `make prove`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trajectory_lab as lab

from abruzzi.contracts.agent import AgentSpec, ToolName
from abruzzi_jobs.synthesis.importer import import_servers
from abruzzi_jobs.synthesis.mcp import Patience
from abruzzi_jobs.synthesis.players import StandinSpeaker
from abruzzi_jobs.synthesis.servers import shipped
from abruzzi_jobs.synthesis.tasks.real.draw import MAKERS, task_by
from abruzzi_jobs.synthesis.trajectories.engine import Cast, Engine, Machine
from abruzzi_jobs.synthesis.trajectories.plan import planned
from abruzzi_jobs.synthesis.trajectories.servers import ServerPools, boxed_kinds
from abruzzi_jobs.synthesis.trajectories.toolbox import toolboxes
from abruzzi_jobs.synthesis.user import UserSimulator

ROOT = Path(__file__).parents[5] / ".cache" / "tool-servers"
PATIENT = Patience(start_seconds=200, answer_seconds=120)
TWO = ("mcp-server-calculator", "@modelcontextprotocol/server-filesystem")


async def fates_on(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Instruction → reasons, of every task that these servers can solve."""
    servers = [shipped()[name] for name in names]
    imported = await import_servers(servers, root=ROOT, patience=PATIENT)
    assert imported.quarantined == []
    makers = [maker for maker in MAKERS if {server for server, _ in maker.tools} <= set(names)]
    agents, tasks = [], []
    for number, maker in enumerate(makers):
        tools = tuple(
            ToolName(name=tool.name, source=tool.source)
            for tool in imported.tools
            if any(tool.name == name and tool.source.startswith(f"mcp:{server}@") for server, name in maker.tools)
        )
        agents.append(AgentSpec(id=f"agent-{number:012x}", system_prompt="You help.", tools=tools, generator="lab"))
        tasks.append(task_by(maker, agents[-1], tools, number))
    work = planned(tasks, agents, toolboxes(agents, imported.tools, ()), seed=0, faults=lab.NO_FAULTS)
    cast = Cast(
        agent=lambda planned: StandinSpeaker(planned.task), user=lambda task: UserSimulator(task, scripted=True)
    )
    config = lab.SynthesisConfig(servers=names, concurrency=2)
    async with ServerPools(boxed_kinds(servers, root=ROOT), patience=PATIENT) as pools:
        rows = await lab.rows_of(Engine(cast, Machine(servers=pools), config), work)
    return {row["task"]["instruction"]: [row["fate"], row["why"], *row["reasons"]] for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_tasks_on_two_real_servers_are_solved_by_their_plans(programs_found):
    fates = await fates_on(TWO)
    assert len(fates) == sum({server for server, _ in maker.tools} <= set(TWO) for maker in MAKERS)
    assert set(map(tuple, fates.values())) == {("kept", "")}, fates


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_tasks_of_every_maker_are_solved_by_their_plans(programs_found):
    fates = await fates_on(tuple(sorted({server for maker in MAKERS for server, _ in maker.tools})))
    assert len(fates) == len(MAKERS) >= 30
    assert set(map(tuple, fates.values())) == {("kept", "")}, fates
