"""The tools of an agent, as a model is told of them and as its calls are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from abruzzi.contracts.agent import AgentSpec
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.chat.request import ToolCall

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Slip:
    """A call that is none: `code` and what the agent is told about it."""

    code: str
    message: str

    def answer(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}


class Toolbox:
    """Shared by all conversations of an agent."""

    def __init__(self, tools: Iterable[ToolSpec]) -> None:
        self.tools = {tool.name: tool for tool in tools}

    @cached_property
    def functions(self) -> list[dict[str, Any]]:
        """In the protocol's shape."""
        return [{"type": "function", "function": function} for function in self.described]

    @cached_property
    def described(self) -> list[dict[str, Any]]:
        return [
            {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
            for tool in self.tools.values()
        ]

    def read(self, call: ToolCall) -> tuple[ToolSpec, dict[str, Any]] | Slip:
        """Tool and arguments of what a model wrote, or why there are none."""
        tool = self.tools.get(call.name)
        if tool is None:
            hint = nearest(call.name, list(self.tools))
            return Slip("unknown_tool", f"There is no tool {call.name[:_SHOWN_CHARACTERS]!r}. {hint}")
        try:
            arguments = json.loads(call.arguments or "{}")
            # What JSON allows and no JSON text can hold again: halves of surrogate pairs, infinities.
            json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            return Slip(
                "bad_arguments", f"The arguments of {call.name!r} are no JSON: {str(error)[:_SHOWN_CHARACTERS]}"
            )
        if not isinstance(arguments, dict):
            return Slip("bad_arguments", f"The arguments of {call.name!r} are no JSON object.")
        return tool, arguments


def toolboxes(
    agents: Iterable[AgentSpec], catalogue: Sequence[ToolSpec], extra: Sequence[ToolSpec] = ()
) -> dict[str, Toolbox]:
    """By agent. `extra`: tools that every agent has beside its own, unless it has one of that name.

    Raises AbruzziError bad_data where an agent has a tool that the catalogue does not."""
    known: Mapping[tuple[str, str], ToolSpec] = {(tool.source, tool.name): tool for tool in catalogue}
    made = {}
    for agent in agents:
        try:
            own = [known[tool.source, tool.name] for tool in agent.tools]
        except KeyError as missing:
            raise AbruzziError("bad_data", f"{agent.id}: its tool {missing.args[0]} is not in the catalogue.") from None
        names = {tool.name for tool in own}
        made[agent.id] = Toolbox([*own, *(tool for tool in extra if tool.name not in names)])
    return made
