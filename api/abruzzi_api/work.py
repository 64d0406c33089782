"""One request, one transaction. A route says what it needs (`Permit(Action.READ)`) and gets a `Work`; the edge here commits, keeps the answer
of a POST for its Idempotency-Key, and records in the audit log what was changed and what was refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity.models import IdempotencyRow
from abruzzi.identity.policy import Action, Identity, Target, allowed
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import transaction
from abruzzi.kit.new_rows import at_commit
from abruzzi.store import ObjectStore
from abruzzi_api import auditing
from abruzzi_api.gatekeeper import current_identity

_NOT_AUDITED = {Action.REPORT, Action.PLAN, Action.WHOAMI}
_KEY_CHARACTERS = 200
_KEEP = (
    "UPDATE idempotency_keys SET status = :status, response = :response, headers = CAST(:headers AS jsonb) "
    "WHERE project_id = :project AND actor = :actor AND key = :key"
)


class Replay(Exception):
    """This POST was answered before: the same answer again."""

    def __init__(self, known: IdempotencyRow) -> None:
        headers = {**known.headers, "Idempotency-Replayed": "true"}
        self.response = Response(known.response, known.status, headers=headers)


class EdgeRoute(APIRoute):
    """Shows a route's answer to the dependency that commits (`Permit`), while its transaction is still open."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_and_show(request: Request) -> Response:
            request.state.answer = await handle(request)
            return request.state.answer

        return handle_and_show


class Router(APIRouter):
    """Every noun's router: its POSTs honour an Idempotency-Key."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=EdgeRoute, **options)


@dataclass(slots=True)
class Work:
    """What a route works with."""

    session: AsyncSession
    identity: Identity
    clock: Clock
    objects: ObjectStore
    default_pool: str
    kept: str | None = None

    @property
    def project_id(self) -> str:
        """The caller's project: tokens are of one."""
        return self.identity.projects[0]

    def may(self, action: Action) -> bool:
        """Beside what the route itself needs: for answers that show more to some."""
        return allowed(self.identity, action, Target())

    def require(self, action: Action) -> None:
        """Raises AbruzziError `forbidden`."""
        if not self.may(action):
            raise forbidden(self.identity, action)

    def reply(
        self, body: BaseModel | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> JSONResponse:
        """An answer with a status and headers of its own."""
        content = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
        return JSONResponse(content, status, headers=headers)

    def keep_instead(self, body: BaseModel) -> None:
        """What a replay of this POST gets: for an answer with a secret, which is shown once and stored nowhere."""
        self.kept = body.model_dump_json()


def forbidden(identity: Identity, action: Action) -> AbruzziError:
    return AbruzziError(
        "forbidden",
        f"A {identity.role} may not {action.replace('_', ' ')} here.",
        status=403,
        hint="Ask an admin of the project for another role.",
    )


class Permit:
    """Dependency that declares a route's action. Commits when the route returns, before the answer is sent."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, request: Request) -> AsyncIterator[Work]:
        identity, state = current_identity(request), request.app.state
        target = Target(attempt_id=request.path_params.get("attempt_id"))
        changes = request.method not in ("GET", "HEAD")
        try:
            if not allowed(identity, self.action, target):
                raise forbidden(identity, self.action)
            key = request.headers.get("idempotency-key") if request.method == "POST" else None
            async with transaction(state.sessions, identity.projects) as session:
                if key is not None:
                    await _claim(session, identity, key[:_KEY_CHARACTERS], request, await request.body())
                work = Work(session, identity, state.clock, state.objects, state.settings.default_pool)
                yield work
                if key is not None:
                    _keep(session, identity, key[:_KEY_CHARACTERS], request.state.answer, work.kept)
                if changes and self.action not in _NOT_AUDITED:
                    auditing.record(session, identity, request.method, auditing.template(request), request.url.path)
        except AbruzziError as error:
            # Also what a service refuses, such as a forged manifest: its own transaction is rolled back by now.
            if error.status == 403:
                await auditing.record_refusal(
                    state, identity, request.method, auditing.template(request), request.url.path
                )
            raise


def permit(action: Action) -> Any:
    """`work: Annotated[Work, permit(Action.READ)]`; scope "function": the commit comes before the answer."""
    return Depends(Permit(action), scope="function")


ReadWork = Annotated[Work, permit(Action.READ)]
ReportWork = Annotated[Work, permit(Action.REPORT)]


async def _claim(session: AsyncSession, identity: Identity, key: str, request: Request, body: bytes) -> None:
    """Take the key, or raise Replay with the earlier answer. Two at once: the second waits for the first to commit."""
    asked = f"{request.url.path}?{request.url.query}"
    digest = hashlib.sha256(asked.encode() + b"\0" + body).digest()
    row = {"project_id": identity.projects[0], "actor": identity.token_id, "key": key}
    statement = (
        insert(IdempotencyRow)
        .values(**row, body_hash=digest, status=0, response="")
        .on_conflict_do_nothing()
        .returning(IdempotencyRow.key)
    )
    if (await session.execute(statement)).first() is not None:
        return
    known = (await session.execute(select(IdempotencyRow).filter_by(**row))).scalar_one()
    if known.body_hash != digest:
        raise AbruzziError(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another request.",
            status=422,
            hint="Use a new key for a new request.",
        )
    raise Replay(known)


def _keep(session: AsyncSession, identity: Identity, key: str, answer: Response, instead: str | None) -> None:
    """The answer beside what it tells of, in one transaction: there is never the one without the other."""
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    body = instead if instead is not None else bytes(answer.body).decode()
    values = {"status": answer.status_code, "response": body, "headers": json.dumps(headers)}
    at_commit(session, _KEEP, values | {"project": identity.projects[0], "actor": identity.token_id, "key": key})
