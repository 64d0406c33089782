"""What happens before a request is read: identity first, then size. A body from a stranger is never parsed."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity import service as identity_service
from abruzzi.identity.policy import Identity
from abruzzi.kit.db import transaction
from abruzzi_api import auditing
from abruzzi_api.problems import problem

API = "/api/v1/"
PUBLIC = {
    ("POST", "/api/v1/session"),
    ("GET", "/api/v1/session/methods"),
    ("GET", "/api/v1/session/oidc"),
    ("GET", "/api/v1/session/oidc/callback"),
    ("GET", "/api/v1/openapi.json"),
    ("HEAD", "/api/v1/openapi.json"),
}
MAX_BODY_BYTES = 8 << 20
COOKIE = "abruzzi_session"
CSRF_HEADER = "x-abruzzi-request"
"""A header that a form or an image of another site cannot send: required with the cookie for everything that changes something."""
_SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
     b"object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]  # fmt: skip


class Gatekeeper:
    """ASGI middleware over `state`: authenticates /api/v1, limits bodies, adds security headers."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY_HEADERS]
            await send(message)

        path, method = scope["path"], scope["method"]
        if "\0" in path or b"%00" in scope.get("query_string", b""):
            # Postgres has no such character in text: nothing can be called so.
            await problem("/", 404, "not_found", "There is nothing whose name holds a NUL character.")(
                scope, receive, send_safely
            )
            return
        try:
            if path.startswith(API) and (method, path) not in PUBLIC:
                scope.setdefault("state", {})["identity"] = await self._identify(Headers(scope=scope), method)
        except AbruzziError as error:
            if isinstance(error, identity_service.Unauthenticated) and error.identity is not None:
                await auditing.record_refusal(self.state, error.identity, method, path, path)
            await problem(path, error.status, error.code, error.message, hint=error.hint)(scope, receive, send_safely)
            return
        except Exception:
            answer = problem(
                path,
                503,
                "database_unavailable",
                "The database does not answer.",
                hint="Try again in a moment; nothing was changed.",
            )
            await answer(scope, receive, send_safely)
            return
        if int(Headers(scope=scope).get("content-length") or 0) > MAX_BODY_BYTES:
            await problem(
                path, 413, "too_large", f"A body may have {MAX_BODY_BYTES} bytes at most.", hint="Send it in parts."
            )(scope, receive, send_safely)
            return
        await self.app(scope, _limited(receive), send_safely)

    async def _identify(self, headers: Headers, method: str) -> Identity:
        """Raises Unauthenticated."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not token or scheme.lower() != "bearer":
            token = self._token_of_cookie(headers, method)
        now = self.state.clock.now()
        async with transaction(self.state.lookups) as session:
            identity = await identity_service.authenticate(session, token.strip(), now=now)
        if identity.attempt_id is None and self.state.uses.admits(identity.token_id):
            async with transaction(self.state.sessions, identity.projects) as session:
                await identity_service.note_use(session, identity, now=now)
        return identity

    def _token_of_cookie(self, headers: Headers, method: str) -> str:
        cookies = {
            name.strip(): value
            for name, _, value in (part.partition("=") for part in headers.get("cookie", "").split(";"))
        }
        token = open_cookie(cookies.get(COOKIE, ""), self.state.signing_key)
        if token is None:
            raise identity_service.Unauthenticated()
        if method not in ("GET", "HEAD") and not _same_site(headers):
            raise AbruzziError("cross_site", "This request came from another site.", status=403)
        return token


def seal_cookie(token: str, signing_key: bytes) -> str:
    return f"{token}.{hmac.new(signing_key, token.encode(), hashlib.sha256).hexdigest()}"


def open_cookie(value: str, signing_key: bytes) -> str | None:
    token, _, signature = value.rpartition(".")
    expected = hmac.new(signing_key, token.encode(), hashlib.sha256).hexdigest()
    return token if token and hmac.compare_digest(signature.encode(), expected.encode()) else None


def current_identity(request: Request) -> Identity:
    return request.state.identity


def _same_site(headers: Headers) -> bool:
    origin = headers.get("origin")
    if CSRF_HEADER not in headers:
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _limited(receive: Receive) -> Receive:
    """For bodies without a length: cut off at the limit."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise AbruzziError("too_large", f"A body may have {MAX_BODY_BYTES} bytes at most.", status=413)
        return message

    return limited
