"""One endpoint: calls over HTTP, as many at a time and a minute as it allows, tried again where that may help."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from abruzzi.contracts.endpoint import EndpointBase
from abruzzi_jobs.chat.embeddings import EmbeddingRequest, Embeddings, read_embeddings, tokens_of
from abruzzi_jobs.chat.failures import (
    CallRejected,
    ChatFailure,
    EndpointFailed,
    EndpointRefused,
    EndpointUnavailable,
    Fate,
    TryFailed,
)
from abruzzi_jobs.chat.limits import Rate
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse
from abruzzi_jobs.chat.wire import estimated_tokens, failure_of_status, read_completion

CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
REFUSED_IN_A_ROW = 16
"""Questions, none ever answered, after which it is not the questions."""
_READ_BYTES = 1 << 16

Q = TypeVar("Q", ChatRequest, EmbeddingRequest)
A = TypeVar("A", ChatResponse, Embeddings)


@dataclass(frozen=True)
class Question(Generic[Q, A]):
    """A sort of question: what is appended to base_url, how its answer is read, and how many tokens it may need."""

    path: str
    read: Callable[[bytes, Q, str], A]
    tokens: Callable[[Q], int]
    restore: Callable[[Mapping[str, Any], str], A]
    """An answer out of a record: (its response, the call's id)."""


CHAT = Question[ChatRequest, ChatResponse](
    "chat/completions",
    lambda content, request, model: read_completion(content, request, model=model),
    estimated_tokens,
    lambda found, call_id: ChatResponse.from_dict(found, call_id=call_id),
)
EMBEDDINGS = Question[EmbeddingRequest, Embeddings](
    "embeddings",
    lambda content, request, model: read_embeddings(content, request, model=model),
    tokens_of,
    lambda found, call_id: Embeddings.from_dict(found, call_id=call_id),
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an endpoint is. `key` is in no repr."""

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    is_ours: bool = False
    """Served beside the stage: asked without a proxy, and told the role."""
    why_down: Callable[[], str | None] = lambda: None
    """Of a server of ours that has ended: a sentence that says so."""


class EndpointClient:
    """All calls of this process to one endpoint. `session` is shared by all endpoints."""

    def __init__(
        self,
        name: str,
        address: Address,
        limits: EndpointBase,
        session: aiohttp.ClientSession,
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.name = name
        self.address = address
        self.limits = limits
        self._session = session
        self._headers = {"Content-Type": "application/json"}
        if address.key is not None:
            self._headers["Authorization"] = f"Bearer {address.key}"
        self._key = address.key.encode() if address.key else None
        self._proxy = None if address.is_ours else _proxy_for(address.base_url)
        self._timeout = aiohttp.ClientTimeout(total=limits.timeout, sock_connect=CONNECT_SECONDS)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._requests = Rate(limits.requests_per_minute)
        self._tokens = Rate(limits.tokens_per_minute)
        self._first_pause = first_pause_seconds
        self._answered_at = float("-inf")
        self._refused = 0
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(limits.max_tries),
            wait=self._pause,
            retry=retry_if_exception(lambda e: isinstance(e, TryFailed) and e.fate is Fate.RETRY),
            reraise=True,
        )

    async def ask(
        self, question: Question[Q, A], request: Q, body: bytes, *, role: str, tell_retry: Callable[[str], None]
    ) -> A:
        """The answer to `body`, which is `request` with model and seed. `tell_retry` is called with the reason of each try that failed and
        is made again. Raises a ChatFailure."""
        started = time.monotonic()
        tries, spent, failed_at = 0, 0.0, float("inf")

        async def attempt() -> A:
            nonlocal tries, spent, failed_at
            tries += 1
            try:
                async with self._slots:
                    need = question.tokens(request) if self.limits.tokens_per_minute else 0
                    await self._requests.take()
                    await self._tokens.take(need)
                    began = time.monotonic()
                    try:
                        response = await self._try(question, request, body, role)
                    finally:
                        spent += time.monotonic() - began
                    self._tokens.give_back(need - response.usage.total if need else 0)
                    return response
            except TryFailed as failed:
                failed_at = min(failed_at, time.monotonic())
                if failed.fate is Fate.RETRY and tries < self.limits.max_tries:
                    tell_retry(failed.reason)
                if failed.retry_after:
                    self._requests.pause(failed.retry_after)
                raise

        try:
            response = await self._retrying(attempt)
        except TryFailed as failed:
            # That it was away or overloaded says nothing of the question: others must have been answered since, not only before that began.
            since = failed_at if failed.reason in ("unavailable", "rate_limited") else started
            raise self._failure(failed, since, tries) from None
        self._answered_at, self._refused = time.monotonic(), 0
        return replace(response, seconds=spent, tries=tries)

    async def _try(self, question: Question[Q, A], request: Q, body: bytes, role: str) -> A:
        headers = {**self._headers, "X-Abruzzi-Role": role} if self.address.is_ours else self._headers
        url = f"{self.address.base_url}/{question.path}"
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=self._timeout, proxy=self._proxy, allow_redirects=False
            ) as response:
                content = await self._read(response)
                status, received = response.status, response.headers
        except aiohttp.ConnectionTimeoutError as error:
            raise TryFailed("unavailable", f"no connection within {CONNECT_SECONDS:g} s", Fate.RETRY) from error
        except TimeoutError as error:
            raise TryFailed("timeout", f"no answer within {self.limits.timeout:g} s", Fate.RETRY) from error
        except aiohttp.ClientPayloadError as error:
            raise TryFailed("truncated", "the connection broke off within its answer", Fate.RETRY) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TryFailed("unavailable", self._clean(_sentence(error)), Fate.RETRY) from error
        if self._key is not None and self._key in content:
            content = content.replace(self._key, b"[key]")  # some servers quote it in their errors
        if status != 200:
            raise failure_of_status(status, received, content, now=datetime.now(UTC))
        return question.read(content, request, self.address.model)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self.limits.max_answer_bytes
        if response.content_length is not None and response.content_length <= limit:
            return await response.read()
        chunks: list[bytes] = []
        size = response.content_length or 0
        if size <= limit:
            size = 0
            async for chunk in response.content.iter_chunked(_READ_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    break
        if size > limit:
            response.close()
            raise TryFailed("too_long", f"its answer is longer than {limit:,} bytes", Fate.REJECT)
        return b"".join(chunks)

    def _pause(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else twice as long each time; with jitter, so that calls that failed
        together do not come back together."""
        failed = state.outcome.exception() if state.outcome else None
        longest = min(self._first_pause * 2 ** (state.attempt_number - 1), LONGEST_PAUSE_SECONDS)
        pause = random.uniform(longest / 2, longest)
        return pause + (failed.retry_after or 0.0) if isinstance(failed, TryFailed) else pause

    def _failure(self, failed: TryFailed, since: float, tries: int) -> ChatFailure:
        """Of a call whose last try was `failed`. Where others were answered `since` then it is this question; else it is the endpoint."""
        if failed.fate is Fate.STOP:
            return EndpointRefused(self.name, f"{failed.message}.", failed.hint)
        if failed.fate is Fate.REJECT:
            self._refused += failed.reason == "refused"
            if self._answered_at == float("-inf") and self._refused >= REFUSED_IN_A_ROW:
                return EndpointRefused(
                    self.name,
                    f"{self._refused} questions, none answered; the last time {failed.message}.",
                    "What it objects to is in its own words above.",
                )
            return CallRejected(failed.reason, f"Endpoint {self.name!r}: {failed.message}.")
        times = f"in {tries} {'try' if tries == 1 else 'tries'}: {failed.message}"
        if self._answered_at >= since:
            return CallRejected(failed.reason, f"Endpoint {self.name!r} did not answer this question {times}.")
        if failed.reason in ("garbage", "truncated"):
            return EndpointFailed(self.name, f"no usable answer {times}.")
        why = self.address.why_down()
        return EndpointUnavailable(self.name, f"no answer {times}.{f' {why}' if why else ''}")

    def _clean(self, sentence: str) -> str:
        return sentence.replace(self.address.key, "[key]") if self.address.key else sentence


def _sentence(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"[:300]
    text = " ".join(str(error).split())
    return f"{text or type(error).__name__}"[:300]


def _proxy_for(url: str) -> str | None:
    """As the environment says (HTTPS_PROXY, NO_PROXY)."""
    parts = urlsplit(url)
    if parts.hostname in ("localhost", "127.0.0.1", "::1") or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)
