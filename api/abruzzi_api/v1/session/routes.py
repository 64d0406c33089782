"""Sign-in of the dashboard: a token for a cookie that scripts cannot read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.resources import ProjectOut, Resource
from abruzzi.contracts.states import Role
from abruzzi.identity import service as identity_service
from abruzzi.identity.policy import Action
from abruzzi.kit.db import see_projects, transaction
from abruzzi_api import auditing
from abruzzi_api.gatekeeper import COOKIE, seal_cookie
from abruzzi_api.work import Router, Work, permit

router = Router(prefix="/session", tags=["session"])
_COOKIE_SECONDS = 30 * 24 * 3600
WhoamiWork = Annotated[Work, permit(Action.WHOAMI)]


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=200)


class SessionOut(Resource):
    name: str
    role: Role
    projects: list[ProjectOut]
    version: str


@router.post("", operation_id="session_create")
async def create_session(body: SignIn, request: Request, response: Response) -> SessionOut:
    """Public: the token is the proof."""
    state = request.app.state
    try:
        async with transaction(state.sessions) as session:
            identity = await identity_service.authenticate(session, body.token.strip(), now=state.clock.now())
            await see_projects(session, identity.projects)
            projects = await identity_service.list_projects(session)
    except identity_service.Unauthenticated as error:
        if error.identity is not None:
            await auditing.record_refusal(state, error.identity, "POST", request.url.path, request.url.path)
        raise
    await auditing.record_sign_in(state, identity)
    response.set_cookie(
        COOKIE,
        seal_cookie(body.token.strip(), state.signing_key),
        max_age=_COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return SessionOut(name=identity.name, role=identity.role, projects=projects, version=request.app.version)


@router.get("", operation_id="session_get")
async def get_session(work: WhoamiWork, request: Request) -> SessionOut:
    """Who is asking."""
    projects = await identity_service.list_projects(work.session)
    return SessionOut(name=work.identity.name, role=work.identity.role, projects=projects, version=request.app.version)


@router.delete("", operation_id="session_delete", status_code=204)
async def delete_session(work: WhoamiWork, response: Response) -> None:
    """Sign out."""
    response.delete_cookie(COOKIE, path="/")
