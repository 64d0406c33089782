"""One conversation: what the agent gets wrong it is told, what the world does is in the row, limits end it."""

from __future__ import annotations

import asyncio
import json

import pytest
import trajectory_lab as lab

from abruzzi.contracts.synthesis import FaultRates
from abruzzi_jobs.chat.failures import BudgetReached, CallRejected, EndpointUnavailable
from abruzzi_jobs.synthesis.trajectories.speakers import NativeAgent, PromptedAgent
from abruzzi_jobs.synthesis.world import World, sample_call

TOOLS = lab.world_tools()
READS = next(tool for tool in TOOLS if tool.simulation.operation.kind == "find")
MAKES = next(tool for tool in TOOLS if tool.simulation.operation.kind == "create")


def fitting(tool, number: int = 0) -> dict:
    world = World(tool.simulation.state, seed=number)
    arguments = sample_call(world, tool, number)
    world.close()
    assert arguments is not None
    return arguments


async def row_of(*lines, number: int = 0, **settings):
    agent = lab.Lines(*lines)
    (row,) = await lab.rows_of(lab.engine(agent, **settings), [lab.planned(number, TOOLS)])
    return row, agent


async def test_a_conversation_is_kept_with_its_calls_and_the_world_before_and_after():
    made = fitting(MAKES)
    row, _ = await row_of(lab.use(MAKES.name, made), lab.use(READS.name, fitting(READS)), "It is done.")
    assert (row["fate"], row["ended_by"], row["turns"], row["score"]) == ("kept", "user", 3, 1.0)
    assert [message["role"] for message in row["messages"]] == [
        "system", "user", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    create, find = row["calls"]
    assert (create["ok"], find["ok"], create["is_real"], create["arguments"]) == (True, True, False, made)
    entity = MAKES.simulation.operation.entity
    assert [change["entity"] for change in create["changes"]] == [entity]
    assert len(row["world"]["after"][entity]) == len(row["world"]["before"][entity]) + 1
    assert row["world"]["digest_before"] != row["world"]["digest_after"]
    assert json.loads(row["messages"][3]["content"]) == create["answer"]
    assert (row["generator"], row["is_llm"], row["generators"]) == ("lines", True, {"agent": "lines", "user": "script"})
    assert row["source"] == TOOLS[0].source


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lab.use("no_such_tool", n=1), "unknown_tool"),
        (lab.use(READS.name, '{"limit": '), "bad_arguments"),
        (lab.use(READS.name, "[1, 2]"), "bad_arguments"),
        (lab.use(READS.name, '{"limit": 1e999}'), "bad_arguments"),
        (lab.use(READS.name, '{"limit": "\\ud800"}'), "bad_arguments"),
        (lab.use(READS.name, '{"limit": "many"}'), "invalid_arguments"),
        (lab.use(READS.name, "[" * 100_000), "bad_arguments"),
    ],
)
async def test_a_malformed_call_is_answered_with_an_error_that_the_agent_reads(call, code):
    row, agent = await row_of(call, lab.use(READS.name, fitting(READS)), "It is done.")
    told = json.loads(agent.asked[1][-1]["content"])
    assert told["error"]["code"] == code, told
    assert [record["ok"] for record in row["calls"]] == [False, True]
    assert (row["fate"], row["ended_by"]) == ("kept", "user")


async def test_calls_side_by_side_are_done_in_order_and_answered_each_by_its_id():
    calls = [lab.use(MAKES.name, fitting(MAKES, n)) for n in range(3)] + [lab.use("nothing")]
    row, agent = await row_of(calls, "It is done.", max_calls=2)
    answers = [message for message in agent.asked[1] if message["role"] == "tool"]
    assert [message["tool_call_id"] for message in answers] == ["call_0", "call_1", "call_2", "call_3"]
    numbers = [record["answer"].get(f"{MAKES.simulation.operation.entity}_id") for record in row["calls"][:2]]
    assert numbers == [9, 10], "the world has eight rows each, and these are the next"
    assert [record["answer"]["error"]["code"] for record in row["calls"][2:]] == ["too_many_calls", "too_many_calls"]
    assert row["slips"] == {"too_many_calls": 2}


@pytest.mark.parametrize(
    ("lines", "settings", "ended"),
    [
        ([lab.use(READS.name)], {"max_turns": 3}, "turns"),
        ([lab.use(READS.name)], {"max_tokens": 11}, "tokens"),
        ([" \n"], {}, "empty"),
        ([lab.use(READS.name), CallRejected("refused", "too long")], {}, "agent_refused"),
    ],
)
async def test_a_conversation_that_does_not_come_to_its_end_is_discarded_for_that(lines, settings, ended):
    row, _ = await row_of(*lines, **settings)
    assert (row["fate"], row["ended_by"]) == (ended, ended), row["why"]
    assert row["world"]["after"] is not None


async def test_what_fails_the_rubric_or_scores_too_low_is_discarded():
    must = lab.says("sesame")
    may = lab.says("please").model_copy(update={"id": "polite", "mandatory": False, "weight": 9.0})
    work = [lab.planned(0, TOOLS, rubric=[must, may])]
    said = lab.use(READS.name)
    rows = [
        (await lab.rows_of(lab.engine(lab.Lines(said, words), min_score=0.5), work))[0]
        for words in ("open", "open sesame", "sesame, please")
    ]
    assert [row["fate"] for row in rows] == ["rubric_failed", "low_score", "kept"]
    assert "sesame" in rows[0]["reasons"][0]


async def test_faults_come_by_the_seed_and_are_told_and_recorded():
    faults = FaultRates(unavailable=0.5, rate_limited=0.0, lost_answer=0.0, partial=0.0)
    lines = [*[lab.use(READS.name, fitting(READS))] * 8, "It is done."]
    work = [lab.planned(number, TOOLS, faults=faults) for number in range(3)]
    first, again = [await lab.rows_of(lab.engine(lambda _: lab.Lines(*lines)), work) for _ in range(2)]
    assert first == again
    seen = {tuple(call["fault"] for call in row["calls"]) for row in first}
    assert len(seen) == 3, "another seed, other faults"
    assert {fault for faults in seen for fault in faults} == {None, "unavailable"}


@pytest.mark.parametrize(
    "failure",
    [
        EndpointUnavailable("teacher", "nobody answers."),
        BudgetReached("agent", what="tokens", used=10, budget=10),
    ],
)
async def test_what_ends_all_conversations_is_raised_as_it_is(failure):
    work = [lab.planned(number, TOOLS) for number in range(5)]
    with pytest.raises(type(failure)) as caught:
        await lab.rows_of(lab.engine(lambda _: lab.Lines(lab.use(READS.name), failure)), work)
    assert caught.value is failure


async def test_hundreds_of_conversations_are_under_way_at_a_time():
    most = 0
    under_way = 0
    everybody = asyncio.Event()

    class Waits(lab.Lines):
        async def reply(self, messages, toolbox):
            nonlocal most, under_way
            under_way += 1
            most = max(most, under_way)
            if most == 500:
                everybody.set()
            await everybody.wait()
            under_way -= 1
            return self._say(messages)

    work = [lab.planned(number, TOOLS) for number in range(600)]
    rows = await lab.rows_of(lab.engine(lambda _: Waits(lab.use(READS.name), "Done."), concurrency=500), work)
    assert most == 500
    assert {row["fate"] for row in rows} == {"kept"}


async def test_the_protocols_tools_are_given_as_they_are():
    backend = lab.Lines("hello")
    await lab.rows_of(lab.engine(NativeAgent(backend)), [lab.planned(0, TOOLS)])
    assert backend.asked[0][0] == {"role": "system", "content": "You help."}


async def test_a_model_without_tools_is_told_of_them_and_held_to_a_schema():
    asked = []

    class Small(lab.Lines):
        async def complete(self, request):
            asked.append(request)
            return self._say(request.messages)

    text = json.dumps({"call": READS.name, "with": fitting(READS)})
    backend = Small(text, '{"say": "It is done."}')
    (row,) = await lab.rows_of(lab.engine(PromptedAgent(backend)), [lab.planned(0, TOOLS)])
    assert row["fate"] == "kept", row["why"]
    assert row["messages"][2]["tool_calls"][0]["function"]["name"] == READS.name
    assert row["messages"][-1] == {"role": "assistant", "content": "It is done."}
    first, second = (request.response_format["json_schema"]["schema"]["anyOf"] for request in asked)
    assert (len(first), len(second)) == (len(TOOLS), len(TOOLS) + 1), "it acts first, then it may speak"
    assert READS.name in asked[0].messages[0]["content"]
    assert asked[1].messages[-1]["content"].startswith(f"Result of {READS.name}: ")
