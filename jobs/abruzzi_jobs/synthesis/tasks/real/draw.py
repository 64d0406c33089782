"""Draws one of the tasks that an agent's real tools can solve."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from abruzzi.contracts.agent import (
    AgentSpec,
    AnswerClause,
    Clause,
    Difficulty,
    PlannedCall,
    ProbeClause,
    RealGround,
    Task,
    ToolName,
)
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.agents.toolsets import server_of
from abruzzi_jobs.synthesis.tasks import rubrics
from abruzzi_jobs.synthesis.tasks.personas import draw_persona, put
from abruzzi_jobs.synthesis.tasks.real import files, reckoning, records
from abruzzi_jobs.synthesis.tasks.real.draft import Call, Draft, Maker
from abruzzi_jobs.synthesis.tasks.world_tasks import finished

MAKERS = (*reckoning.MAKERS, *files.MAKERS, *records.MAKERS)


def draw_real_task(agent: AgentSpec, tools: Sequence[ToolSpec], difficulty: Difficulty, seed: int) -> Task | None:
    """`tools`: the agent's real ones. None where they solve nothing that is so difficult."""
    names = [ToolName(name=tool.name, source=tool.source) for tool in tools]
    known = {(server_of(tool.source), tool.name) for tool in tools}
    fit = [maker for maker in MAKERS if maker.difficulty == difficulty and known.issuperset(maker.tools)]
    return task_by(random.Random(f"maker/{seed}/{agent.id}").choice(fit), agent, names, seed) if fit else None


def task_by(maker: Maker, agent: AgentSpec, tools: Iterable[ToolName], seed: int) -> Task:
    """`tools` has those of the maker."""
    named = {(server_of(tool.source), tool.name): tool for tool in tools}
    draw = random.Random(f"real/{seed}/{agent.id}")
    draft = maker.make(draw)
    persona, manner = draw_persona(draw, "; ".join(draft.wishes))
    plan = tuple(_planned(call, named) for call in draft.calls)
    servers = tuple(dict.fromkeys(server for server, _ in maker.tools))
    return finished(
        agent,
        RealGround(servers=servers, files=draft.files),
        maker.difficulty,
        instruction=put(draft.wishes, manner, draw),
        persona=persona,
        facts=tuple(draft.facts),
        plan=plan,
        reference_answer=draft.report,
        rubric=(*_clauses(draft, named), *rubrics.manners(len(plan)), *rubrics.for_a_judge()),
    )


def _planned(call: Call, named: dict[tuple[str, str], ToolName]) -> PlannedCall:
    server, tool, arguments = call
    return PlannedCall(tool=named[server, tool], arguments=arguments)


def _clauses(draft: Draft, named: dict[tuple[str, str], ToolName]) -> list[Clause]:
    clauses: list[Clause] = []
    for number, probe in enumerate(draft.probes, 1):
        call = _planned(probe.call, named)
        clauses.append(
            ProbeClause(
                id=f"probe-{number}", text=probe.text, call=call, contains=probe.contains, excludes=probe.excludes
            )
        )
    for number, (what, value) in enumerate(draft.answers, 1):
        said = f"{value:g}" if isinstance(value, float) else value[0]
        text, name = f"The user is told {what}: {said}.", f"answer-{number}"
        if isinstance(value, float):
            clauses.append(AnswerClause(id=name, text=text, number=value, tolerance=1e-6))
        else:
            clauses.append(AnswerClause(id=name, text=text, any_of=value))
    if draft.answers:
        clauses.append(rubrics.looked())
    return clauses
