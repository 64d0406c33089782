"""What the claims of an OpenID Connect provider are worth here. Pure; the protocol is the API's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.settings import OidcGrant, OidcSettings

_NAME_CHARACTERS = 80
NAME_CLAIMS = ("email", "preferred_username", "name", "sub")


def grant_of(claims: Mapping[str, Any], settings: OidcSettings, *, project: str | None = None) -> OidcGrant:
    """The first grant (of `project`, where one is asked for) whose group the claims have. Raises AbruzziError `sso_no_grant`."""
    groups = groups_of(claims, settings.groups_claim)
    for grant in settings.grants:
        if grant.group in groups and project in (None, grant.project):
            return grant
    where = f" for project {project!r}" if project else ""
    raise AbruzziError(
        "sso_no_grant",
        f"{name_of(claims)} is in no group that gives access{where}.",
        status=403,
        hint="Ask an administrator of the platform, or of the identity provider, to add you to one.",
    )


def groups_of(claims: Mapping[str, Any], path: str) -> Sequence[str]:
    """The claim at a path with dots. A string counts as one group; anything else that is no list counts as none."""
    value: Any = claims
    for key in (path,) if path in claims else path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return [value]
    return [group for group in value if isinstance(group, str)] if isinstance(value, Sequence) else []


def name_of(claims: Mapping[str, Any]) -> str:
    """What people here see. An address counts only when the provider does not say that it is unverified."""
    for key in NAME_CLAIMS:
        value = claims.get(key)
        if isinstance(value, str) and value.isprintable() and value.strip():
            if key == "email" and claims.get("email_verified") is False:
                continue
            return value.strip()[:_NAME_CHARACTERS]
    raise AbruzziError("sso_refused", "The identity provider names nobody.", status=502)
