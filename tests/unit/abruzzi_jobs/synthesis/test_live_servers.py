"""Real tool servers, each in its own environment and box: listed, and called once. Six in `make test`, all in `make prove`.

listed_tools.json is what an independent listing of the same servers gave: tool -> digest of its arguments and which of them are required.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from abruzzi_jobs.synthesis.importer import import_servers
from abruzzi_jobs.synthesis.mcp import Patience
from abruzzi_jobs.synthesis.servers import shipped

REPOSITORY = Path(__file__).parents[4]
LISTED = json.loads(Path(__file__).with_name("listed_tools.json").read_text())
PATIENT = Patience(start_seconds=200, answer_seconds=120)
SIX = (
    "mcp-server-time",
    "mcp-server-sqlite",
    "mcp-server-calculator",
    "mcp-dice",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
)


def arguments_digest(schema: dict) -> str:
    parts = [sorted(schema.get("properties", {})), sorted(schema.get("required", []))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


async def servers_as_listed(names) -> list[str]:
    """Their names, once each was found to be what it is known to be."""
    servers = [shipped()[name] for name in names]
    imported = await import_servers(servers, root=REPOSITORY / ".cache" / "tool-servers", patience=PATIENT)
    assert imported.quarantined == []
    for server in imported.servers:
        offered = {
            t.name: arguments_digest(t.input_schema)
            for t in imported.tools
            if t.source == f"mcp:{server.name}@{server.version}"
        }
        assert offered == LISTED[server.name], server.name
        assert server.set_aside == []
        assert server.licence
        assert server.lock_digest.startswith("sha256:")
        if shipped()[server.name].call is not None:
            assert server.call is not None
    return [server.name for server in imported.servers]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_six_real_servers_list_what_they_are_known_for_and_answer_a_call(programs_found):
    assert await servers_as_listed(SIX) == list(SIX)


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_all_shipped_servers_list_what_they_are_known_for_and_answer_a_call(programs_found):
    assert sum(server.call is not None for server in shipped().values()) >= 12
    assert await servers_as_listed(shipped()) == list(shipped())
