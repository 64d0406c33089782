"""A box held by a pod that a service of the cluster gives (contracts/sandbox.py): `ABRUZZI_SANDBOXES_URL` says where, the attempt's token that we may."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import SANDBOXES_PATH, SandboxIn, SandboxOut
from abruzzi.contracts.stage import ENV_SANDBOXES_URL, ENV_SECRET_DIR, ENV_TOKEN

_SCRIPT = Path(__file__).with_name("pod_box.py")
_TAKE_SECONDS = 300.0
"""Where the warm ones are taken, a pod has to start."""
_PULL_SECONDS = 1500.0
"""Its image has to come first."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The service is the cluster's own, whatever proxies lead out of it."""


def absent() -> str:
    """Why there are none here; empty where a service is named."""
    return "" if os.environ.get(ENV_SANDBOXES_URL) else f"{ENV_SANDBOXES_URL} is not set"


def command(plan: dict[str, Any], image_has: frozenset[str], wanted: SandboxIn) -> list[str]:
    """Takes a sandbox: the command has to be run soon, or it goes back. Folders of `readable` but those in `image_has` are sent along.

    Raises AbruzziError `no_sandbox`, `image_refused` with the service's own reason."""
    url = os.environ[ENV_SANDBOXES_URL].rstrip("/") + SANDBOXES_PATH
    headers = {"Authorization": f"Bearer {_token()}", "Content-Type": "application/json"}
    asked = urllib.request.Request(url, wanted.model_dump_json().encode(), method="POST", headers=headers)
    try:
        with _DIRECT.open(asked, timeout=_PULL_SECONDS if wanted.image else _TAKE_SECONDS) as answer:
            taken = SandboxOut.model_validate_json(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode("utf-8", "replace").strip()
        if error.code in (403, 422):
            raise AbruzziError("image_refused", said, status=error.code) from error
        raise AbruzziError("no_sandbox", f"The service of sandboxes gives none: {said}", status=503) from error
    except (OSError, ValueError) as error:
        raise AbruzziError(
            "no_sandbox",
            f"The service of sandboxes at {url} does not answer: {error}",
            status=503,
            hint="Its Deployment and the stages' NetworkPolicy come with sandboxes.enabled of the chart.",
        ) from error
    readable = [path for path in plan["readable"] if path not in image_has]
    plan = {**plan, "readable": readable, "python": sys.executable, "url": f"{url}/{taken.id}"}
    return [sys.executable, "-I", "-S", str(_SCRIPT), json.dumps(plan)]


def _token() -> str:
    """A worker of Ray on another node has the Secret's file alone."""
    secret = os.environ.get(ENV_SECRET_DIR)
    path = os.environ.get(ENV_TOKEN) or (secret and f"{secret}/token")
    try:
        return Path(path or "/nowhere").read_text().strip()
    except OSError as error:
        raise AbruzziError(
            "no_sandbox", f"{ENV_TOKEN} names no file with the attempt's token: {error}", status=503
        ) from error
