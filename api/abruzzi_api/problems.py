"""Errors as RFC 9457 problem+json: every answer that is not a success has this shape."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import OperationalError as PsycopgOperationalError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import Problem

logger = logging.getLogger("abruzzi.api")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Problem", "model": Problem, "content": {MEDIA_TYPE: {}}}
}
"""Declared on every route, so that generated clients know the shape."""

_TITLES = {400: "Bad request", 401: "Unauthenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed", 409: "Conflict",
           412: "Precondition failed", 413: "Too large", 422: "Invalid", 500: "Internal error", 503: "Unavailable"}  # fmt: skip


def problem(
    path: str,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    errors: list[dict[str, Any]] | None = None,
    **facts: Any,
) -> JSONResponse:
    """`facts` are extension members, such as `expected_offset`."""
    body = Problem(
        type=f"urn:abruzzi:problem:{code}", title=_TITLES.get(status, "Error"), status=status, detail=detail, instance=path, code=code, hint=hint,
        errors=errors or [], trace_id=uuid.uuid4().hex[:16],
    )  # fmt: skip
    headers = (
        {"WWW-Authenticate": "Bearer"}
        if status == 401
        else {"Retry-After": str(RETRY_AFTER_SECONDS)}
        if status == 503
        else {}
    )
    return JSONResponse({**facts, **body.model_dump(mode="json")}, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    @app.exception_handler(AbruzziError)
    async def _known(request: Request, error: AbruzziError) -> JSONResponse:
        return problem(
            request.url.path,
            error.status,
            error.code,
            error.message,
            hint=error.hint,
            errors=error.errors,
            **error.facts,
        )

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [{"pointer": "/" + "/".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{e['pointer']}: {e['message']}" for e in found[:5])
        return problem(
            request.url.path,
            422,
            "invalid_request",
            detail,
            hint="See /api/v1/openapi.json for the shape.",
            errors=found,
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return problem(request.url.path, error.status_code, code, str(error.detail))

    async def _database(request: Request, error: Exception) -> JSONResponse:
        logger.warning("database unavailable: %s", type(error).__name__)
        return problem(
            request.url.path,
            503,
            "database_unavailable",
            "The database does not answer.",
            hint="Try again in a moment; nothing was changed.",
        )

    for kind in (OperationalError, InterfaceError, PoolTimeout, PsycopgOperationalError, ConnectionError):
        app.add_exception_handler(kind, _database)

    @app.exception_handler(DataError)
    async def _data(request: Request, error: DataError) -> JSONResponse:
        return problem(
            request.url.path,
            422,
            "invalid_value",
            "A value cannot be stored (such as a NUL character in text).",
            hint="Correct the value.",
        )

    @app.exception_handler(DBAPIError)
    async def _dbapi(request: Request, error: DBAPIError) -> JSONResponse:
        if error.connection_invalidated:
            return await _database(request, error)
        return await _unexpected(request, error)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        answer = problem(
            request.url.path,
            500,
            "internal_error",
            "Something went wrong on our side.",
            hint="The server's log has the details under this trace id.",
        )
        logger.error(
            "unexpected error on %s %s: %s",
            request.method,
            request.url.path,
            bytes(answer.body).decode(),
            exc_info=error,
        )
        return answer
