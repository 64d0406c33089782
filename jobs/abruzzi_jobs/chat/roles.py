"""Roles, ready to be asked.

    async with open_roles(stage.roles, stage.endpoint, log=log, seed=stage.seed) as roles:
        answer = await roles["rephraser"].complete(ChatRequest(messages=[{"role": "user", "content": "…"}]))

Any number of tasks may ask at the same time: an endpoint lets as many through as it allows. The same question (same role, settings, seed and
sample) is asked once, also over attempts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from abruzzi.contracts.endpoint import EndpointBase, RoleConfig, RoleTable, endpoints_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.embeddings import EmbeddingRequest, Embeddings
from abruzzi_jobs.chat.endpoint import CHAT, EMBEDDINGS, FIRST_PAUSE_SECONDS, A, EndpointClient, Q, Question
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.ledger import Account, metrics_of
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse
from abruzzi_jobs.chat.servers.start import Script, start_endpoint


class RoleClient:
    """One role: its settings, its budget, its account, its share of the log."""

    def __init__(
        self,
        role: str,
        config: RoleConfig,
        endpoint: EndpointClient,
        log: CallLog | None,
        *,
        seed: int,
        identity: str = "",
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.role = role
        self.config = config
        self.endpoint = endpoint
        self.account = log.accounts.setdefault(role, Account()) if log else Account()
        self._log = log
        self._go_on = go_on
        self._salt = json.dumps([role, endpoint.name, endpoint.limits.kind, endpoint.address.model, identity, seed])
        self._asking: dict[str, asyncio.Future[None]] = {}

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Raises CallRejected where this question has no usable answer, BudgetReached, or what the endpoint raises."""
        return await self._once(CHAT, self._with_settings(request))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Raises as `complete` does."""
        return await self._once(EMBEDDINGS, request)

    async def _once(self, question: Question[Q, A], request: Q) -> A:
        core = json.dumps(request.body(), sort_keys=True, separators=(",", ":"))
        call_id = sha256(f"{self._salt}\0{request.sample}\0{core}".encode()).hexdigest()
        while True:
            if self._log is not None and (found := await self._log.find(call_id)) is not None:
                self.account.cache_hits += 1
                return question.restore(found, call_id)
            running = self._asking.get(call_id)
            if running is None or self._log is None:
                break
            await asyncio.wait([running])  # somebody asks just this; its answer will be in the log
        self._go_on()
        self.account.check(self.role, self.config)
        done = self._asking[call_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._ask(question, request, core, call_id)
        finally:
            self._asking.pop(call_id, None)
            done.set_result(None)

    async def _ask(self, question: Question[Q, A], request: Q, core: str, call_id: str) -> A:
        added: dict[str, Any] = {"model": self.endpoint.address.model}
        if isinstance(request, ChatRequest) and request.seed is None:
            added["seed"] = int(call_id[:8], 16) & 0x7FFFFFFF
        body = f"{core[:-1]},{json.dumps(added)[1:]}".encode()
        retries: list[str] = []
        try:
            response = await self.endpoint.ask(question, request, body, role=self.role, tell_retry=retries.append)
        except CallRejected as rejected:
            self.account.rejected[rejected.reason] += 1
            end = {"retries": retries, "rejected": {"reason": rejected.reason, "message": rejected.message}}
            self._record(call_id, request, body, end)
            raise
        finally:
            self.account.retries.update(retries)
        response = replace(response, call_id=call_id)
        self.account.take(response)
        end = {"seconds": round(response.seconds, 4), **({"retries": retries} if retries else {})}
        self._record(call_id, request, body, {**end, "response": response.as_dict()})
        return response

    def _record(self, call_id: str, request: ChatRequest | EmbeddingRequest, body: bytes, rest: dict[str, Any]) -> None:
        if self._log is None:
            return
        head = {
            "id": call_id,
            "role": self.role,
            "endpoint": self.endpoint.name,
            "sample": request.sample,
            "at": round(time.time(), 3),
        }
        line = b'%b,"request":%b,%b' % (
            json.dumps(head, separators=(",", ":")).encode()[:-1],
            body,
            json.dumps(rest, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")[1:],
        )
        self._log.add(call_id, line, is_answer="response" in rest)

    def _with_settings(self, request: ChatRequest) -> ChatRequest:
        given = {
            name: value
            for name in ("temperature", "top_p", "max_tokens")
            if getattr(request, name) is None and (value := getattr(self.config, name)) is not None
        }
        return replace(request, **given) if given else request


class Roles(Mapping[str, RoleClient]):
    """By name (`ChatRole` or its word)."""

    def __init__(self, clients: Mapping[str, RoleClient], log: CallLog | None) -> None:
        self._clients = dict(clients)
        self._log = log

    def __getitem__(self, role: str) -> RoleClient:
        try:
            return self._clients[str(role)]
        except KeyError:
            raise AbruzziError(
                "no_role",
                f"The stage asks for the role {str(role)!r}, which the recipe gives to no endpoint.",
                hint=f"Add {role!s} = … to [stage.roles]. {nearest(str(role), list(self._clients))}",
            ) from None

    def get(self, role: str, default: Any = None) -> Any:
        """`default` where the recipe names nobody: Mapping's own waits for a KeyError."""
        return self._clients.get(str(role), default)

    def __contains__(self, role: object) -> bool:
        return str(role) in self._clients

    def __iter__(self) -> Any:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def metrics(self) -> dict[str, float]:
        """Totals so far by role, for `Reporter.log`."""
        return metrics_of({name: client.account for name, client in self._clients.items()})

    @property
    def answers(self) -> int:
        """So far, those from the log with them: a slow model that answers is no hang."""
        return sum(client.account.calls + client.account.cache_hits for client in self._clients.values())

    async def flush(self) -> None:
        """Returns when the records of all calls so far are in the log."""
        if self._log is not None:
            await self._log.flush()

    async def write_calls(self, folder: Path) -> dict[str, Any]:
        """Records of all calls, of all attempts, as files for an artifact; returns what calls.json says."""
        if self._log is None:
            raise ValueError("these roles keep no log")
        await self._log.flush()
        return await asyncio.to_thread(self._log.write, folder)

    async def discard_calls(self) -> None:
        """Once the records are committed with an artifact: what the next attempt would have gone on from."""
        if self._log is not None:
            await asyncio.to_thread(self._log.discard)


@asynccontextmanager
async def open_roles(
    roles: RoleTable,
    endpoints: Mapping[str, EndpointBase],
    *,
    log: CallLog | None = None,
    seed: int = 0,
    folders: Mapping[str, Path] | None = None,
    identities: Mapping[str, str] | None = None,
    logs: Path | None = None,
    go_on: Callable[[], None] = lambda: None,
    script: Script | None = None,
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
) -> AsyncIterator[Roles]:
    """Starts the endpoints that are ours, and ends them with the block; opens and closes `log`.

    `folders`: of checkpoints and tokenizers to be served, by the names of `contracts.graph.served_inputs`.
    `identities`: what else the answers of an endpoint depend on, such as the digest of its checkpoint: with another one all is asked anew.
    `logs`: folder for what our servers write.
    `go_on`: called before each question that is not answered from the log; what it raises ends the call.
    `script`: what the stand-in says, for tests.
    Raises AbruzziError where a server cannot be started or a key is missing.
    """
    used = endpoints_of(roles, endpoints)
    for role, config in roles.items():
        if config.endpoint not in used:
            raise AbruzziError(
                "no_endpoint",
                f"Role {str(role)!r}: no endpoint is called {config.endpoint!r}.",
                hint=nearest(config.endpoint, list(endpoints)),
            )
    async with AsyncExitStack() as stack:
        # Limits are the semaphores': a pool of its own would only add a second queue.
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30), cookie_jar=aiohttp.DummyCookieJar()
            )
        )
        clients: dict[str, EndpointClient] = {}
        for name, endpoint in used.items():
            address = await stack.enter_async_context(
                start_endpoint(name, endpoint, folders=folders or {}, logs=logs, script=script)
            )
            clients[name] = EndpointClient(name, address, endpoint, session, first_pause_seconds=first_pause_seconds)
        if log is not None:
            await log.open()
            stack.push_async_callback(log.close)
        yield Roles(
            {
                str(role): RoleClient(
                    str(role),
                    config,
                    clients[config.endpoint],
                    log,
                    seed=seed,
                    identity=(identities or {}).get(config.endpoint, ""),
                    go_on=go_on,
                )
                for role, config in roles.items()
            },
            log,
        )
