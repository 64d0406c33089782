"""`Api` over HTTPS: one pool of connections, one pass of each stream. What survives what is said at each method; for ever goes the reflector.

- 401: credentials are read again, once a call (token rotation).
- 429, and 503 with Retry-After: the server did nothing yet; the call waits as asked, up to its patience. Every verb.
- no answer: reads are repeated twice. A write is not: its effect is unknown, the caller repeats it by the same name.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Self

import httpx

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.kubernetes.access import CONNECT_TIMEOUT_SECONDS, Access
from abruzzi_operators.kubernetes.api import FIELD_MANAGER, PAGE_SIZE, Event, Page, PatchKind, Propagation
from abruzzi_operators.kubernetes.errors import (
    ApiError,
    Denied,
    Expired,
    Throttled,
    Unreachable,
    error_from_answer,
    error_from_status,
)
from abruzzi_operators.kubernetes.resources import PODS, Object, Resource

CALL_TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 30.0
"""How long a call waits in all when the server asks it to come later."""
READ_REPEATS = 2
REPEAT_SECONDS = 0.2
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""etcd takes objects up to 1.5 MB by default; a line beyond this is no event."""
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}
_APPLY = "application/apply-patch+yaml"  # JSON is YAML


class RestApi:
    """Implements abruzzi_operators.kubernetes.api.Api. Use it as an async context manager, or `close` it."""

    def __init__(
        self, access: Access, *, patience_seconds: float = PATIENCE_SECONDS, rng: random.Random | None = None
    ) -> None:
        self._access = access
        self._client = access.client()
        self._tls_version = access.tls_version
        self._retired: list[httpx.AsyncClient] = []
        self._patience_seconds = patience_seconds
        self._rng = rng or random.Random()
        self._agent = f"abruzzi/{version('abruzzi-operators')}"
        self.calls: Counter[tuple[str, str]] = Counter()
        """Answered calls by verb and resource (`create`, `pods`), for metrics and for the budget of writes."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        for client in (self._client, *self._retired):
            await client.aclose()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        return await self._json(
            "get", resource, resource.path(name, namespace=namespace), f"get {_at(resource, name, namespace)}"
        )

    async def page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
        continue_token: str = "",
        resource_version: str = "",
    ) -> Page:
        query = _given(labelSelector=label_selector, fieldSelector=field_selector)
        query |= _given(limit=str(limit) if limit else "", **{"continue": continue_token})
        if resource_version and not continue_token:
            query |= {"resourceVersion": resource_version, "resourceVersionMatch": "Exact"}
        doing = f"list {_at(resource, '', namespace)}"
        answer = await self._json("list", resource, resource.path(namespace=namespace), doing, query=query)
        metadata = answer.get("metadata") or {}
        return Page(answer.get("items") or [], metadata.get("resourceVersion", ""), metadata.get("continue") or "")

    async def list(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = "", field_selector: str = ""
    ) -> Sequence[Object]:
        """A list that outlives its continue token is begun again, in one piece."""
        try:
            return await self._all_pages(resource, namespace, label_selector, field_selector, PAGE_SIZE)
        except Expired:
            return await self._all_pages(resource, namespace, label_selector, field_selector, 0)

    async def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object:
        name, namespace = body["metadata"].get("name", ""), body["metadata"].get("namespace")
        path, doing = resource.path(namespace=namespace), f"create {_at(resource, name, namespace)}"
        return await self._json(
            "create", resource, path, doing, method="POST", body=body, query=_write(dry_run=dry_run)
        )

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        name, namespace = body["metadata"]["name"], body["metadata"].get("namespace")
        path = resource.path(name, namespace=namespace, subresource=subresource)
        query = _write(dry_run=dry_run, force="true" if force else "false")
        doing = f"apply {_at(resource, name, namespace)}"
        return await self._json(
            "apply", resource, path, doing, method="PATCH", body=body, query=query, content_type=_APPLY
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str | None = None,
    ) -> Object:
        path = resource.path(name, namespace=namespace, subresource=subresource)
        doing = f"patch {_at(resource, name, namespace)}"
        return await self._json(
            "patch", resource, path, doing, method="PATCH", body=patch, query=_write(), content_type=_PATCH_TYPES[kind]
        )  # fmt: skip

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        path, doing = resource.path(name, namespace=namespace), f"delete {_at(resource, name, namespace)}"
        await self._json("delete", resource, path, doing, method="DELETE", body=options)

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
        read_timeout_seconds: float = 90.0,
    ) -> AsyncIterator[Event]:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version}
        query |= {"timeoutSeconds": str(timeout_seconds)}
        query |= _given(labelSelector=label_selector, fieldSelector=field_selector)
        doing = f"watch {_at(resource, '', namespace)}"
        timeout = httpx.Timeout(CALL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS, read=read_timeout_seconds)
        response = await self._answer(
            "GET", resource.path(namespace=namespace), doing, query, timeout=timeout, stream=True
        )
        self.calls["watch", resource.plural] += 1
        try:
            yield Event("OPENED", {"metadata": {"resourceVersion": resource_version}})
            rest = b""
            async for chunk in response.aiter_raw():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _event(line, doing)
                if len(rest) > MAX_EVENT_BYTES:
                    raise Unreachable(f"{doing}: a line of more than {MAX_EVENT_BYTES} bytes.", reason="NotAnEvent")
            if rest:
                raise Unreachable(f"{doing}: the stream ended inside an event.", reason="Truncated")
        except httpx.TransportError as error:
            raise _unreachable(error, doing, self._access) from error
        finally:
            await response.aclose()

    async def read_log(self, namespace: str, pod: str, *, container: str | None = None) -> bytes:
        query = _given(container=container or "")
        path, doing = (
            PODS.path(pod, namespace=namespace, subresource="log"),
            f"read the log of {_at(PODS, pod, namespace)}",
        )
        response = await self._answer("GET", path, doing, query)
        self.calls["log", PODS.plural] += 1
        return response.content

    async def get_path(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "") -> Object:
        response = await self._answer("GET", path, f"get {path}", query, headers={"Accept": accept} if accept else None)
        self.calls["get", path] += 1
        return _decoded(response.content, f"get {path}")

    async def _all_pages(
        self, resource: Resource, namespace: str | None, label_selector: str, field_selector: str, limit: int
    ) -> Sequence[Object]:
        items: list[Object] = []
        token = ""
        while True:
            page = await self.page(
                resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector,
                limit=limit, continue_token=token,
            )  # fmt: skip
            items += page.items
            token = page.continue_token
            if not token:
                return items

    async def _json(
        self,
        verb: str,
        resource: Resource,
        path: str,
        doing: str,
        *,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = None if body is None else {"Content-Type": content_type}
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        response = await self._answer(method, path, doing, query, headers=headers, content=content)
        self.calls[verb, resource.plural] += 1
        return _decoded(response.content, doing)

    async def _answer(
        self,
        method: str,
        path: str,
        doing: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: httpx.Timeout | None = None,
        stream: bool = False,
    ) -> httpx.Response:
        """A good answer (its body unread when `stream`), or an error of errors.py."""
        give_up_at = time.monotonic() + self._patience_seconds
        repeats, credentials_renewed = (READ_REPEATS if method == "GET" and not stream else 0), False
        while True:
            authorization = await self._authorization()
            request = self._client.build_request(
                method, path, params=query, content=content, extensions=dict(self._access.extensions),
                timeout=timeout or httpx.Timeout(CALL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
                headers={
                    "Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": self._agent,
                    **authorization, **(headers or {}),
                },
            )  # fmt: skip
            try:
                response = await self._client.send(request, stream=stream)
                if response.is_success:
                    return response
                failure = await self._failure(response, doing)
            except httpx.TransportError as error:
                if repeats <= 0:
                    raise _unreachable(error, doing, self._access) from error
                repeats -= 1
                await asyncio.sleep(REPEAT_SECONDS * self._rng.random())
                continue
            if failure.http_status == 401 and not credentials_renewed:
                credentials_renewed = True
                await self._renew_credentials(authorization)
                continue
            asked = failure.retry_after_seconds
            if not isinstance(failure, Throttled) and not (failure.http_status == 503 and asked is not None):
                raise failure
            wait = (1.0 if asked is None else asked) * self._rng.uniform(1.0, 1.25)
            if time.monotonic() + wait > give_up_at:
                raise failure
            await asyncio.sleep(wait)

    async def _failure(self, response: httpx.Response, doing: str) -> ApiError:
        try:
            body = await response.aread()
        finally:
            await response.aclose()
        asked = response.headers.get("Retry-After", "")
        seconds = float(asked) if asked.isdigit() else None
        return error_from_answer(response.status_code, body, doing=doing, retry_after_seconds=seconds)

    async def _authorization(self) -> Mapping[str, str]:
        """In a thread where a plugin may have to run. Raises Denied where there are no credentials (a file that is just being written)."""
        try:
            return await asyncio.to_thread(self._access.headers) if self._access.may_block else self._access.headers()
        except AbruzziError as error:
            raise Denied(str(error), reason="NoCredentials") from error

    async def _renew_credentials(self, refused: Mapping[str, str]) -> None:
        if await self._authorization() == refused:  # else another call has renewed them meanwhile
            try:
                await asyncio.to_thread(self._access.reload)
            except AbruzziError as error:
                raise Denied(str(error), http_status=401, reason="NoCredentials") from error
        if self._access.tls_version != self._tls_version:
            self._tls_version = self._access.tls_version
            # The streams of the old one go on until they end, which is long before the next renewal.
            before, self._retired, self._client = self._retired, [self._client], self._access.client()
            for client in before:
                await client.aclose()


def _given(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _write(*, dry_run: bool = False, **more: str) -> dict[str, str]:
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", **more}
    return {**query, "dryRun": "All"} if dry_run else query


def _at(resource: Resource, name: str, namespace: str | None) -> str:
    """For messages: `pytorchjobs.kubeflow.org stages/abruzzi-x`."""
    where = "/".join(part for part in (namespace, name) if part)
    return f"{resource.full_name} {where}".rstrip()


def _decoded(content: bytes, doing: str) -> Object:
    try:
        return json.loads(content)
    except ValueError as error:
        raise Unreachable(f"{doing}: the answer is no JSON ({error}).", reason="NotJson") from error


def _event(line: bytes, doing: str) -> Event:
    try:
        raw = json.loads(line)
        kind, thing = raw["type"], raw["object"]
        if kind != "ERROR":
            return Event(kind, thing)
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{doing}: a line of the stream is no event ({error!r}).", reason="NotAnEvent") from error
    raise error_from_status(thing, doing=doing)


def _unreachable(error: httpx.TransportError, doing: str, access: Access) -> Unreachable:
    reason = type(error).__name__
    return Unreachable(
        f"{doing}: {access.server} did not answer ({reason}: {error}).".replace(": )", ")"), reason=reason
    )
