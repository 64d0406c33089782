"""An endpoint of a recipe, ready to be asked: an address, and a server behind it where it is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import (
    CheckpointEndpoint,
    EndpointBase,
    OpenAiEndpoint,
    SmolLm2Endpoint,
    StandInEndpoint,
)
from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.endpoint import Address
from abruzzi_jobs.chat.keys import read_key
from abruzzi_jobs.chat.servers import smollm2
from abruzzi_jobs.chat.servers.child import child_server
from abruzzi_jobs.chat.servers.standin import STANDIN_MODEL, Script, serve_standin

SERVE_MODULE = "abruzzi_jobs.serve.server"
"""By name: it imports torch."""


@asynccontextmanager
async def start_endpoint(
    name: str,
    endpoint: EndpointBase,
    *,
    folders: Mapping[str, Path],
    logs: Path | None = None,
    script: Script | None = None,
) -> AsyncIterator[Address]:
    """`folders`: `<name>.checkpoint` and `<name>.tokenizer` of an endpoint that serves a checkpoint."""
    log = logs / f"endpoint-{name}.log" if logs else None
    if isinstance(endpoint, OpenAiEndpoint):
        key = read_key(endpoint.api_key) if endpoint.api_key else None
        yield Address(base_url=endpoint.base_url, model=endpoint.model, key=key)
    elif isinstance(endpoint, StandInEndpoint):
        async with serve_standin(endpoint, script=script) as (url, key):
            yield Address(base_url=url, model=STANDIN_MODEL, key=key, is_ours=True)
    elif isinstance(endpoint, SmolLm2Endpoint):
        settings = smollm2.settings_of(endpoint)
        async with child_server(name, smollm2.__name__, settings, log=log) as child:
            yield _address(child, smollm2.MODEL)
    elif isinstance(endpoint, CheckpointEndpoint):
        settings = {key: str(_folder(name, key, folders)) for key in ("checkpoint", "tokenizer")} | {
            "threads": endpoint.threads,
            "yarn": endpoint.yarn.model_dump() if endpoint.yarn else None,
        }
        async with child_server(name, SERVE_MODULE, settings, log=log) as child:
            yield _address(child, name)
    else:
        raise TypeError(f"no server for {endpoint!r}")


def _address(child: Any, model: str) -> Address:
    return Address(base_url=f"{child.url}/v1", model=model, key=child.key, is_ours=True, why_down=child.why_down)


def _folder(name: str, key: str, folders: Mapping[str, Path]) -> Path:
    folder = folders.get(f"{name}.{key}")
    if folder is None:
        raise AbruzziError(
            "missing_input",
            f"Endpoint {name!r} serves a {key} that this stage was not given.",
            hint="A stage gets it as an input when its roles name the endpoint in the recipe.",
        )
    return folder
