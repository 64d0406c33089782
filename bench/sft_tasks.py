"""Calls to ask for: synthetic tools, requests that state every value once, and the call that each means. Equal seeds make equal tasks.

Tools are divided by their application, so that a held-out task's tools, their names and most words of their arguments were never trained on. Free texts
are made of syllables: what is to be written cannot be known, only copied. Declarations are cut to what a small model's context holds: names, types,
choices, the first sentence; calls are judged by the tool's whole schema.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.data.documents import choice
from abruzzi_jobs.sft.conversation import call_id, compact
from abruzzi_jobs.synthesis.evolution.evolve import synthetic_tools
from abruzzi_jobs.synthesis.world import World, sample_call

GENERATOR = "bench-sft-tasks-v1"
HELD_OUT_PERCENT = 20
TRAINING_APPLICATIONS = 12
"""A few hundred tools: each is called in some tens of conversations, as in the data that a small assistant would be tuned on."""
MORE_TOOLS = 0.4
"""Share of the tasks that declare more tools than the one that they need."""
SYSTEMS = (
    "You call tools for the user.",
    "You are an assistant with tools.",
    "Help the user by calling the right tool.",
)
OPENINGS = ("Please", "Now", "I need you to", "Could you", "Next,")
_SYLLABLES = [
    "ba",
    "be",
    "bo",
    "da",
    "de",
    "di",
    "do",
    "fa",
    "fe",
    "ga",
    "go",
    "ka",
    "ke",
    "ki",
    "ko",
    "la",
    "le",
    "li",
    "lo",
    "ma",
    "me",
    "mi",
    "mo",
    "na",
    "ne",
    "ni",
    "no",
    "pa",
    "pe",
    "po",
    "ra",
    "re",
    "ri",
    "ro",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
    "to",
    "va",
    "ve",
    "vi",
    "vo",
]


@dataclass(frozen=True, kw_only=True)
class Task:
    id: str
    tool: ToolSpec
    declared: tuple[ToolSpec, ...]
    """What the conversation declares: the tool, and others of its application."""
    arguments: dict[str, Any]
    request: str
    world_seed: int

    def prompt(self) -> dict[str, Any]:
        system = SYSTEMS[choice(self.id, len(SYSTEMS))]
        return {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": self.request}],
            "tools": [declaration(tool) for tool in self.declared],
        }

    def conversation(self) -> dict[str, Any]:
        row = self.prompt()
        call = {"name": self.tool.name, "arguments": compact(self.arguments)}
        made = {"id": call_id(self.tool.name, 0), "type": "function", "function": call}
        row["messages"].append({"role": "assistant", "content": "", "tool_calls": [made]})
        return {**row, "source": self.tool.source, "licence": self.tool.licence, "generator": GENERATOR}

    def world(self) -> World:
        assert self.tool.simulation is not None
        return World(self.tool.simulation.state, seed=self.world_seed)


def declaration(tool: ToolSpec) -> dict[str, Any]:
    schema = tool.input_schema
    properties = {
        name: {key: part[key] for key in ("type", "enum") if key in part} for name, part in schema["properties"].items()
    }
    parameters = {"type": "object", "properties": properties, "required": schema["required"]}
    return {"name": tool.name, "description": _first_sentence(tool), "parameters": parameters}


def applications(*, held_out: bool, most_bytes: int) -> list[list[ToolSpec]]:
    """Tools by application, those whose declaration is short enough; of the training applications the first ones."""
    found: dict[str, list[ToolSpec]] = defaultdict(list)
    for tool in synthetic_tools():
        if (choice(tool.source, 100) < HELD_OUT_PERCENT) is held_out and len(compact(declaration(tool))) <= most_bytes:
            found[tool.source].append(tool)
    tools_by_application = [tools for _, tools in sorted(found.items())]
    return tools_by_application if held_out else tools_by_application[:TRAINING_APPLICATIONS]


def tasks(seed: int, *, held_out: bool, most_tools: int, most_bytes: int) -> Iterator[Task]:
    """Without end. Each has a call that its world allows."""
    draw = random.Random(f"sft-tasks/{seed}/{held_out}")
    grounds = applications(held_out=held_out, most_bytes=most_bytes)
    worlds: dict[str, World] = {}
    number = 0
    while True:
        tools = draw.choice(grounds)
        tool = draw.choice(tools)
        others = draw.sample(tools, min(len(tools), most_tools)) if draw.random() < MORE_TOOLS else []
        declared = [other for other in others if other.name != tool.name][: most_tools - 1]
        declared.insert(draw.randint(0, len(declared)), tool)
        assert tool.simulation is not None
        world = worlds.get(tool.source) or worlds.setdefault(tool.source, World(tool.simulation.state, seed=seed))
        arguments = sample_call(world, tool, draw.randrange(1 << 30))
        number += 1
        if arguments is None:
            continue
        arguments = {
            name: made_up_name(draw) if _is_free_text(tool, name) else arguments[name]
            for name in tool.input_schema["properties"]
            if name in arguments
        }
        if world.unmet(tool, arguments) is not None:
            continue
        yield Task(
            id=f"{seed}-{'held-out' if held_out else 'train'}-{number}",
            tool=tool,
            declared=tuple(declared),
            arguments=arguments,
            request=_request(tool, arguments, draw),
            world_seed=seed,
        )


def _request(tool: ToolSpec, arguments: dict[str, Any], draw: random.Random) -> str:
    wish = _first_sentence(tool).rstrip(".")
    values = [f"{name}={_spoken(value)}" for name, value in arguments.items()]
    draw.shuffle(values)
    told = f" {'; '.join(values)}." if values else ""
    return f"{draw.choice(OPENINGS)} {wish[:1].lower()}{wish[1:]}.{told}"


def _spoken(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_free_text(tool: ToolSpec, name: str) -> bool:
    schema = tool.input_schema["properties"][name]
    return schema.get("type") == "string" and "enum" not in schema and "pattern" not in schema


def made_up_name(draw: random.Random) -> str:
    def word() -> str:
        return "".join(draw.choice(_SYLLABLES) for _ in range(draw.randint(2, 3))).capitalize()

    return " ".join(word() for _ in range(draw.randint(1, 2)))


def _first_sentence(tool: ToolSpec) -> str:
    return tool.description.split(". ")[0].rstrip(".") + "."
