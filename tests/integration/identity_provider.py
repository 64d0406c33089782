"""An OpenID Connect provider as a process of its own would be one: discovery, sign-in form, codes, keys."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own use of an older part of Authlib
    from oidc_provider_mock import User, run_server_in_thread

PEOPLE = [
    User(sub="ada", claims={"email": "ada@example.org", "groups": ["operators"]}),
    User(sub="bob", claims={"email": "bob@example.org", "groups": ["research"]}),
    User(sub="eve", claims={"email": "eve@example.org", "groups": ["visitors"]}),
    User(sub="tom", claims={"email": "tom@example.org", "groups": ["homeless"]}),
]
GRANTS = [
    {"group": "operators", "role": "admin"},
    {"group": "research", "project": "research", "role": "member"},
    {"group": "homeless", "project": "nowhere", "role": "member"},
]


@dataclass
class IdentityProvider:
    issuer: str

    def settings(self, **changes: object) -> dict[str, str]:
        """Of the API that trusts it, by their names in the environment."""
        oidc = {"issuer": self.issuer, "client_id": "abruzzi", "name": "Example ID", "grants": GRANTS, **changes}
        return {"ABRUZZI_OIDC": json.dumps(oidc), "ABRUZZI_OIDC_CLIENT_SECRET": "s3cret-of-the-client"}


@contextmanager
def provide() -> Iterator[IdentityProvider]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with run_server_in_thread(require_nonce=True, user_claims=PEOPLE) as server:
        yield IdentityProvider(f"http://localhost:{server.server_port}")
