"""Conversations played by other processes: the same rows, the roles asked in one place."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
import trajectory_lab as lab
from synthesis_stage import Stage

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi_jobs.chat.failures import BudgetReached, CallRejected, EndpointUnavailable
from abruzzi_jobs.chat.remote import remote_roles, serve_roles
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.synthesis.trajectories.engine import Engine, Machine, cast_of
from abruzzi_jobs.synthesis.trajectories.ray_players import order_of, play_order

TOOLS = lab.world_tools()
CONFIG = SynthesisConfig(synthetic=1, concurrency=3)


def lines() -> lab.Lines:
    return lab.Lines(lab.use(TOOLS[0].name), "Done.")


async def test_a_part_played_from_its_order_has_the_same_rows():
    work = [lab.planned(number, TOOLS) for number in range(4)]

    class Same(lab.Lines):
        """Its answer depends on the conversation, as an endpoint's does with a seed."""

        async def complete(self, request: ChatRequest):
            calls = any(message["role"] == "tool" for message in request.messages)
            self._said = int(calls)
            return self._say(request.messages)

    backend = Same(lab.use(TOOLS[0].name), "Done.")
    here = await lab.rows_of(Engine(cast_of({"agent": backend}, CONFIG), Machine(), CONFIG), work)
    async with serve_roles({"agent": backend}) as asking:
        order = json.loads(order_of(work, CONFIG.model_copy(update={"faults": lab.NO_FAULTS}), [], asking))
        there = {row["id"]: row for row in await play_order(order)}
    assert [there[row["id"]] for row in here] == here
    assert asking.key not in repr(asking)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (CallRejected("too_long", "it is longer than allowed"), CallRejected),
        (EndpointUnavailable("teacher", "nobody answers."), AbruzziError),
        (BudgetReached("agent", what="tokens", used=5, budget=5), AbruzziError),
    ],
)
async def test_what_goes_wrong_in_one_place_is_told_in_the_other(failure, kind):
    request = ChatRequest(messages=[{"role": "user", "content": "?"}])
    async with serve_roles({"agent": lab.Lines(failure)}) as asking, remote_roles(asking) as roles:
        with pytest.raises(kind) as told:
            await roles["agent"].complete(request)
    assert (told.value.code, told.value.message, told.value.status) == (failure.code, failure.message, failure.status)


async def test_nobody_asks_without_the_key_and_nobody_after_the_end():
    async with serve_roles({"agent": lines()}) as asking, aiohttp.ClientSession() as stranger:
        answer = await stranger.post(asking.url, json={"role": "agent", "request": {"messages": []}})
        assert answer.status == 401
    async with remote_roles(asking) as roles:
        with pytest.raises(AbruzziError) as gone:
            await roles["agent"].complete(ChatRequest(messages=[]))
    assert (gone.value.code, gone.value.status) == ("stage_gone", 503)


@pytest.mark.prove
def test_a_ray_of_this_machine_makes_the_same_rows(tmp_path: Path):
    """Its shortened twin plays an order without Ray."""
    here = Stage(tmp_path / "here", tasks=12)
    here.run()
    there = Stage(tmp_path / "there", tasks=12, resources={"framework": "ray", "threads": 2})
    process = there.start()
    assert process.wait(600) == 0, there.log()
    assert "conversations played on 1 of 1 nodes of Ray" in there.log()
    wanted = {name: content for name, content in here.files("trajectories").items() if name.startswith("trajectories")}
    assert {name: there.files("trajectories")[name] for name in wanted} == wanted
