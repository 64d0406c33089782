"""Tokens of people and CI."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.resources import SHOWN_ONCE, Page, TokenCreated, TokenOut
from abruzzi.contracts.states import Role
from abruzzi.identity import service as identity
from abruzzi.identity.policy import Action, Target, allowed
from abruzzi.kit.db import see_projects
from abruzzi_api.pagination import Cursor, Limit, decode_moment, page
from abruzzi_api.work import Router, Work, permit

router = Router(prefix="/tokens", tags=["tokens"])


class TokenIn(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=80)
    role: Role
    days: float = Field(default=30.0, ge=0.01, le=366)
    project: str | None = Field(default=None, max_length=40)
    """Another than the caller's own: for admins of the platform, such as when a project's first token was lost."""


@router.get("", operation_id="tokens_list")
async def list_tokens(
    work: Annotated[Work, permit(Action.READ_TOKENS)], limit: Limit = 100, cursor: Cursor = None
) -> Page[TokenOut]:
    """Newest first; never their secrets."""
    found = await identity.list_tokens(work.session, after=decode_moment(cursor), limit=limit + 1)
    return Page[TokenOut].model_validate(page(found, limit, lambda t: (t.created_at.isoformat(), t.id)))


@router.post("", operation_id="tokens_create", status_code=201)
async def create_token(body: TokenIn, work: Annotated[Work, permit(Action.MANAGE_TOKENS)]) -> TokenCreated:
    """The secret is in this answer only: a replay for the same Idempotency-Key says that the token was made, not what it is."""
    project_id = body.project or work.project_id
    if project_id not in work.identity.projects:
        if not allowed(work.identity, Action.MANAGE_PROJECTS, Target()):
            raise NotFound("project", project_id)
        await see_projects(work.session, [*work.identity.projects, project_id])
        if project_id not in {p.id for p in await identity.list_projects(work.session)}:
            raise NotFound("project", project_id, hint="`GET /api/v1/projects` lists them.")
    made = await identity.create_token(
        work.session,
        project_id=project_id,
        name=body.name,
        role=body.role,
        days=body.days,
        actor=work.identity.actor,
        now=work.clock.now(),
    )
    work.keep_instead(made.model_copy(update={"token": SHOWN_ONCE}))
    return made


@router.delete("/{token_id}", operation_id="tokens_revoke", status_code=204)
async def revoke_token(
    token_id: Annotated[str, Path(max_length=32)], work: Annotated[Work, permit(Action.MANAGE_TOKENS)]
) -> None:
    """From now on it is refused."""
    await identity.revoke_token(work.session, token_id, now=work.clock.now())
