"""Tokens of people and CI."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.resources import Page, TokenCreated, TokenOut
from abruzzi.contracts.states import Role
from abruzzi.identity import service as identity
from abruzzi.identity.policy import Action
from abruzzi_api.pagination import Cursor, Limit, decode_moment, page
from abruzzi_api.work import Work, permit

router = APIRouter(prefix="/tokens", tags=["tokens"])


class TokenIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    role: Role
    days: float = Field(default=30.0, ge=0.01, le=366)


@router.get("", operation_id="tokens_list")
async def list_tokens(
    work: Annotated[Work, permit(Action.READ_TOKENS)], limit: Limit = 100, cursor: Cursor = None
) -> Page[TokenOut]:
    """Newest first; never their secrets."""
    found = await identity.list_tokens(work.session, after=decode_moment(cursor), limit=limit + 1)
    return Page[TokenOut].model_validate(page(found, limit, lambda t: (t.created_at.isoformat(), t.id)))


@router.post("", operation_id="tokens_create", status_code=201, response_model=TokenCreated)
async def create_token(body: TokenIn, work: Annotated[Work, permit(Action.MANAGE_TOKENS)]) -> Any:
    """The secret is in this answer only. (So this POST's answer is not kept for its Idempotency-Key: a replay says that it was made.)"""
    made = await identity.create_token(
        work.session,
        project_id=work.project_id,
        name=body.name,
        role=body.role,
        days=body.days,
        actor=work.identity.actor,
        now=work.clock.now(),
    )
    if work.idempotency_key is not None:
        await work.reply(made.model_copy(update={"token": "shown once"}), 201)
    return made


@router.delete("/{token_id}", operation_id="tokens_revoke", status_code=204)
async def revoke_token(
    token_id: Annotated[str, Path(max_length=32)], work: Annotated[Work, permit(Action.MANAGE_TOKENS)]
) -> None:
    """From now on it is refused."""
    await identity.revoke_token(work.session, token_id, now=work.clock.now())
