"""The Secret of an attempt: its spec, its token, its credentials of the object store, as files for the launcher."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.kubernetes.resources import SECRETS, Object
from abruzzi_operators.renderers.names import attempt_labels, object_name
from abruzzi_operators.renderers.pod import SECRET_CREDENTIALS, SECRET_SPEC, SECRET_TOKEN

MakeCredentials = Callable[[StageSpec], Awaitable[str | None]]
"""Text of credentials.json (abruzzi.store.sessions.to_json), or None for a store that needs none."""


def secret(spec: StageSpec, namespace: str, *, token: str, credentials: str | None) -> Object:
    data = {SECRET_SPEC: spec.model_dump_json(), SECRET_TOKEN: token}
    if credentials is not None:
        data[SECRET_CREDENTIALS] = credentials
    made = SECRETS.new(object_name(spec), namespace, type="Opaque", data={k: encoded(v) for k, v in data.items()})
    made["metadata"]["labels"] = attempt_labels(spec)
    return made


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(thing: Object, key: str) -> str | None:
    data: Mapping[str, str] = thing.get("data") or {}
    return base64.b64decode(data[key]).decode() if key in data else None
