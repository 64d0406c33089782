"""One request, one transaction. A route says what it needs (`Permit(Action.READ)`) and gets a `Work`; the edge here commits."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity import service as identity_service
from abruzzi.identity.models import IdempotencyRow
from abruzzi.identity.policy import Action, Identity, Target, allowed
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import transaction
from abruzzi.store import ObjectStore
from abruzzi_api.gatekeeper import current_identity

_NOT_AUDITED = {Action.REPORT, Action.PLAN, Action.WHOAMI}


class Replay(Exception):
    """This POST was answered before: the same answer again."""

    def __init__(self, status: int, body: str) -> None:
        self.response = Response(body, status, media_type="application/json", headers={"Idempotency-Replayed": "true"})


@dataclass(slots=True)
class Work:
    """What a route works with."""

    session: AsyncSession
    identity: Identity
    clock: Clock
    objects: ObjectStore
    idempotency_key: str | None

    @property
    def project_id(self) -> str:
        """The caller's project: tokens are of one."""
        return self.identity.projects[0]

    async def reply(
        self, body: BaseModel | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> JSONResponse:
        """Answer a POST, and remember the answer in the same transaction."""
        answer = JSONResponse(
            body.model_dump(mode="json") if isinstance(body, BaseModel) else body, status, headers=headers
        )
        if self.idempotency_key is not None:
            key = (
                IdempotencyRow.project_id == self.project_id,
                IdempotencyRow.actor == self.identity.token_id,
                IdempotencyRow.key == self.idempotency_key,
            )
            await self.session.execute(
                update(IdempotencyRow).where(*key).values(status=status, response=bytes(answer.body).decode())
            )
        return answer


class Permit:
    """Dependency that declares a route's action. Commits when the route returns, before the answer is sent."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, request: Request) -> AsyncIterator[Work]:
        identity, state = current_identity(request), request.app.state
        target = Target(attempt_id=request.path_params.get("attempt_id"))
        changes = request.method not in ("GET", "HEAD")
        if not allowed(identity, self.action, target):
            if changes:
                async with transaction(state.sessions, identity.projects) as session:
                    self._audit(session, identity, request, "denied")
            raise AbruzziError(
                "forbidden",
                f"A {identity.role} may not {self.action.replace('_', ' ')} here.",
                status=403,
                hint="Ask an admin of the project for another role.",
            )
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        async with transaction(state.sessions, identity.projects) as session:
            if key is not None:
                await _claim(session, identity, key[:200], await request.body(), request.url.path)
            yield Work(session, identity, state.clock, state.objects, key[:200] if key else None)
            if changes and self.action not in _NOT_AUDITED:
                self._audit(session, identity, request, "allowed")

    def _audit(self, session: AsyncSession, identity: Identity, request: Request, outcome: str) -> None:
        # Included routers tell their own part of the path.
        template = "/api/v1" + request.scope["route"].path.removeprefix("/api/v1")
        action = f"{request.method} {template}"
        identity_service.audit(
            session,
            project_id=identity.projects[0],
            actor=identity.actor,
            action=action,
            object_=request.url.path,
            outcome=outcome,
        )


def permit(action: Action) -> Any:
    """`work: Annotated[Work, permit(Action.READ)]`; scope "function": the commit comes before the answer."""
    return Depends(Permit(action), scope="function")


ReadWork = Annotated[Work, permit(Action.READ)]
ReportWork = Annotated[Work, permit(Action.REPORT)]


async def _claim(session: AsyncSession, identity: Identity, key: str, body: bytes, path: str) -> None:
    """Take the key, or raise Replay with the earlier answer. Two at once: the second waits for the first to commit."""
    digest = hashlib.sha256(path.encode() + b"\0" + body).digest()
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
            "This Idempotency-Key came before with another body.",
            status=422,
            hint="Use a new key for a new request.",
        )
    raise Replay(known.status, known.response)
