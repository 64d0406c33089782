"""The log of calls: cache, resume, budgets, records, and that no key is ever in it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chat_server import chat_server, failed, said

from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig, StandInEndpoint
from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import DirectoryStore
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.failures import BudgetReached, CallRejected
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.data.text_shards import zstd_lines

KEY = "sk-do-not-tell-anybody"


def ask(text: str = "How are you?", **more) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **more)


def log_in(folder: Path, writer: str = "run-stage-1") -> CallLog:
    return CallLog(DirectoryStore(folder), "p/calls/", writer=writer)


@asynccontextmanager
async def roles_at(url: str, log: CallLog | None = None, seed: int = 0, endpoint: dict | None = None, **settings):
    teacher = OpenAiEndpoint(kind="openai", base_url=url, model="m", max_tries=2, **(endpoint or {}))
    config = RoleConfig(endpoint="teacher", **settings)
    async with open_roles(
        {ChatRole.JUDGE: config, ChatRole.USER: config},
        {"teacher": teacher},
        log=log,
        seed=seed,
        first_pause_seconds=0.01,
    ) as roles:
        yield roles


def lines_of(folder: Path, name: str) -> list[dict]:
    with (folder / name).open("rb") as file:
        return [json.loads(line) for line in zstd_lines(file)]


async def test_the_same_question_is_asked_once_also_by_a_later_attempt(tmp_path: Path) -> None:
    async with chat_server(said("one"), said("two"), said("three"), said("four"), said("five")) as server:
        async with roles_at(server.url, log_in(tmp_path)) as roles:
            answers = [await roles["judge"].complete(ask()) for _ in range(2)]
            assert [a.text for a in answers] == ["one", "one"]
            assert [a.is_cached for a in answers] == [False, True]
            assert (await roles["user"].complete(ask())).text == "two"  # another role
            assert (await roles["judge"].complete(ask(sample=1))).text == "three"
        async with roles_at(server.url, log_in(tmp_path, "run-stage-2")) as roles:
            again = await roles["judge"].complete(ask())
            assert (again.text, again.is_cached, again.call_id) == ("one", True, answers[0].call_id)
            assert roles["judge"].account.calls == 2  # what the earlier attempt spent counts
            assert roles["judge"].account.cache_hits == 1
        async with roles_at(server.url, log_in(tmp_path, "run-stage-3"), seed=1) as roles:
            assert (await roles["judge"].complete(ask())).text == "four"  # another seed
        async with roles_at(server.url, log_in(tmp_path, "run-stage-4"), temperature=0.5) as roles:
            assert (await roles["judge"].complete(ask())).text == "five"  # another setting
    seeds = [request["seed"] for request in server.requests]
    assert len(set(seeds)) == 5
    assert server.requests[4]["temperature"] == 0.5


async def test_a_question_that_several_ask_at_once_is_asked_once(tmp_path: Path) -> None:
    answer = said("one")
    answer.wait = 0.05
    async with chat_server(answer) as server, roles_at(server.url, log_in(tmp_path)) as roles:
        answers = await asyncio.gather(*(roles["judge"].complete(ask()) for _ in range(5)))
    assert len(server.requests) == 1
    assert {a.text for a in answers} == {"one"}


async def test_what_waited_for_a_question_that_failed_asks_it_itself(tmp_path: Path) -> None:
    refused = failed("400 Bad Request")
    refused.wait = 0.05
    async with chat_server(refused, said("now")) as server, roles_at(server.url, log_in(tmp_path)) as roles:
        found = await asyncio.gather(*(roles["judge"].complete(ask()) for _ in range(2)), return_exceptions=True)
    assert isinstance(found[0], CallRejected)
    assert found[1].text == "now"


async def test_budget_stops_new_calls_and_keeps_what_is_there(tmp_path: Path) -> None:
    async with chat_server(said("yes")) as server:  # 10 tokens a call
        async with roles_at(server.url, log_in(tmp_path), budget_tokens=25) as roles:
            for number in range(3):
                await roles["judge"].complete(ask(str(number)))
            with pytest.raises(BudgetReached, match="30 of its 25 tokens") as raised:
                await roles["judge"].complete(ask("another"))
            assert "budget_tokens" in str(raised.value)
            assert (await roles["judge"].complete(ask("1"))).is_cached  # costs nothing
            await roles["user"].complete(ask("each role has its own"))
        async with roles_at(server.url, log_in(tmp_path, "run-stage-2"), budget_tokens=25) as roles:
            with pytest.raises(BudgetReached):
                await roles["judge"].complete(ask("another"))
        async with roles_at(server.url, log_in(tmp_path, "run-stage-3"), budget_calls=3) as roles:
            with pytest.raises(BudgetReached, match="3 of its 3 calls"):
                await roles["judge"].complete(ask("another"))
    assert len(server.requests) == 4


async def test_records_hold_questions_answers_and_costs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
    probable = {
        "choices": [
            {
                "message": {"content": None, "tool_calls": [call]},
                "finish_reason": "tool_calls",
                "logprobs": {"content": [{"token": "a", "logprob": -0.5}]},
            }
        ]
    }
    odd = said()
    odd.body = json.dumps(probable).encode()
    behaviours = failed("500 Oh"), odd, failed("400 Bad Request", "no")
    async with chat_server(*behaviours) as server, roles_at(server.url, log_in(tmp_path)) as roles:
        answer = await roles["judge"].complete(ask("caf\u00e9", tools=[tool], logprobs=2, max_tokens=9))
        with pytest.raises(CallRejected):
            await roles["judge"].complete(ask("bad"))
        metrics = roles.metrics()
        described = await roles.write_calls(out)
    assert answer.tool_calls[0].parsed() == {"at": "x"}
    assert answer.message()["tool_calls"] == [call]
    assert answer.logprobs == [{"token": "a", "logprob": -0.5}]
    assert answer.usage.is_estimated
    first, second = lines_of(out, "calls-00000.jsonl.zst")
    assert first["request"]["messages"] == [{"role": "user", "content": "café"}]
    assert first["request"]["top_logprobs"] == 2
    assert first["request"] == server.requests[1]
    assert first["retries"] == ["unavailable"]
    assert first["response"]["tool_calls"] == [["c1", "look", '{"at": "x"}']]
    assert second["rejected"]["reason"] == "refused"
    assert (described["shards"][0]["records"], described["roles"]["judge"]["teacher"]) == (2, "llm")
    assert described["roles"]["judge"]["retries"] == {"unavailable": 1}
    assert json.loads((out / "calls.json").read_text()) == described
    assert metrics["chat/judge/calls"] == metrics["chat/judge/rejected"] == metrics["chat/judge/retries"] == 1


async def test_a_damaged_segment_is_passed_over_and_asked_again(tmp_path: Path) -> None:
    async with chat_server(said("one"), said("two")) as server:
        async with roles_at(server.url, log_in(tmp_path)) as roles:
            await roles["judge"].complete(ask())
        (segment,) = (tmp_path / "p/calls").iterdir()
        segment.write_bytes(segment.read_bytes()[:-6])
        async with roles_at(server.url, log_in(tmp_path)) as roles:
            assert (await roles["judge"].complete(ask())).text == "two"
    assert len(list((tmp_path / "p/calls").iterdir())) == 2


async def test_a_full_disk_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    log = CallLog(DirectoryStore(tmp_path), "p/calls/", writer="w", flush_seconds=0.01)

    async def fill_the_disk() -> None:
        async with chat_server(said()) as server, roles_at(server.url, log) as roles:
            monkeypatch.setattr(DirectoryStore, "put_if_absent", full)
            for number in range(10_000):
                await roles["judge"].complete(ask(str(number)))
                await asyncio.sleep(0.01)

    with pytest.raises(OSError, match="No space"):
        await fill_the_disk()


async def test_no_key_in_errors_records_or_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ABRUZZI_SECRET_TEACHER_KEY", KEY)
    out = tmp_path / "out"
    out.mkdir()
    endpoint = {"api_key": "secret:teacher-key"}
    told = []
    async with (
        chat_server(said(f"your key is {KEY}"), failed("400 Bad", f"{KEY} asked"), failed("401 No", KEY)) as server,
        roles_at(server.url, log_in(tmp_path), endpoint=endpoint) as roles,
    ):
        told.append((await roles["judge"].complete(ask("a"))).text)
        for question in "bc":
            with pytest.raises(AbruzziError) as raised:
                await roles["judge"].complete(ask(question))
            told.append(f"{raised.value} {raised.value.facts} {raised.getrepr()}")
        await roles.write_calls(out)
        told.append(repr(roles["judge"].endpoint.address))
    assert all(f"Bearer {KEY}" in head for head in server.headers)
    told += [caplog.text, *(line for path in out.iterdir() for line in [str(path.read_bytes())])]
    told += [json.dumps(record) for record in lines_of(out, "calls-00000.jsonl.zst")]
    assert not [text for text in told if KEY in text]


async def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ABRUZZI_SECRETS", str(tmp_path))
    with pytest.raises(AbruzziError, match=r"ABRUZZI_SECRET_TEACHER_KEY nor the file .*/teacher-key"):
        async with roles_at("http://127.0.0.1:9/v1", endpoint={"api_key": "secret:teacher-key"}):
            pass
    (tmp_path / "teacher-key").write_text(f"{KEY}\n")
    key = {"api_key": "secret:teacher-key"}
    async with chat_server(said()) as server, roles_at(server.url, endpoint=key) as roles:
        await roles["judge"].complete(ask())
    assert f"Bearer {KEY}\r" in server.headers[0]


async def test_a_role_is_not_played_by_a_model_and_by_the_standin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    config = {ChatRole.JUDGE: RoleConfig(endpoint="x")}
    async with chat_server(said()) as server:
        for endpoint in (
            OpenAiEndpoint(kind="openai", base_url=server.url, model="m"),
            StandInEndpoint(kind="standin"),
        ):
            async with open_roles(config, {"x": endpoint}, log=log_in(tmp_path)) as roles:
                await roles["judge"].complete(ask())
        async with open_roles(config, {"x": endpoint}, log=log_in(tmp_path)) as roles:
            with pytest.raises(AbruzziError, match=r"'standin-rule-v1' does not belong .* teacher: llm"):
                await roles.write_calls(out)


async def test_after_kill_9_finished_answers_are_kept(tmp_path: Path) -> None:
    """A process that asks without end is killed; the next one asks only what has no answer yet."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig
        from abruzzi.store.objects import DirectoryStore
        from abruzzi_jobs.chat.calls import CallLog
        from abruzzi_jobs.chat.request import ChatRequest
        from abruzzi_jobs.chat.roles import open_roles

        async def main(url, folder, questions):
            log = CallLog(DirectoryStore(Path(folder)), "p/calls/", writer="run-stage-1")
            teacher = OpenAiEndpoint(kind="openai", base_url=url, model="m")
            async with open_roles({ChatRole.JUDGE: RoleConfig(endpoint="t")}, {"t": teacher}, log=log) as roles:
                for number in range(int(questions)):
                    ask = ChatRequest(messages=[{"role": "user", "content": str(number)}])
                    print(number, (await roles["judge"].complete(ask)).is_cached, flush=True)

        asyncio.run(main(*sys.argv[1:]))
        """
    )
    answer = said()
    answer.wait = 0.005
    async with chat_server(answer) as server:

        async def run(questions: int) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, server.url, str(tmp_path), str(questions), stdout=subprocess.PIPE
            )

        first = await run(1_000_000)
        while not list(tmp_path.glob("p/calls/*.zst")):
            assert first.returncode is None
            await asyncio.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        asked = len(server.requests)
        kept = sum(len(lines_of(path.parent, path.name)) for path in tmp_path.glob("p/calls/*.zst"))
        assert 0 < kept <= asked
        second = await run(asked)
        said_by_second, _ = await second.communicate()
    cached = [line.split()[1] == "True" for line in said_by_second.decode().splitlines()]
    assert cached == [True] * kept + [False] * (asked - kept)
