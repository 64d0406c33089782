"""Sign-in of the dashboard: a token for a cookie that scripts cannot read."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.resources import ProjectOut, Resource
from abruzzi.contracts.states import Role
from abruzzi.identity import oidc
from abruzzi.identity import service as identity_service
from abruzzi.identity.policy import Action
from abruzzi.kit.db import see_projects, transaction
from abruzzi_api import auditing
from abruzzi_api.gatekeeper import COOKIE, seal_cookie
from abruzzi_api.single_sign_on import SingleSignOn, safe_path
from abruzzi_api.work import Router, Work, permit

logger = logging.getLogger("abruzzi.api")
router = Router(prefix="/session", tags=["session"])
_COOKIE_SECONDS = 30 * 24 * 3600
WhoamiWork = Annotated[Work, permit(Action.WHOAMI)]


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=200)


class SignInMethods(Resource):
    """Tokens always do."""

    single_sign_on: str | None
    """Name of the identity provider, where there is one: `GET /api/v1/session/oidc` leads to it."""


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
    _set_cookie(request, response, body.token.strip(), seconds=_COOKIE_SECONDS)
    return SessionOut(name=identity.name, role=identity.role, projects=projects, version=request.app.version)


@router.get("", operation_id="session_get")
async def get_session(work: WhoamiWork, request: Request) -> SessionOut:
    """Who is asking."""
    projects = await identity_service.list_projects(work.session)
    return SessionOut(name=work.identity.name, role=work.identity.role, projects=projects, version=request.app.version)


@router.delete("", operation_id="session_delete", status_code=204)
async def delete_session(work: WhoamiWork, response: Response) -> None:
    """Sign out."""
    await identity_service.end_session(work.session, work.identity.token_id, now=work.clock.now())
    response.delete_cookie(COOKIE, path="/")


@router.get("/methods", operation_id="session_methods")
async def get_methods(request: Request) -> SignInMethods:
    """Public: how one can sign in here."""
    provider: SingleSignOn | None = request.app.state.single_sign_on
    return SignInMethods(single_sign_on=provider.settings.name if provider else None)


@router.get("/oidc", operation_id="session_oidc", status_code=302, response_class=RedirectResponse)
async def begin_single_sign_on(
    request: Request,
    next: Annotated[str, Query(max_length=2000)] = "/",
    project: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Public: to the identity provider, and back to the page `next`. `project`: which one, for people who have several."""
    provider = _provider(request)
    request.session.clear()
    try:
        answer = await provider.begin(request)
    except AbruzziError as error:
        return _turned_away(error)
    request.session.update(next=safe_path(next), project=project)
    return answer


@router.get("/oidc/callback", operation_id="session_oidc_callback", status_code=302, response_class=RedirectResponse)
async def finish_single_sign_on(request: Request) -> Response:
    """Public: where the identity provider sends people; its code is the proof."""
    provider, state = _provider(request), request.app.state
    page, project = request.session.get("next", "/"), request.session.get("project")
    try:
        claims = await provider.finish(request)
        grant = oidc.grant_of(claims, provider.settings, project=project)
    except AbruzziError as error:
        return _turned_away(error)
    finally:
        request.session.clear()
    hours = provider.settings.session_hours
    try:
        async with transaction(state.sessions, [grant.project]) as session:
            token = await identity_service.create_session_token(
                session, project_id=grant.project, name=oidc.name_of(claims), role=Role(grant.role), hours=hours, now=state.clock.now(),
            )  # fmt: skip
            identity = await identity_service.authenticate(session, token, now=state.clock.now())
    except NotFound as error:
        return _turned_away(AbruzziError("sso_no_grant", error.message))
    await auditing.record_sign_in(state, identity)
    answer = RedirectResponse(page, 302)
    _set_cookie(request, answer, token, seconds=int(hours * 3600))
    return answer


def _provider(request: Request) -> SingleSignOn:
    provider: SingleSignOn | None = request.app.state.single_sign_on
    if provider is None:
        raise AbruzziError(
            "no_single_sign_on",
            "No identity provider is configured here.",
            status=404,
            hint="Sign in with a token, or set ABRUZZI_OIDC.",
        )
    return provider


def _turned_away(error: AbruzziError) -> Response:
    """To the sign-in page, which has a sentence for each code: what an address says is never shown."""
    logger.warning("sign-in by the identity provider: %s: %s", error.code, error.message)
    return RedirectResponse(f"/#problem={error.code}", 302)


def _set_cookie(request: Request, response: Response, token: str, *, seconds: int) -> None:
    response.set_cookie(
        COOKIE,
        seal_cookie(token, request.app.state.signing_key),
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
