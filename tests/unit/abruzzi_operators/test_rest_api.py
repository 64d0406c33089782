"""One call at a time: what is repeated, what is waited for, what is told; streams are in test_reflector.py."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import cast
from urllib.parse import parse_qs

import httpx
import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import ApiError, Denied, Invalid, NotServed, Throttled, Unreachable
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, NODES, PODS
from abruzzi_operators.kubernetes.rest_api import RestApi

Handler = Callable[[httpx.Request], httpx.Response]
BODY = CONFIG_MAPS.new("one", "default", data={})


class StubAccess:
    """Answers come from a function; each reload gives the next token."""

    server, may_block, tls_version = "https://apiserver", False, 0
    extensions: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.reloads = 0
        self.clients = 0
        self.requests: list[httpx.Request] = []

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer token-{self.reloads}"}

    def reload(self) -> None:
        self.reloads += 1

    def client(self) -> httpx.AsyncClient:
        self.clients += 1

        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return self._handler(request)

        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=self.server)


def api_over(*answers: httpx.Response | Exception, patience_seconds: float = 5.0) -> tuple[RestApi, StubAccess]:
    """Gives these answers, one after the other, the last for ever."""
    left = list(answers)

    def handler(request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    access = StubAccess(handler)
    return RestApi(cast(Access, access), patience_seconds=patience_seconds, rng=random.Random(0)), access


def status(code: int, reason: str = "", message: str = "because") -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "code": code, "reason": reason, "message": message})


GOOD = httpx.Response(200, json=BODY)
BROKEN = httpx.RemoteProtocolError("Server disconnected")


async def test_a_refused_token_is_renewed_once_and_the_call_goes_through() -> None:
    api, access = api_over(status(401, "Unauthorized"), GOOD)
    assert await api.create(CONFIG_MAPS, BODY) == BODY
    assert [request.headers["Authorization"] for request in access.requests] == ["Bearer token-0", "Bearer token-1"]


async def test_a_token_that_stays_refused_is_told() -> None:
    api, access = api_over(status(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(Denied, match="401"):
        await api.get(CONFIG_MAPS, "one", namespace="default")
    assert (access.reloads, len(access.requests)) == (1, 2)


async def test_a_renewed_client_certificate_is_used_for_new_connections() -> None:
    api, access = api_over(status(401, "Unauthorized"), GOOD)
    renew = access.reload

    def reload() -> None:
        renew()
        access.tls_version += 1

    access.reload = reload  # type: ignore[method-assign]
    assert await api.get(CONFIG_MAPS, "one", namespace="default") == BODY
    assert access.clients == 2
    await api.close()


async def test_credentials_that_can_not_be_read_are_denied_access_and_not_a_crash() -> None:
    api, access = api_over(status(401, "Unauthorized"))

    def fail() -> None:
        raise AbruzziError("no_cluster_access", "No access to a cluster from kubeconfig x: it is empty.")

    access.reload = fail  # type: ignore[method-assign]
    with pytest.raises(Denied, match="it is empty"):
        await api.get(CONFIG_MAPS, "one", namespace="default")


@pytest.mark.parametrize("code", [429, 503])
async def test_an_apiserver_that_asks_for_time_gets_it_also_for_a_write(code: int) -> None:
    busy = httpx.Response(
        code, headers={"Retry-After": "0"}, json={"kind": "Status", "code": code, "message": "too many requests"}
    )
    api, access = api_over(busy, busy, GOOD)
    assert await api.create(CONFIG_MAPS, BODY) == BODY
    assert len(access.requests) == 3


async def test_patience_ends() -> None:
    busy = httpx.Response(
        429, headers={"Retry-After": "60"}, json={"kind": "Status", "code": 429, "message": "too many requests"}
    )
    api, access = api_over(busy)
    with pytest.raises(Throttled, match="too many requests") as told:
        await api.create(CONFIG_MAPS, BODY)
    assert told.value.retry_after_seconds == 60
    assert len(access.requests) == 1


async def test_a_read_over_a_connection_that_breaks_is_repeated() -> None:
    api, access = api_over(BROKEN, BROKEN, GOOD)
    assert await api.get(CONFIG_MAPS, "one", namespace="default") == BODY
    assert len(access.requests) == 3


@pytest.mark.parametrize("verb", ["create", "apply", "patch", "delete"])
async def test_a_write_without_an_answer_is_never_repeated_by_itself(verb: str) -> None:
    api, access = api_over(BROKEN)
    calls = {
        "create": lambda: api.create(CONFIG_MAPS, BODY),
        "apply": lambda: api.apply(CONFIG_MAPS, BODY),
        "patch": lambda: api.patch(CONFIG_MAPS, "one", {}, namespace="default"),
        "delete": lambda: api.delete(CONFIG_MAPS, "one", namespace="default"),
    }
    with pytest.raises(Unreachable, match=r"configmaps default/one.*https://apiserver.*Server disconnected"):
        await calls[verb]()
    assert len(access.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (status(422, "Invalid", "spec.x: Required value"), Invalid, "spec.x: Required value"),
        (status(403, "Forbidden", "User x cannot create"), Denied, "cannot create"),
        (httpx.Response(404, text="404 page not found\n"), NotServed, "doctor"),
        (httpx.Response(502, text="<html>bad gateway</html>"), Unreachable, "bad gateway"),
        (httpx.Response(500, text=""), Unreachable, "empty answer"),
        (httpx.Response(200, text="<html>sign in</html>"), Unreachable, "no JSON"),
        (status(418, "Teapot"), ApiError, "Teapot"),
    ],
)
async def test_an_error_keeps_the_servers_words(answer: httpx.Response, error: type[ApiError], words: str) -> None:
    api, _ = api_over(answer)
    with pytest.raises(error, match=words) as told:
        await api.create(CONFIG_MAPS, BODY)
    assert "create configmaps default/one" in str(told.value)


async def test_writes_are_strict_and_under_our_name() -> None:
    api, access = api_over(GOOD)
    await api.create(CONFIG_MAPS, BODY, dry_run=True)
    await api.apply(CONFIG_MAPS, BODY)
    create, apply = (parse_qs(request.url.query.decode()) for request in access.requests)
    assert create == {"fieldManager": ["abruzzi"], "fieldValidation": ["Strict"], "dryRun": ["All"]}
    assert apply == {"fieldManager": ["abruzzi"], "fieldValidation": ["Strict"], "force": ["true"]}
    assert access.requests[1].headers["Content-Type"] == "application/apply-patch+yaml"


async def test_only_answered_calls_are_counted() -> None:
    api, _ = api_over(GOOD, GOOD, status(409, "AlreadyExists"))
    await api.create(CONFIG_MAPS, BODY)
    await api.get(CONFIG_MAPS, "one", namespace="default")
    with pytest.raises(ApiError):
        await api.create(CONFIG_MAPS, BODY)
    assert dict(api.calls) == {("create", "configmaps"): 1, ("get", "configmaps"): 1}


async def test_deletion_names_object_grace_and_propagation() -> None:
    api, access = api_over(GOOD)
    await api.delete(PODS, "one", namespace="default", uid="u-1", grace_seconds=0, propagation="Foreground")
    assert json.loads(access.requests[0].content) == {
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u-1"},
    }  # fmt: skip


async def test_a_namespace_that_is_missing_or_senseless_never_reaches_the_server() -> None:
    api, access = api_over(GOOD)
    with pytest.raises(ValueError, match="which namespace"):
        await api.get(PODS, "one")
    with pytest.raises(ValueError, match="no namespaces"):
        await api.get(NODES, "one", namespace="default")
    assert access.requests == []


async def test_names_are_quoted_in_paths() -> None:
    api, access = api_over(GOOD)
    await api.get(PODS, "../../secrets/x", namespace="default")
    assert access.requests[0].url.raw_path == b"/api/v1/namespaces/default/pods/..%2F..%2Fsecrets%2Fx"
