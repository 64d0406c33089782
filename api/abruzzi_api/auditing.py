"""What goes into the audit log: changes in the transaction that makes them; refusals and sign-ins in one of their own, for theirs is rolled back."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.identity import service as identity_service
from abruzzi.identity.policy import Identity
from abruzzi.kit.db import transaction

logger = logging.getLogger("abruzzi.api")
APART_SECONDS = 60.0
"""The same refusal, or use of a token, is recorded once in this time: a script that polls with an expired token must not fill the log."""
_REMEMBERED = 4096


class Throttle:
    """Remembers what was recorded lately; the newest few thousand."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def admits(self, *what: str) -> bool:
        now = time.monotonic()
        if now - self._seen.get(what, -APART_SECONDS) < APART_SECONDS:
            return False
        self._seen[what] = now
        self._seen.move_to_end(what)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True


def template(request: Request) -> str:
    """The route's path. Included routers tell their own part of it."""
    return "/api/v1" + request.scope["route"].path.removeprefix("/api/v1")


def record(session: AsyncSession, identity: Identity, method: str, route: str, path: str) -> None:
    """A change, in its own transaction."""
    _add(session, identity, method, route, path, "allowed")


def record_shown(session: AsyncSession, identity: Identity, what: str, path: str) -> None:
    """That somebody was shown what not everybody may see, in the transaction that read it."""
    identity_service.audit(
        session, project_id=identity.projects[0], actor=identity.actor, action=what, object_=path, outcome="allowed"
    )


async def record_sign_in(state: Any, identity: Identity) -> None:
    path = "/api/v1/session"
    async with transaction(state.sessions, identity.projects) as session:
        _add(session, identity, "POST", path, path, "allowed")


async def record_refusal(state: Any, identity: Identity, method: str, route: str, path: str) -> None:
    """The refusal stands, whether or not it can be recorded."""
    if not state.refusals.admits(identity.token_id, method, path):
        return
    try:
        async with transaction(state.sessions, identity.projects) as session:
            _add(session, identity, method, route, path, "denied")
    except SQLAlchemyError:
        logger.exception("a refusal of %s %s to %s is not in the audit log", method, path, identity.actor)


def _add(session: AsyncSession, identity: Identity, method: str, route: str, path: str, outcome: str) -> None:
    identity_service.audit(
        session,
        project_id=identity.projects[0],
        actor=identity.actor,
        action=f"{method} {route}",
        object_=path,
        outcome=outcome,
    )
