"""Imports the tools of servers: each is started in a box without network, asked what it offers, and called once for real.

A server that misbehaves is quarantined with its fault; the others are kept.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.sandbox import Box, Isolator, Limits, start
from abruzzi_jobs.sandbox.box import WORKSPACE
from abruzzi_jobs.synthesis.mcp import ListedTools, Patience, ServerFault, Session, session
from abruzzi_jobs.synthesis.servers import Server
from abruzzi_jobs.synthesis.servers.environments import Environment, default_root, prepare

_ANSWER_KEPT_CHARACTERS = 400
_RESERVED_BY_V8_BYTES = 64 << 30
_FIRST_COMMIT = """
git init -q -b main . && git add -A &&
GIT_COMMITTER_DATE=2026-01-01T00:00:00Z git -c user.name=abruzzi -c user.email=abruzzi@example.org -c core.hooksPath=/dev/null commit -q --date=2026-01-01T00:00:00Z -m 'first commit'
"""


@dataclass(frozen=True, kw_only=True)
class ImportedServer:
    """`lock_digest` covers every installed file. `says` is its own serverInfo. `call`: {tool, arguments, answer, seconds}, or None where none is
    known that could be made."""

    name: str
    version: str
    licence: str
    lock_digest: str
    says: dict[str, Any]
    protocol: str
    tools: int
    set_aside: list[list[str]]
    listed_after_seconds: float
    call: dict[str, Any] | None


@dataclass(kw_only=True)
class Imported:
    tools: list[ToolSpec] = field(default_factory=list)
    servers: list[ImportedServer] = field(default_factory=list)
    quarantined: list[dict[str, str]] = field(default_factory=list)


async def import_servers(
    servers: Iterable[Server],
    *,
    root: Path | None = None,
    isolator: Isolator | None = None,
    patience: Patience | None = None,
    at_once: int = 2,
) -> Imported:
    """In the order given. Raises AbruzziError `no_sandbox` where none can be held: then nothing was started."""
    places = asyncio.Semaphore(at_once)

    async def one(server: Server) -> tuple[Server, Any]:
        async with places:
            try:
                return server, await _import(server, root or default_root(), isolator, patience)
            except AbruzziError as fault:
                if fault.code == "no_sandbox":
                    raise
                return server, fault

    imported = Imported()
    for server, outcome in await asyncio.gather(*(one(server) for server in servers)):
        if isinstance(outcome, AbruzziError):
            stderr = getattr(outcome, "stderr", "")
            fault = {"server": server.name, "version": server.version, "code": outcome.code}
            imported.quarantined.append(
                {**fault, "reason": outcome.message, "stderr": stderr[-_ANSWER_KEPT_CHARACTERS:]}
            )
        else:
            imported.servers.append(outcome[0])
            imported.tools.extend(outcome[1])
    return imported


def boxed(environment: Environment, server: Server, workspace: Path, isolator: Isolator | None = None) -> list[str]:
    """The command line that runs the server in a box over `workspace`, which is prepared for it."""
    _prepare(server, workspace)
    node = server.runtime == "node"
    box = Box(
        workspace=workspace,
        readable=environment.readable,
        environment={key: _filled(value) for key, value in server.environment.items()},
        limits=Limits(cpu_seconds=300, reserved_bytes=_RESERVED_BY_V8_BYTES if node else 4 << 30),
        isolator=isolator,
    )
    return start(box, [_filled(part) for part in environment.argv])


async def _import(
    server: Server, root: Path, isolator: Isolator | None, patience: Patience | None
) -> tuple[ImportedServer, list[ToolSpec]]:
    environment = await asyncio.to_thread(prepare, server, root)
    workspace = Path(tempfile.mkdtemp(prefix="abruzzi-tools-"))
    try:
        command = boxed(environment, server, workspace, isolator)
        began = time.monotonic()
        async with session(command, patience) as talk:
            listed = await talk.list_tools()
            listed_after = time.monotonic() - began
            call = await _probe(server, talk)
            return _record(server, environment, talk, listed, listed_after, call)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


async def _probe(server: Server, talk: Session) -> dict[str, Any] | None:
    if server.call is None:
        return None
    arguments = json.loads(_filled(json.dumps(server.call.arguments)))
    answer = await talk.call(server.call.tool, arguments)
    if answer.failed or server.call.expects not in answer.text:
        raise ServerFault("lied", f"{server.call.tool} gave {answer.text[:200]!r}, not {server.call.expects!r}")
    kept = answer.text[:_ANSWER_KEPT_CHARACTERS]
    return {"tool": server.call.tool, "arguments": arguments, "answer": kept, "seconds": round(answer.seconds, 4)}


def _record(
    server: Server,
    environment: Environment,
    talk: Session,
    listed: ListedTools,
    listed_after: float,
    call: dict[str, Any] | None,
) -> tuple[ImportedServer, list[ToolSpec]]:
    tools = []
    set_aside: list[Sequence[str]] = list(listed.set_aside)
    for spec in listed.specs:
        try:
            tools.append(tool_of(spec, server, environment.licence))
        except ValidationError as error:
            set_aside.append((spec["name"][:128], error.errors()[0]["msg"]))
    info = talk.about.get("serverInfo")
    record = ImportedServer(
        name=server.name,
        version=server.version,
        licence=environment.licence,
        lock_digest=server.lock_digest,
        says=info if isinstance(info, dict) else {},
        protocol=talk.about["protocolVersion"],
        tools=len(tools),
        set_aside=[list(pair) for pair in set_aside],
        listed_after_seconds=round(listed_after, 3),
        call=call,
    )
    return record, tools


def tool_of(spec: dict[str, Any], server: Server, licence: str) -> ToolSpec:
    """`spec` as tools/list gave it."""
    return ToolSpec(
        name=spec["name"],
        description=str(spec.get("description") or ""),
        input_schema=spec["inputSchema"],
        output_schema=spec.get("outputSchema"),
        annotations=spec.get("annotations"),
        source=f"mcp:{server.name}@{server.version}",
        licence=licence,
    )


def _filled(text: str) -> str:
    return text.replace("{workspace}", WORKSPACE)


def _prepare(server: Server, workspace: Path) -> None:
    for name, text in server.prepare.items():
        if name.startswith("git:"):
            folder = workspace / name.removeprefix("git:")
            folder.mkdir()
            (folder / "README").write_text(text)
            subprocess.run(["sh", "-c", _FIRST_COMMIT], cwd=folder, check=True, capture_output=True)
        else:
            (workspace / name).write_text(text)
