"""Requests that nobody would write: generated from the API's own description, sent to a real server. It may refuse; it may not break."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from api_server import ApiServer, serve
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from abruzzi_api.openapi import describe

ENDLESS = "/stream"
"""Server-sent events do not end; test_api_requests.py reads them."""
EXAMPLES = 10
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DESCRIPTION = json.loads(describe())
_BOUNDS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
OPERATIONS = [
    (method.upper(), path)
    for path, methods in DESCRIPTION["paths"].items()
    for method in methods
    if not path.endswith(ENDLESS)
]
ATTEMPT_OPERATIONS = [(method, path) for method, path in OPERATIONS if path.startswith("/api/v1/attempts/")]


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with serve(shared_database.url("app"), shared_database.url("superuser"), folder) as made:
        yield made


@pytest.fixture(scope="module")
def real(server: ApiServer) -> dict[str, str]:
    """Ids of things that exist, so that generated requests get past the first look-up; and the attempt's own token."""
    run_id, attempt_id = server.run_with_attempt()
    return {
        "run_id": run_id,
        "attempt_id": attempt_id,
        "artifact_id": server.artifact(run_id),
        "token": server.token_of(attempt_id),
    }


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_admin_who_sends_anything_gets_an_answer_of_the_described_shape(
    server: ApiServer, real: dict[str, str], method: str, path: str
) -> None:
    assert _fuzz(server, method, path, server.admin, real) > 0


@pytest.mark.parametrize(("method", "path"), ATTEMPT_OPERATIONS)
def test_a_stage_that_reports_anything_gets_an_answer_of_the_described_shape(
    server: ApiServer, real: dict[str, str], method: str, path: str
) -> None:
    assert _fuzz(server, method, path, real["token"], real) > 0


def _fuzz(server: ApiServer, method: str, path: str, token: str, real: dict[str, str]) -> int:
    """How many requests were sent and answered as described. The same every time, so that a red test is red again; every second one names
    things that exist."""
    schema = schemathesis.openapi.from_dict(DESCRIPTION)
    schema.config.update(base_url=server.url)
    operation = schema[path][method]
    headers = {"Authorization": f"Bearer {token}"}
    sent = 0

    def check(case: schemathesis.Case) -> None:
        nonlocal sent
        sent += 1
        if sent % 2:
            case.path_parameters.update({name: real[name] for name in case.path_parameters if name in real})
        case.validate_response(case.call(headers=headers, timeout=120), checks=CHECKS)

    for mode in GenerationMode:
        run = _BOUNDS(given(case=operation.as_strategy(generation_mode=mode))(lambda case: check(case)))
        # An operation without parameters, or with any text as the only one, has no wrong request.
        with contextlib.suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
            run()
    return sent
