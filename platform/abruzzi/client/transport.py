"""HTTP of the SDK: one httpx client, retries with jitter, problem+json turned into AbruzziError."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from abruzzi.client.profile import Profile
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import Problem

M = TypeVar("M", bound=BaseModel)


class Unavailable(AbruzziError):
    """The platform did not answer, or answered 502, 503 or 504."""


class Transport:
    """Every POST carries an Idempotency-Key, so that a retry after a lost answer does nothing twice."""

    def __init__(self, profile: Profile, *, timeout_seconds: float = 30.0, retry_seconds: float = 30.0) -> None:
        self.profile = profile
        self.retry_seconds = retry_seconds
        self.http = httpx.Client(
            base_url=f"{profile.url}/api/v1/",
            headers={"Authorization": f"Bearer {profile.token}", "Accept": "application/json"},
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
        )

    def close(self) -> None:
        self.http.close()

    def get(self, model: type[M], path: str, **query: Any) -> M:
        return _parse(model, self.request("GET", path, params=_plain(query)))

    def post(self, model: type[M], path: str, body: dict[str, Any] | None = None) -> M:
        return _parse(model, self.request("POST", path, json=body or {}))

    def put(self, model: type[M], path: str, body: dict[str, Any]) -> M:
        return _parse(model, self.request("PUT", path, json=body))

    def delete(self, path: str, **query: Any) -> None:
        self.request("DELETE", path, params=_plain(query))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call, repeated while the platform is away, for `retry_seconds` at most."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        for attempt in Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.2, max=3.0),
            stop=stop_after_delay(self.retry_seconds),
            reraise=True,
        ):
            with attempt:
                return self._once(method, path, headers=headers, **options)
        raise AssertionError("tenacity either returns or raises")

    def pages(self, item: type[M], path: str, **query: Any) -> Iterator[M]:
        """Items of a keyset-paged list, page by page as they are asked for."""
        cursor: str | None = None
        while True:
            answer = self.request("GET", path, params=_plain({**query, "cursor": cursor})).json()
            for raw in answer["items"]:
                yield item.model_validate(raw)
            cursor = answer.get("next_cursor")
            if cursor is None:
                return

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self.http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unavailable(
                "unreachable",
                f"{self.profile.url} does not answer ({type(error).__name__}).",
                status=503,
                hint="Is `abruzzi up` running? `abruzzi doctor` looks at every part.",
            ) from error
        raise_problem(response)
        return response


def raise_problem(response: httpx.Response) -> None:
    """Raise what a problem+json answer says; its body must have been read."""
    if response.is_success:
        return
    kind = Unavailable if response.status_code in (502, 503, 504) else AbruzziError
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        text = response.text[:200].strip()
        raise kind(
            "http_error", f"{response.request.url} answered {response.status_code}: {text}", status=response.status_code
        ) from None
    raise kind(
        problem.code,
        problem.detail or problem.title,
        status=problem.status,
        hint=problem.hint,
        errors=problem.errors,
        trace_id=problem.trace_id,
    )


def _parse(model: type[M], response: httpx.Response) -> M:
    return model.model_validate_json(response.content)


def _plain(query: dict[str, Any]) -> dict[str, Any]:
    """Without the absent ones; lists become repeated keys."""
    return {k: v for k, v in query.items() if v is not None}
