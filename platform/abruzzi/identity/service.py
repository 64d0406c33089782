"""Projects, tokens and the audit log.

A token is `abruzzi_<id>_<secret>`: the id is looked up, the secret (256 random bits) compared by its SHA-256 in constant time. A slow
hash would add nothing to such a secret but a way to burn our CPU.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime, timedelta

from sqlalchemy import select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.resources import AuditOut, ProjectCreated, ProjectOut, TokenCreated, TokenOut
from abruzzi.contracts.states import Role
from abruzzi.identity.models import AuditRow, ProjectRow, TokenRow
from abruzzi.identity.policy import Identity
from abruzzi.kit.ids import new_id, new_secret

_TOKEN = re.compile(r"^abruzzi_([0-9a-z]{8,20})_([A-Za-z0-9_-]{43})$")
FIRST_ADMIN_DAYS = 366.0
ATTEMPT_TOKEN_LIFE = timedelta(days=30)
LATE_TOKEN_LIFE = timedelta(hours=1)
"""Of an ended attempt's token. A launcher goes on shipping logs for 15 minutes; one that is started again later gets a token of its own."""
ADMIN_TOKEN_LIFE = timedelta(days=3650)
SIGNED_IN_BY = "oidc"
"""`created_by` of the tokens that a sign-in by the identity provider makes."""


class Unauthenticated(AbruzziError):
    """`identity`: whose token it was, where the secret was right and only its time is over."""

    def __init__(self, message: str = "No valid token.", identity: Identity | None = None) -> None:
        super().__init__(
            "unauthenticated", message, status=401, hint="Send `Authorization: Bearer <token>`, or sign in again."
        )
        self.identity = identity


async def authenticate(session: AsyncSession, token: str, *, now: datetime) -> Identity:
    """One statement. Raises Unauthenticated for anything that is not a living token; says which only for an expired or revoked one that was right."""
    match = _TOKEN.match(token)
    if match is None:
        raise Unauthenticated()
    row = (
        (await session.execute(text("SELECT * FROM abruzzi_find_token(:id)"), {"id": match[1]}))
        .mappings()
        .one_or_none()
    )
    stored = bytes(row["secret_hash"]) if row else bytes(32)
    if not hmac.compare_digest(stored, _hash(match[2])) or row is None:
        raise Unauthenticated()
    identity = Identity(row["id"], row["name"], Role(row["role"]), (row["project_id"],), row["attempt_id"])
    if row["revoked_at"] is not None:
        raise Unauthenticated("This token was revoked.", identity)
    if row["expires_at"] <= now:
        raise Unauthenticated("This token has expired.", identity)
    return identity


async def note_use(session: AsyncSession, identity: Identity, *, now: datetime) -> None:
    """Of a token of people and CI; the session sees its project."""
    await session.execute(update(TokenRow).where(TokenRow.id == identity.token_id).values(last_used_at=now))


async def create_token(
    session: AsyncSession, *, project_id: str, name: str, role: Role, days: float, actor: str, now: datetime
) -> TokenCreated:
    """The token's secret is in the answer and nowhere else."""
    if role is Role.ATTEMPT:
        raise AbruzziError(
            "bad_role",
            "Tokens of attempts are made by the platform.",
            status=422,
            hint="Roles: viewer, member, maintainer, admin.",
        )
    row, token = await _add(session, project_id, name, role, None, actor, now, now + timedelta(days=days))
    return TokenCreated(**_token_out(row).model_dump(), token=token)


async def create_session_token(
    session: AsyncSession, *, project_id: str, name: str, role: Role, hours: float, now: datetime
) -> str:
    """Of somebody whom the identity provider vouches for. Raises NotFound when the project is not there."""
    if await session.get(ProjectRow, project_id) is None:
        raise NotFound("project", project_id)
    _, token = await _add(session, project_id, name, role, None, SIGNED_IN_BY, now, now + timedelta(hours=hours))
    return token


async def end_session(session: AsyncSession, token_id: str, *, now: datetime) -> None:
    """Revokes what a sign-in made. A token that somebody only typed in lives on."""
    mine = (TokenRow.id == token_id, TokenRow.created_by == SIGNED_IN_BY, TokenRow.revoked_at.is_(None))
    await session.execute(update(TokenRow).where(*mine).values(revoked_at=now))


async def mint_attempt_token(
    session: AsyncSession, *, project_id: str, attempt_id: str, now: datetime, life: timedelta = ATTEMPT_TOKEN_LIFE
) -> str:
    """A token that reaches one attempt. Earlier ones of the same attempt are revoked: one workload, one token."""
    await session.execute(
        update(TokenRow).where(TokenRow.attempt_id == attempt_id, TokenRow.revoked_at.is_(None)).values(revoked_at=now)
    )
    _, token = await _add(session, project_id, attempt_id, Role.ATTEMPT, attempt_id, "controller", now, now + life)
    return token


async def retire_attempt_token(session: AsyncSession, attempt_id: str, *, now: datetime) -> None:
    """The attempt's outcome is committed: its token lives on only as long as its last log lines may be on their way."""
    until = now + LATE_TOKEN_LIFE
    await session.execute(
        update(TokenRow)
        .where(TokenRow.attempt_id == attempt_id, TokenRow.expires_at > until, TokenRow.revoked_at.is_(None))
        .values(expires_at=until)
    )


async def ensure_admin_token(session: AsyncSession, token: str, *, now: datetime) -> None:
    """Make the given token valid as admin of the default project. Raises AbruzziError `bad_token` when it is no token."""
    match = _TOKEN.match(token)
    if match is None:
        raise AbruzziError(
            "bad_token",
            "ABRUZZI_ADMIN_TOKEN is no token.",
            hint="Form: abruzzi_<8 to 20 letters or digits>_<43 characters>.",
        )
    statement = insert(TokenRow).values(
        id=match[1],
        project_id="default",
        name="admin",
        role=Role.ADMIN,
        secret_hash=_hash(match[2]),
        created_by="bootstrap",
        created_at=now,
        expires_at=now + ADMIN_TOKEN_LIFE,
    )
    await session.execute(statement.on_conflict_do_nothing(index_elements=["id"]))


async def list_tokens(
    session: AsyncSession, *, after: tuple[datetime, str] | None = None, limit: int = 100
) -> list[TokenOut]:
    """Of people and CI; those of attempts are the platform's own."""
    query = (
        select(TokenRow)
        .where(TokenRow.attempt_id.is_(None))
        .order_by(TokenRow.created_at.desc(), TokenRow.id.desc())
        .limit(limit)
    )
    if after:
        query = query.where(tuple_(TokenRow.created_at, TokenRow.id) < after)
    return [_token_out(row) for row in (await session.execute(query)).scalars()]


async def revoke_token(session: AsyncSession, token_id: str, *, now: datetime) -> None:
    row = await session.get(TokenRow, token_id, with_for_update=True)
    if row is None or row.attempt_id is not None:
        raise NotFound("token", token_id)
    if row.revoked_at is None:
        row.revoked_at = now


async def list_projects(session: AsyncSession) -> list[ProjectOut]:
    rows = (await session.execute(select(ProjectRow).order_by(ProjectRow.id))).scalars()
    return [ProjectOut(id=r.id, name=r.name, created_at=r.created_at) for r in rows]


async def create_project(
    session: AsyncSession, project_id: str, name: str, *, actor: str, now: datetime
) -> ProjectCreated:
    """With the token of its first admin, whose secret is in the answer and nowhere else. Raises Conflict. The session must see the new project."""
    if await session.get(ProjectRow, project_id) is not None:
        raise Conflict(f"There is a project {project_id!r} already.")
    session.add(ProjectRow(id=project_id, name=name, created_at=now))
    await session.flush()
    token = await create_token(
        session, project_id=project_id, name="first admin", role=Role.ADMIN, days=FIRST_ADMIN_DAYS, actor=actor, now=now
    )
    return ProjectCreated(id=project_id, name=name, created_at=now, admin=token)


def audit(session: AsyncSession, *, project_id: str, actor: str, action: str, object_: str, outcome: str) -> None:
    """Part of the caller's transaction: what is not audited did not happen."""
    session.add(AuditRow(project_id=project_id, actor=actor, action=action, object=object_[:200], outcome=outcome))


async def list_audit(session: AsyncSession, *, after: int | None = None, limit: int = 100) -> list[AuditOut]:
    """Newest first."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(AuditRow.id < after)
    rows = (await session.execute(query)).scalars()
    return [
        AuditOut(id=str(r.id), actor=r.actor, action=r.action, object=r.object, outcome=r.outcome, at=r.at)
        for r in rows
    ]


async def _add(
    session: AsyncSession,
    project_id: str,
    name: str,
    role: Role,
    attempt_id: str | None,
    actor: str,
    now: datetime,
    expires_at: datetime,
) -> tuple[TokenRow, str]:
    secret = new_secret()
    row = TokenRow(
        id=new_id(12),
        project_id=project_id,
        name=name,
        role=role,
        secret_hash=_hash(secret),
        attempt_id=attempt_id,
        created_by=actor,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    return row, f"abruzzi_{row.id}_{secret}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _token_out(row: TokenRow) -> TokenOut:
    return TokenOut(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
