"""Tool servers for conversations: each has a fresh one in a box of its own, or one that keeps nothing and serves the next afterwards.

A server at fault is ended and its conversation told by name; the pool starts another one. A kind of server that fails three conversations in a row,
whatever they asked, is left alone from then on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import Isolator
from abruzzi_jobs.synthesis.importer import boxed
from abruzzi_jobs.synthesis.mcp import Patience, ServerFault, Session, session
from abruzzi_jobs.synthesis.servers import Server, shipped
from abruzzi_jobs.synthesis.servers.environments import Environment, default_root, prepare
from abruzzi_jobs.synthesis.trajectories.programs import PYTHON_SOURCE, write_files

FAULTS_IN_A_ROW = 3
ANSWER_CHARACTERS = 4000
"""Of one answer that an agent is told; what is longer is cut, and says so."""

logger = logging.getLogger(__name__)

Start = Callable[[Path], Sequence[str]]
"""A workspace → the command line of a server in it."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of server. `is_stateless`: one conversation cannot tell what another one did."""

    source: str
    start: Start
    is_stateless: bool = False


class Talk(Protocol):
    async def call(self, tool: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        """(whether it says that it did it, what it says). Raises ServerFault."""
        ...


class ServerPools:
    """At most `at_once` conversations hold servers at a time. For one event loop."""

    def __init__(self, kinds: Iterable[Kind], *, patience: Patience | None = None, at_once: int = 4) -> None:
        self._kinds = {kind.source: kind for kind in kinds}
        self._patience = patience
        self._places = asyncio.Semaphore(at_once)
        self._idle: dict[str, list[tuple[AbstractAsyncContextManager[Session], Session]]] = defaultdict(list)
        self._faults_in_a_row: Counter[str] = Counter()
        self.started: Counter[str] = Counter()
        """Processes, by kind."""

    async def __aenter__(self) -> ServerPools:
        return self

    async def __aexit__(self, *_: object) -> None:
        for waiting in self._idle.values():
            for opened, _talk in waiting:
                await opened.__aexit__(None, None, None)
        self._idle.clear()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Held by a conversation from its first server to its end, so that two that need two each never wait for one another."""
        async with self._places:
            yield

    @asynccontextmanager
    async def lease(self, source: str, files: Mapping[str, str]) -> AsyncIterator[Talk]:
        """Raises AbruzziError `server_quarantined` for a kind that is left alone, ServerFault where it does not start."""
        kind = self._kinds.get(source)
        if kind is None:
            raise AbruzziError("no_servers", f"No tool server {source!r} runs here; there are {sorted(self._kinds)}.")
        if self._faults_in_a_row[source] >= FAULTS_IN_A_ROW:
            raise AbruzziError("server_quarantined", f"{source} failed {FAULTS_IN_A_ROW} conversations in a row.")
        idle = self._idle[source]
        opened, talk = idle.pop() if idle else await self._open(kind, files)
        checked = _Checked(talk)
        try:
            yield checked
        finally:
            if checked.fault is None:
                self._faults_in_a_row[source] = 0
            else:
                self._count(source, checked.fault)
            if kind.is_stateless and checked.fault is None and not checked.is_busy:
                idle.append((opened, talk))
            else:
                await opened.__aexit__(None, None, None)

    async def _open(self, kind: Kind, files: Mapping[str, str]) -> tuple[AbstractAsyncContextManager[Session], Session]:
        opened = self._session(kind, files)
        try:
            return opened, await opened.__aenter__()
        except ServerFault as fault:
            self._count(kind.source, fault)
            raise

    @asynccontextmanager
    async def _session(self, kind: Kind, files: Mapping[str, str]) -> AsyncIterator[Session]:
        workspace = Path(tempfile.mkdtemp(prefix="abruzzi-tools-"))
        try:
            command = await asyncio.to_thread(kind.start, workspace)  # makes files, and sometimes a git repository
            write_files(workspace, files)
            self.started[kind.source] += 1
            async with session(command, self._patience) as talk:
                await talk.list_tools()
                yield talk
        finally:
            shutil.rmtree(workspace, ignore_errors=True)

    def _count(self, source: str, fault: ServerFault) -> None:
        self._faults_in_a_row[source] += 1
        logger.warning("%s: quarantined: %s", source, fault.message)
        if self._faults_in_a_row[source] == FAULTS_IN_A_ROW:
            logger.warning("%s failed %d conversations in a row; no more of it are started.", source, FAULTS_IN_A_ROW)


class _Checked:
    """A session as one conversation sees it: one call after the other, and its fault remembered."""

    def __init__(self, talk: Session) -> None:
        self._talk = talk
        self._turn = asyncio.Lock()
        self.fault: ServerFault | None = None

    @property
    def is_busy(self) -> bool:
        """A call was broken off: its answer is still to come."""
        return self._turn.locked()

    async def call(self, tool: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        await self._turn.acquire()
        try:
            answer = await self._talk.call(tool, arguments)
        except ServerFault as fault:
            self._turn.release()
            if fault.kind == "refused":
                return False, shortened(fault.message)
            self.fault = fault
            raise
        except AbruzziError as refused:  # unknown_tool, invalid_arguments: nothing was sent
            self._turn.release()
            return False, shortened(f"{refused.code}: {refused.message}")
        self._turn.release()
        return not answer.failed, shortened(answer.text)


def shortened(text: str) -> str:
    if len(text) <= ANSWER_CHARACTERS:
        return text
    return f"{text[:ANSWER_CHARACTERS]}\n(cut: {len(text) - ANSWER_CHARACTERS} characters more)"


def boxed_kinds(servers: Iterable[Server], *, root: Path | None = None, isolator: Isolator | None = None) -> list[Kind]:
    """Shipped servers, each in its own environment (installed where it is not yet) and boxes. Blocking."""
    return [_boxed(server, prepare(server, root or default_root()), isolator) for server in servers]


def is_deterministic(source: str, tool: str) -> bool:
    """Whether a shipped server's tool, or the sandbox, answers the same again. What a program prints is its author's to know: taken to be."""
    for server in shipped().values():
        if source_of(server) == source:
            return "*" in server.deterministic or tool in server.deterministic
    return source == PYTHON_SOURCE


def source_of(server: Server) -> str:
    return f"mcp:{server.name}@{server.version}"


def _boxed(server: Server, environment: Environment, isolator: Isolator | None) -> Kind:
    return Kind(
        source=source_of(server),
        start=lambda workspace: boxed(environment, server, workspace, isolator),
        is_stateless=server.stateless,
    )
