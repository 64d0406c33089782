"""The application: routes, middleware, and the assertion that every route of the API says what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from sqlalchemy import text
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity import service as identity
from abruzzi.kit.clock import DatabaseClock
from abruzzi.kit.database_time import keep_time
from abruzzi.kit.db import create_engine, create_lookups, create_sessions, transaction
from abruzzi.kit.settings import Settings
from abruzzi.store import open_store
from abruzzi_api import auditing, dashboard, problems, single_sign_on
from abruzzi_api.gatekeeper import API, PUBLIC, Gatekeeper
from abruzzi_api.streams import Bell
from abruzzi_api.v1.artifacts import routes as artifacts
from abruzzi_api.v1.attempts import routes as attempts
from abruzzi_api.v1.audit import routes as audit
from abruzzi_api.v1.environments import routes as environments
from abruzzi_api.v1.evaluations import routes as evaluations
from abruzzi_api.v1.events import routes as events
from abruzzi_api.v1.logs import routes as logs
from abruzzi_api.v1.metrics import routes as metrics
from abruzzi_api.v1.nodes import routes as nodes
from abruzzi_api.v1.notifications import routes as notifications
from abruzzi_api.v1.pools import routes as pools
from abruzzi_api.v1.projects import routes as projects
from abruzzi_api.v1.recipes import routes as recipes
from abruzzi_api.v1.redteam import routes as redteam
from abruzzi_api.v1.reviews import routes as reviews
from abruzzi_api.v1.rows import routes as rows
from abruzzi_api.v1.rubrics import routes as rubrics
from abruzzi_api.v1.runs import routes as runs
from abruzzi_api.v1.session import routes as session
from abruzzi_api.v1.tokens import routes as tokens
from abruzzi_api.v1.usage import routes as usage
from abruzzi_api.work import EdgeRoute, Permit, Replay

PREFIX = "/api/v1"
NOUNS = (
    runs,
    pools,
    nodes,
    usage,
    attempts,
    artifacts,
    rows,
    redteam,
    reviews,
    rubrics,
    evaluations,
    environments,
    metrics,
    logs,
    events,
    recipes,
    tokens,
    audit,
    notifications,
    projects,
    session,
)
REQUESTS = Counter("abruzzi_api_requests_total", "Requests by route, method and status", ["route", "method", "status"])
SECONDS = Histogram("abruzzi_api_request_seconds", "Time to the answer's start", ["route"])
_BOOTSTRAP_SECONDS = 0.5
_CONNECTIONS = 20
"""All kept: what comes and goes above a smaller number would begin a process of Postgres each time."""
logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Does not touch the database: it starts while Postgres is still coming up, and `/readyz` says when it can serve."""
    url = settings.require("database_url")
    app = FastAPI(
        title="Abruzzi", version=version("abruzzi-api"), openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None, lifespan=_lifespan,
        separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.settings = settings
    app.state.engine = create_engine(url, pool_size=_CONNECTIONS, overflow=0)
    app.state.sessions = create_sessions(app.state.engine)
    app.state.lookups = create_lookups(app.state.engine)
    app.state.objects = open_store(settings.store_config())
    app.state.clock = DatabaseClock()
    app.state.signing_key = hashlib.sha256(settings.require("signing_key").encode()).digest()
    app.state.bell = Bell(url)
    app.state.stopping = asyncio.Event()
    app.state.refusals = auditing.Throttle()
    app.state.uses = auditing.Throttle()
    api = APIRouter(prefix=PREFIX, responses=problems.RESPONSES)
    for noun in NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    problems.install(app)
    app.add_exception_handler(Replay, _replay)
    _add_probes(app)
    dashboard.mount(app, settings.web_dir)
    check_permissions(api_routes())
    single_sign_on.install(app, settings)
    app.add_middleware(_Compress, minimum_size=2048)
    app.add_middleware(Gatekeeper, state=app.state)
    app.add_middleware(_Measure)
    return app


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A route below /api/v1 with its whole path."""

    path: str
    methods: frozenset[str]
    permit: Permit | None
    keeps_answers: bool = True


def check_permissions(routes: Sequence[ApiRoute]) -> None:
    """Raises RuntimeError for a route of the API that declares no action and is not on the list of public ones, or cannot keep its answers."""
    for route in routes:
        if not route.keeps_answers:
            raise RuntimeError(f"{route.path} keeps no answers: make its router with abruzzi_api.work.Router")
        for method in route.methods:
            if route.permit is None and (method, route.path) not in PUBLIC:
                raise RuntimeError(f"{method} {route.path} declares no permission")


def api_routes() -> list[ApiRoute]:
    """Every route of every noun. From the nouns' own routers: what an application makes of included routers is its own affair."""
    found = [route for noun in NOUNS for route in noun.router.routes if isinstance(route, APIRoute)]
    return [
        ApiRoute(PREFIX + route.path, frozenset(route.methods or ()), _permit(route), isinstance(route, EdgeRoute))
        for route in found
    ]


def _permit(route: APIRoute) -> Permit | None:
    return next((d.call for d in route.dependant.dependencies if isinstance(d.call, Permit)), None)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    beside = (app.state.bell.listen(), _bootstrap(app), keep_time(app.state.sessions, app.state.clock))
    tasks = [asyncio.create_task(work) for work in beside]
    try:
        yield
    finally:
        app.state.stopping.set()
        for task in tasks:
            task.cancel()
        await app.state.engine.dispose()


async def _bootstrap(app: FastAPI) -> None:
    """Make the configured admin token valid, as soon as the database is there."""
    token = app.state.settings.admin_token
    while token is not None:
        try:
            async with transaction(app.state.sessions, ["default"]) as session:
                await identity.ensure_admin_token(session, token.get_secret_value(), now=app.state.clock.now())
            return
        except AbruzziError as error:  # no token, and it will not become one
            logger.error("%s %s", error.message, error.hint)
            return
        except Exception:  # the database is not there yet, or has no tables
            await asyncio.sleep(_BOOTSTRAP_SECONDS)


async def _replay(request: Request, error: Exception) -> Response:
    assert isinstance(error, Replay)
    return error.response


def _add_probes(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        try:
            async with transaction(app.state.sessions) as session:
                await session.execute(text("SELECT version_num FROM runs, (SELECT 1 AS version_num) AS one LIMIT 1"))
        except Exception as error:
            return JSONResponse({"status": "unavailable", "reason": type(error).__name__}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class _Measure:
    """Counts requests and the time to an answer's start."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, label = time.monotonic(), _route_label(scope["path"])

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                SECONDS.labels(label).observe(time.monotonic() - began)
                REQUESTS.labels(label, scope["method"], message["status"]).inc()
            await send(message)

        await self.app(scope, receive, measured)


def _route_label(path: str) -> str:
    """Ids cut out, so that labels stay few."""
    parts = path.split("/")
    return (
        "/".join(parts[:4])
        if path.startswith(API)
        else "/" + parts[1]
        if parts[1] in ("healthz", "readyz", "metrics", "assets")
        else "/page"
    )


class _Compress(GZipMiddleware):
    """Streams must not wait for a compressor's buffer."""

    async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["type"] == "http" and scope["path"].endswith("/stream"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
