"""What the stand-in says in the agent's place: its own rules know no task, so the stage gives it those that it plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from abruzzi.contracts.agent import AgentSpec, Task
from abruzzi.contracts.endpoint import ChatRole, StandInEndpoint
from abruzzi.contracts.recipe import SynthesizeStage
from abruzzi_jobs.chat.servers.standin import Script
from abruzzi_jobs.synthesis.players.scripted import ScriptedAgent


def standin_script(stage: SynthesizeStage, given: Iterable[tuple[AgentSpec, Task]]) -> Script | None:
    """The script for the stage's stand-in: each agent follows the plan of its task, or errs at the endpoint's `error_rate`. None where a model plays
    the agent, or where it is asked without the protocol's tools."""
    role = stage.roles.get(ChatRole.AGENT)
    endpoint = stage.endpoint.get(role.endpoint) if role is not None else None
    if not isinstance(endpoint, StandInEndpoint) or stage.synthesis.tool_calls != "native":
        return None
    players = {
        (agent.system_prompt, task.instruction): ScriptedAgent(task, error_rate=endpoint.error_rate, seed=stage.seed)
        for agent, task in given
    }

    def script(role: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        messages = body.get("messages") or ()
        if role != ChatRole.AGENT or len(messages) < 2:
            return None
        player = players.get((messages[0].get("content"), messages[1].get("content")))
        return player.reply(messages) if player is not None else None

    return script
