"""Sets of tools that belong together: those of one application or some of its entities, real servers that suit each other, and mixtures."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.evolution.tools_of import words

_CALLABLE = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_MIXED = 0.2
_REAL = 0.25
_READS = ("get", "find", "related", "count", "total")
COMPANIONS = (
    ("mcp-server-calculator",),
    ("mcp-server-time",),
    ("@modelcontextprotocol/server-filesystem",),
    ("mcp-server-sqlite",),
    ("@modelcontextprotocol/server-memory",),
    ("mcp-server-math",),
    ("mcp-server-git",),
    ("mcp-text-editor",),
    ("mcp-base64",),
    ("mcp-sympy",),
    ("cli-mcp-server",),
    ("mcp-shell-server",),
    ("@modelcontextprotocol/server-everything",),
    ("mcp-server-calculator", "@modelcontextprotocol/server-filesystem"),
    ("mcp-server-time", "mcp-server-calculator"),
    ("mcp-server-sqlite", "mcp-server-calculator"),
    ("@modelcontextprotocol/server-memory", "mcp-server-time"),
    ("@modelcontextprotocol/server-filesystem", "mcp-base64"),
)
"""Real servers that make sense together; none of a group has a tool that another of it has."""


@dataclass(frozen=True, kw_only=True)
class ToolSet:
    """`kind`: `application`, `real` or `mixed`. `place`: what it is, in words."""

    kind: str
    place: str
    domain: str
    tools: tuple[ToolSpec, ...]


class ToolSets:
    """Draws sets from a catalogue."""

    def __init__(self, tools: Sequence[ToolSpec], *, most: int) -> None:
        self.most = most
        self._applications: dict[str, list[ToolSpec]] = defaultdict(list)
        self._servers: dict[str, list[ToolSpec]] = defaultdict(list)
        for tool in tools:
            if _CALLABLE.match(tool.name):
                if tool.is_synthetic:
                    self._applications[tool.source].append(tool)
                else:
                    self._servers[server_of(tool.source)].append(tool)
        self._groups = [group for group in COMPANIONS if all(name in self._servers for name in group)]

    def draw(self, draw: random.Random) -> ToolSet | None:
        """None where the catalogue has no tool that a model can call."""
        turn = draw.random()
        if self._groups and (not self._applications or turn < _REAL):
            return self._real(draw)
        if not self._applications:
            return None
        found = self._application(draw)
        if self._groups and self.most > len(found.tools) and turn < _REAL + _MIXED:
            return self._mixed(draw, found)
        return found

    def _application(self, draw: random.Random) -> ToolSet:
        source = draw.choice(sorted(self._applications))
        offered = self._applications[source]
        domain, name = source.removeprefix("synthetic:").split("/")
        entities = sorted({_entity(tool) for tool in offered})
        chosen = set(draw.sample(entities, draw.randint(1, len(entities))))
        reads_only = draw.random() < 0.1
        kept = [t for t in offered if _entity(t) in chosen and not (reads_only and _kind(t) not in _READS)]
        if len(kept) > self.most:
            drawn = set(draw.sample(range(len(kept)), self.most))
            kept = [tool for number, tool in enumerate(kept) if number in drawn]
        return ToolSet(
            kind="application", place=f"the {words(name.replace('-', '_'))} system", domain=domain, tools=tuple(kept)
        )

    def _real(self, draw: random.Random) -> ToolSet:
        group = draw.choice(self._groups)
        tools = [tool for name in group for tool in self._some(draw, name, self.most // len(group))]
        titles = " and ".join(SERVERS[name] for name in group)
        return ToolSet(kind="real", place=titles, domain="real", tools=tuple(tools))

    def _mixed(self, draw: random.Random, application: ToolSet) -> ToolSet:
        name = draw.choice([group[0] for group in self._groups if len(group) == 1])
        taken = {tool.name for tool in application.tools}
        more = [t for t in self._some(draw, name, self.most - len(application.tools)) if t.name not in taken]
        place = f"{application.place}, beside it {SERVERS[name]}"
        return ToolSet(kind="mixed", place=place, domain=application.domain, tools=(*application.tools, *more))

    def _some(self, draw: random.Random, name: str, most: int) -> list[ToolSpec]:
        """Those that tasks are made of first."""
        offered = self._servers[name]
        if len(offered) <= most:
            return list(offered)
        wanted = [tool for tool in offered if tool.name in MAIN_TOOLS.get(name, ())]
        rest = [tool for tool in offered if tool not in wanted]
        draw.shuffle(wanted)
        chosen = (wanted + draw.sample(rest, len(rest)))[: max(1, most)]
        return [tool for tool in offered if tool in chosen]


SERVERS = {
    "mcp-server-calculator": "a calculator",
    "mcp-server-time": "a clock that knows time zones",
    "@modelcontextprotocol/server-filesystem": "a folder of files",
    "mcp-server-sqlite": "a SQLite database",
    "@modelcontextprotocol/server-memory": "a memory of people and things",
    "mcp-server-math": "a set of arithmetic functions",
    "mcp-server-git": "a git repository",
    "mcp-text-editor": "a text editor",
    "mcp-base64": "a base64 encoder",
    "mcp-sympy": "a computer algebra system",
    "cli-mcp-server": "a command line",
    "mcp-shell-server": "a shell",
    "@modelcontextprotocol/server-everything": "a test server",
}
MAIN_TOOLS = {
    "mcp-sympy": (
        "sympy_factor",
        "sympy_expand",
        "sympy_diff",
        "sympy_integrate",
        "sympy_solve",
        "sympy_gcd",
        "sympy_factorint",
        "sympy_isprime",
    ),
    "@modelcontextprotocol/server-filesystem": (
        "read_text_file",
        "write_file",
        "list_directory",
        "move_file",
        "edit_file",
    ),
    "@modelcontextprotocol/server-memory": (
        "create_entities",
        "add_observations",
        "create_relations",
        "open_nodes",
        "read_graph",
    ),
    "mcp-server-git": ("git_log", "git_status", "git_create_branch", "git_add", "git_commit"),
    "@modelcontextprotocol/server-everything": ("echo", "get-sum"),
    "mcp-server-sqlite": ("read_query", "write_query", "create_table"),
}


def server_of(source: str) -> str:
    """`mcp:<server>@<version>` → server."""
    return source.removeprefix("mcp:").rpartition("@")[0]


def _entity(tool: ToolSpec) -> str:
    assert tool.simulation is not None
    return tool.simulation.operation.entity


def _kind(tool: ToolSpec) -> str:
    assert tool.simulation is not None
    return tool.simulation.operation.kind
