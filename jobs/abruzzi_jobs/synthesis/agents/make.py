"""Agents from a catalogue: as many as wanted, no two alike, equal for equal catalogue and seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence

from abruzzi.contracts.agent import AgentSpec, ToolName
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.agents.prompts import Prompt, draw_prompt
from abruzzi_jobs.synthesis.agents.toolsets import ToolSet, ToolSets

GENERATOR = "prompts-by-tools-v1"
TOOLS_AT_MOST = 24
_TRIES = 30
_BRIEF_BELOW = 4


def make_agents(
    tools: Sequence[ToolSpec], count: int, seed: int = 0, *, tools_at_most: int = TOOLS_AT_MOST
) -> list[AgentSpec]:
    """Fewer tools than four make short prompts too: such agents are for small models.

    Raises AbruzziError `too_few_tools` where the catalogue does not give so many different ones."""
    sets = ToolSets(tools, most=tools_at_most)
    made: dict[str, AgentSpec] = {}
    for number in range(count * _TRIES):
        if len(made) == count:
            break
        draw = random.Random(f"agent/{seed}/{number}")
        chosen = sets.draw(draw)
        if chosen is None:
            break
        if chosen.tools:
            agent = _agent(chosen, draw_prompt(draw, chosen.place, brief=tools_at_most < _BRIEF_BELOW))
            made.setdefault(agent.id, agent)
    if len(made) < count:
        raise AbruzziError(
            "too_few_tools",
            f"The catalogue's {len(tools)} tools give {len(made)} different agents, not {count}.",
            hint="Ask for fewer agents, or make more tools (`abruzzi tools evolve`, `abruzzi tools import`).",
            status=422,
        )
    return list(made.values())


def _agent(chosen: ToolSet, prompt: Prompt) -> AgentSpec:
    names = tuple(ToolName(name=tool.name, source=tool.source) for tool in chosen.tools)
    return AgentSpec(
        id=agent_id(prompt.text, names),
        system_prompt=prompt.text,
        tools=names,
        traits={"tools": chosen.kind, "domain": chosen.domain, **prompt.traits},
        generator=GENERATOR,
    )


def agent_id(system_prompt: str, tools: Sequence[ToolName]) -> str:
    """Over all that the agent is: equal ids, equal agents."""
    text = json.dumps([system_prompt, sorted([tool.source, tool.name] for tool in tools)])
    return f"agent-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
