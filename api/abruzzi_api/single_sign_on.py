"""Sign-in by an OpenID Connect provider: authorization code with PKCE and nonce. Authlib speaks the protocol; here is what is around it.

State, nonce and verifier wait in a signed cookie of their own that only the callback gets and that lives for ten minutes.
"""

from __future__ import annotations

from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from joserfc.errors import JoseError
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import RedirectResponse

from abruzzi.contracts.errors import AbruzziError
from abruzzi.identity.oidc import groups_of
from abruzzi.kit.settings import Settings

PATH = "/api/v1/session/oidc"
_COOKIE = "abruzzi_sign_in"
_COOKIE_SECONDS = 600


class SingleSignOn:
    """Of one provider; its discovery document and keys are fetched when first needed, and keys again when an unknown one signs."""

    def __init__(self, settings: Settings) -> None:
        """Raises SystemExit without ABRUZZI_PUBLIC_URL."""
        assert settings.oidc is not None
        if settings.public_url is None:
            raise SystemExit("ABRUZZI_OIDC needs ABRUZZI_PUBLIC_URL: the provider sends people back to it")
        self.settings = settings.oidc
        self._redirect_uri = settings.public_url.rstrip("/") + PATH + "/callback"
        secret = settings.oidc_client_secret
        issuer = self.settings.issuer.rstrip("/")
        self._client = OAuth().register(
            "provider",
            client_id=self.settings.client_id,
            client_secret=secret.get_secret_value() if secret else None,
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": self.settings.scopes,
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "client_secret_basic" if secret else "none",
                "timeout": 10.0,
            },
        )

    async def begin(self, request: Request) -> RedirectResponse:
        """To the provider. Raises AbruzziError `sso_unreachable`."""
        try:
            await self._check_issuer()
            return await self._client.authorize_redirect(request, self._redirect_uri)
        except _FAILURES as error:
            raise _problem("sso_unreachable", error) from error

    async def finish(self, request: Request) -> dict[str, Any]:
        """Claims of whoever comes back with a code. Raises AbruzziError `sso_refused` when anything does not fit."""
        try:
            await self._check_issuer()
            return await self._claims(request)
        except _FAILURES as error:
            raise _problem("sso_refused", error) from error

    async def _claims(self, request: Request) -> dict[str, Any]:
        options = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
        }
        token = await self._client.authorize_access_token(request, claims_options=options)
        claims = dict(token.get("userinfo") or {})
        if not claims.get("sub"):
            raise ValueError("the identity provider sent no ID token")
        if not groups_of(claims, self.settings.groups_claim):
            told = await self._client.userinfo(token=token)
            if told.get("sub") == claims["sub"]:  # else it speaks of somebody else (OpenID Connect Core 5.3.2)
                claims = {**told, **claims}
        return claims

    async def _check_issuer(self) -> None:
        said, expected = (await self._client.load_server_metadata()).get("issuer"), self.settings.issuer
        if said != expected:
            raise ValueError(
                f"the identity provider calls itself {said!r}, not {expected!r}: spell it so in ABRUZZI_OIDC"
            )


_FAILURES = (AuthlibBaseError, JoseError, httpx2.HTTPError, ValueError)
"""Of the protocol, the token's signature and claims, the way there, and of answers that are no JSON."""


def _problem(code: str, error: Exception) -> AbruzziError:
    return AbruzziError(code, f"{type(error).__name__}: {error}", status=502)


def install(app: FastAPI, settings: Settings) -> None:
    """`app.state.single_sign_on`: None where no provider is configured."""
    app.state.single_sign_on = SingleSignOn(settings) if settings.oidc is not None else None
    if settings.oidc is not None:
        app.add_middleware(
            SessionMiddleware,
            secret_key=f"{settings.require('signing_key')}.sign-in",
            session_cookie=_COOKIE,
            max_age=_COOKIE_SECONDS,
            path=PATH,
            same_site="lax",  # the provider's answer comes from another site
            https_only=(settings.public_url or "").startswith("https://"),
        )


def safe_path(path: str) -> str:
    """A page of ours, or the first one: never an address elsewhere."""
    return path if path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() else "/"
