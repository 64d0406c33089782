"""Environments of others as ours, ours as theirs. Against the real `openenv` package: bench/environments.py."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from planted_gyms import played
from ports import free_port
from served_lab import kill_service_at_random_points

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Status
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.adapters.openenv_server import OpenEnvServer
from abruzzi_jobs.rl.environments.answers import as_assistant
from abruzzi_jobs.rl.rewards import RewardPool

PATIENT_SECONDS = 120.0


async def test_a_gymnasium_environment_is_played_in_words() -> None:
    pytest.importorskip("gymnasium")
    lake = {"arguments": {"is_slippery": False, "render_mode": "ansi"}}
    found = gym("gymnasium", lake)
    task = found.task(0, 0)
    session = found.session()
    begin = await session.reset(task, 0)
    assert "numbers 0 to 3" in begin.messages[0]["content"]
    assert "SFFF" in begin.messages[1]["content"].replace("\x1b[41m", "").replace("\x1b[0m", "")
    assert "no action" in (await session.step(as_assistant("north"))).observation.messages[0]["content"]
    await session.close()
    down, right = as_assistant("I go 1"), as_assistant("2")
    won = await played(found, task, [down, down, right, right, down, right])
    assert (won.reward, won.components["steps"]) == (1.0, 6.0)
    assert (await played(found, task, [right, down])).reward == 0.0
    cut = await session_ending(gym("gymnasium", {**lake, "turns": 2}))
    assert cut == (False, True)


async def session_ending(found) -> tuple[bool, bool]:
    session = found.session()
    await session.reset(found.task(0, 0), 0)
    await session.step(as_assistant("0"))
    result = await session.step(as_assistant("0"))
    await session.close()
    return result.terminated, result.truncated


def test_an_unknown_gymnasium_environment_is_refused_at_once() -> None:
    pytest.importorskip("gymnasium")
    with pytest.raises(AbruzziError, match="NoSuchLake-v1") as caught:
        gym("gymnasium", {"id": "NoSuchLake-v1"})
    assert caught.value.code == "bad_options"


async def test_a_served_environment_gives_the_reward_of_our_own() -> None:
    arithmetic = gym("arithmetic")
    async with RewardPool(workers=1, deadline_seconds=PATIENT_SECONDS) as pool:
        server = OpenEnvServer(arithmetic, pool=pool)
        async with server.listening() as url:
            served = gym("openenv", {"url": url})
            task = served.task(0, 0)
            session = served.session()
            begin = await session.reset(task, 0)
            theirs = arithmetic.task(task.data["seed"], 0)
            assert begin.messages == ({"role": "user", "content": theirs.data["prompt"]},)
            assert server.sessions == 1
            await session.close()
            right = await played(served, task, arithmetic.solution(theirs))
            assert (right.status, right.reward, right.version) == (Status.OK, 1.0, "arithmetic@1")
            assert (await played(served, task, [as_assistant("no")])).reward == 0.0
            held_out = served.task(0, 0, split="held_out")
            session = served.session()
            begin = await session.reset(held_out, 0)
            assert arithmetic.is_held_out({"prompt": begin.messages[0]["content"]})
            await session.close()


async def test_tools_and_their_answers_travel() -> None:
    tools = gym("tools", {"tools": 2})
    pool = RewardPool(workers=1, deadline_seconds=PATIENT_SECONDS)
    async with pool, OpenEnvServer(tools, pool=pool).listening() as url:
        served = gym("openenv", {"url": url})
        task = served.task(3, 0)
        theirs = tools.task(task.data["seed"], 0)
        said = [m for m in tools.solution(theirs) if m["role"] == "assistant"]
        assert (await played(served, task, said)).reward == 1.0


async def _asked(ws: aiohttp.ClientWebSocketResponse, text: str) -> dict:
    await ws.send_str(text)
    return await ws.receive_json(timeout=PATIENT_SECONDS)


async def test_the_wire_is_openenvs_with_its_errors() -> None:
    server = OpenEnvServer(gym("arithmetic"), max_sessions=1)
    async with server.listening() as url, aiohttp.ClientSession() as http:
        assert await (await http.get(f"{url}/health")).json() == {"status": "healthy"}
        async with http.ws_connect(f"{url}/ws") as ws:
            for text, code in (
                ("{", "INVALID_JSON"),
                ("[]", "INVALID_JSON"),
                ('{"type": "dance"}', "UNKNOWN_TYPE"),
                ('{"type": "step", "data": {"content": "1"}}', "EXECUTION_ERROR"),
                ('{"type": "reset", "data": {"task": {}}}', "VALIDATION_ERROR"),
                ('{"type": "reset", "data": {"family": "additon"}}', "EXECUTION_ERROR"),
            ):
                said = await _asked(ws, text)
                assert (said["type"], said["data"]["code"]) == ("error", code), said
            begun = await _asked(ws, json.dumps({"type": "reset", "data": {"seed": 5, "episode_id": "e"}}))
            assert begun["type"] == "observation"
            assert (begun["data"]["reward"], begun["data"]["done"]) == (None, False)
            state = await _asked(ws, '{"type": "state"}')
            assert state == {"type": "state", "data": {"episode_id": "e", "step_count": 0}}
            async with http.ws_connect(f"{url}/ws") as second:
                full = await second.receive_json(timeout=PATIENT_SECONDS)
                assert full["data"]["code"] == "CAPACITY_REACHED"
            ended = await _asked(ws, '{"type": "step", "data": {"content": "1"}}')
            assert (ended["data"]["done"], ended["data"]["reward"]) == (True, None)
            await ws.send_str('{"type": "close"}')
            assert (await ws.receive(timeout=PATIENT_SECONDS)).type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            )


async def test_a_service_that_is_not_there_or_breaks_off_says_so() -> None:
    server = OpenEnvServer(gym("arithmetic"))
    async with server.listening() as url:
        served = gym("openenv", {"url": url, "patience_seconds": 0.0})
        session = served.session()
        await session.reset(served.task(0, 0), 0)
    with pytest.raises(AbruzziError, match=r"127\.0\.0\.1") as caught:
        await session.step(as_assistant("1"))
    assert caught.value.code == "environment_unreachable"
    other = served.session()
    with pytest.raises(AbruzziError) as caught:
        await other.reset(served.task(0, 0), 0)
    assert caught.value.code == "environment_unreachable"
    await asyncio.gather(other.close(), session.close())
    with pytest.raises(RuntimeError, match="reset"):
        await session.step(as_assistant("1"))


async def test_a_session_is_played_again_by_a_service_that_comes_back_and_refuses_another_in_its_place() -> None:
    tools, port = gym("tools", {"tools": 2}), free_port()
    served = gym("openenv", {"url": f"http://127.0.0.1:{port}", "patience_seconds": PATIENT_SECONDS})
    task = served.task(3, 0)
    said = [m for m in tools.solution(tools.task(task.data["seed"], 0)) if m["role"] == "assistant"]
    session, other = served.session(), served.session()
    async with OpenEnvServer(tools).listening(port=port):
        for begun in (session, other):
            await begun.reset(task, 0)
        first = await session.step(said[0])
    going_on = asyncio.create_task(session.step(said[1]))
    async with OpenEnvServer(tools).listening(port=port):
        assert (await going_on).terminated
        whole = served.session()
        await whole.reset(task, 0)
        assert await whole.step(said[0]) == first
        await asyncio.gather(whole.close(), session.close())
    async with OpenEnvServer(gym("arithmetic")).listening(port=port):
        with pytest.raises(AbruzziError, match="something else than before") as caught:
            await other.step(said[0])
    assert caught.value.code == "environment_differs"
    await other.close()


async def test_a_service_killed_at_random_points_costs_no_episode_and_counts_none_twice() -> None:
    found = await kill_service_at_random_points(kills=3, seed=0)
    assert (found.kills, found.lost, found.twice, found.rewards) == (3, 0, 0, {1.0}), found


@pytest.mark.prove
async def test_a_service_killed_two_hundred_times_costs_no_episode() -> None:
    found = await kill_service_at_random_points(kills=200, seed=1)
    assert (found.kills, found.lost, found.twice, found.rewards) == (200, 0, 0, {1.0}), found
