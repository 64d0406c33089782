"""Endpoints that misbehave, over real sockets: each fault is tried again, rejects its question, or stops with a clear error."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from chat_server import (
    BROKEN_OFF,
    CUT_JSON,
    GARBAGE,
    NO_COMPLETION,
    OVER_LONG,
    SLOW,
    Behaviour,
    chat_server,
    failed,
    said,
)

from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig
from abruzzi_jobs.chat.failures import (
    CallRejected,
    EndpointFailed,
    EndpointRefused,
    EndpointUnavailable,
    Fate,
    TryFailed,
)
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Usage
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.chat.wire import retry_after

KEY = "sk-do-not-tell-anybody"


def ask(text: str = "How are you?") -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}])


@asynccontextmanager
async def judge(url: str, **limits):
    endpoint = OpenAiEndpoint(kind="openai", base_url=url, model="m", **{"max_tries": 3, "timeout": 30.0, **limits})
    async with open_roles(
        {ChatRole.JUDGE: RoleConfig(endpoint="teacher")}, {"teacher": endpoint}, first_pause_seconds=0.01
    ) as roles:
        yield roles["judge"]


RETRIED = {
    "down": (failed("503 Service Unavailable"), "unavailable"),
    "broken": (failed("500 Internal Server Error"), "unavailable"),
    "overloaded": (failed("429 Too Many Requests"), "rate_limited"),
    "garbage": (GARBAGE, "garbage"),
    "no completion": (NO_COMPLETION, "garbage"),
    "cut JSON": (CUT_JSON, "truncated"),
    "broken off": (BROKEN_OFF, "truncated"),
}


@pytest.mark.parametrize("fault", RETRIED)
async def test_what_may_pass_is_tried_again(fault: str) -> None:
    behaviour, reason = RETRIED[fault]
    async with chat_server(behaviour, behaviour, said("well")) as server, judge(server.url) as role:
        answer = await role.complete(ask())
    assert (answer.text, answer.tries, answer.model, answer.usage.total) == ("well", 3, "real-1", 10)
    assert role.account.retries == {reason: 2}


async def test_slow_is_tried_again() -> None:
    async with chat_server(SLOW, said("well")) as server, judge(server.url, timeout=0.2, max_tries=20) as role:
        assert (await role.complete(ask())).text == "well"
    assert list(role.account.retries) == ["timeout"], "once, or more often where the machine is slow, too"


LASTING = {
    "down": (failed("500 Internal Server Error", "out of memory"), EndpointUnavailable, "out of memory", 503),
    "garbage": (GARBAGE, EndpointFailed, "502 from a proxy", 422),
    "cut JSON": (CUT_JSON, EndpointFailed, "breaks off after 40 bytes", 422),
    "overloaded": (failed("429 Too Many Requests"), EndpointUnavailable, "429", 503),
    "wrong key": (failed("401 Unauthorized", f"Incorrect key {KEY}"), EndpointRefused, "does not take our key", 403),
    "no such model": (failed("404 Not Found", "no model m"), EndpointRefused, "no model m", 403),
    "moved": (failed("302 Found", Location="http://other/"), EndpointRefused, "elsewhere", 403),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_what_lasts_is_a_clear_error(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour, kind, words, status = LASTING[fault]
    monkeypatch.setenv("ABRUZZI_SECRET_TEACHER", KEY)
    async with chat_server(behaviour) as server, judge(server.url, api_key="secret:teacher") as role:
        with pytest.raises(kind, match=words) as raised:
            await role.complete(ask())
        assert len(server.requests) == (1 if kind is EndpointRefused else 3)
    assert raised.value.status == status
    assert "'teacher'" in str(raised.value)
    assert KEY not in str(raised.value)
    assert raised.value.hint


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        async with judge(url) as role:
            with pytest.raises(EndpointUnavailable, match="in 3 tries"):
                await role.complete(ask())


async def test_a_question_that_is_refused_or_answered_without_end_is_rejected_alone() -> None:
    refused = failed("400 Bad Request", "5000 tokens do not fit into 4096")
    async with (
        chat_server(refused, OVER_LONG, said("well")) as server,
        judge(server.url, max_answer_bytes=100_000) as role,
    ):
        for reason, words in (("refused", "do not fit into 4096"), ("too_long", "longer than 100,000 bytes")):
            with pytest.raises(CallRejected, match=words) as raised:
                await role.complete(ask(reason))
            assert raised.value.reason == reason
        assert (await role.complete(ask())).text == "well"
    assert role.account.rejected == {"refused": 1, "too_long": 1}


async def test_one_question_that_never_gets_through_is_rejected_where_others_do() -> None:
    first = replace(CUT_JSON, gate=asyncio.Event())
    async with chat_server(first, said(), CUT_JSON) as server, judge(server.url) as role:
        hard = asyncio.create_task(role.complete(ask("hard")))
        while not server.requests:
            await asyncio.sleep(0.001)
        await role.complete(ask("other"))
        first.gate.set()
        with pytest.raises(CallRejected) as raised:
            await hard
    assert raised.value.reason == "truncated"


@pytest.mark.parametrize(("others_go_on", "end"), [(False, EndpointUnavailable), (True, CallRejected)])
async def test_an_outage_is_the_endpoints_also_for_a_question_beside_which_others_were_answered(
    others_go_on: bool, end: type[Exception]
) -> None:
    """Under concurrency an outage begins while questions are under way; no conversation may be given up for that."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(question: object, request: ChatRequest, body: bytes, role: str) -> ChatResponse:
        if b"other" in body:
            return ChatResponse(text="well", usage=Usage(1, 1), model="m", generator="m", is_llm=True)
        asked.set()
        await answered.wait()
        if others_go_on:
            client._answered_at = time.monotonic() + 1.0
        raise TryFailed("unavailable", "it is gone", Fate.RETRY)

    async with judge("http://127.0.0.1:1/v1") as role:
        client = role.endpoint
        client._try = answer
        hard = asyncio.create_task(role.complete(ask("hard")))
        hard.add_done_callback(lambda _: asked.set())
        await asked.wait()
        await role.complete(ask("other"))
        answered.set()
        with pytest.raises(end, match="it is gone"):
            await hard


async def test_an_endpoint_that_refuses_every_question_is_told_from_bad_questions() -> None:
    async with chat_server(failed("422 Unprocessable", "unknown parameter: seed")) as server, judge(server.url) as role:
        for number in range(15):
            with pytest.raises(CallRejected):
                await role.complete(ask(str(number)))
        with pytest.raises(EndpointRefused, match="unknown parameter: seed"):
            await role.complete(ask("16th"))


async def test_retry_after_holds_for_all_calls() -> None:
    async with chat_server(failed("429 Too Many", Retry_After="1"), said()) as server, judge(server.url) as role:
        first = asyncio.create_task(role.complete(ask("a")))
        while not role.account.retries:  # until its answer is there
            await asyncio.sleep(0.001)
        await asyncio.gather(first, role.complete(ask("b")))
    assert min(server.at[1:]) - server.at[0] >= 0.9


def test_retry_after_is_read_as_number_and_as_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    date = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert [retry_after(v, now) for v in ("2.5", date, "-3", "soon", None, "1e9", "nan")] == [
        2.5,
        90.0,
        0.0,
        None,
        None,
        3600.0,
        None,
    ]


async def test_no_more_calls_at_a_time_than_allowed() -> None:
    slow = said()
    slow.wait = 0.1
    async with chat_server(slow) as server, judge(server.url, concurrency=3) as role:
        await asyncio.gather(*(role.complete(ask(str(number))) for number in range(12)))
    assert server.most_under_way == 3
    assert len(server.requests) == 12


async def test_a_proxy_error_with_status_200_is_no_answer() -> None:
    odd = Behaviour(b'{"error": {"message": "upstream is away"}}')
    async with chat_server(odd) as server, judge(server.url) as role:
        with pytest.raises(EndpointFailed, match="upstream is away"):
            await role.complete(ask())
