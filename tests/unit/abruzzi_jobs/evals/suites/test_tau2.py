import asyncio
import json
from itertools import islice

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall, Usage
from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.evals.suites.tau2_arithmetic import calculate
from abruzzi_jobs.evals.suites.tau2_world import DOMAINS, Made, World

SIZES = {"airline": 50, "retail": 114, "telecom": 114}


def of(domain):
    return open_suite("tau2", SuiteConfig(options={"domains": [domain]}))


@pytest.mark.parametrize("domain", ["retail", "telecom"])
def test_the_owners_calls_have_a_reward_of_one_and_none_of_them_zero(domain):
    suite = of(domain)
    assert wrong(suite, islice(suite.items(), 1)) == []


@pytest.mark.prove
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_owners_calls_have_a_reward_of_one_in_all_tasks(domain):
    suite = of(domain)
    items = list(suite.items())
    assert len({item.id for item in items}) == len(items) == SIZES[domain]
    assert [item.id for item in items if verdict(suite, item, suite.gold_answer(item)).score != 1.0] == []


class Scripted:
    def __init__(self, *turns):
        self.turns, self.asked = list(turns), []

    async def complete(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(request)
        said = self.turns.pop(0) if self.turns else "Go on."
        calls = (
            tuple(ToolCall(f"c{n}", call.name, json.dumps(call.arguments)) for n, call in enumerate(said))
            if isinstance(said, list)
            else ()
        )
        text = said if isinstance(said, str) else ""
        return ChatResponse(text=text, tool_calls=calls, usage=Usage(1, 1), model="m", generator="m", is_llm=True)


def played(suite, item, target, user):
    async def both():
        transcript = await suite.play(item, target.complete, {"user": user})
        return transcript, await suite.score(item, transcript, {})

    return asyncio.run(both())


def test_a_customer_with_tools_and_an_agent_play_to_the_end():
    suite = of("telecom")
    item = next(suite.items())
    wanted = World("telecom", item.meta["task"]).wanted()
    own, theirs = ([[call] for call in wanted if call.by == by] for by in ("user", "assistant"))
    user = Scripted("My data does not work.", *own, "It works.", "###STOP###")
    target = Scripted(*theirs, "Please do as I say.", "Good.")
    transcript, found = played(suite, item, target, user)
    assert found.score == 1.0
    assert transcript.state["ended"] == "user"
    assert "<scenario>" in user.asked[0].messages[0]["content"]
    assert "<policy>" in target.asked[0].messages[0]["content"]
    assert {t["function"]["name"] for t in user.asked[0].tools}.isdisjoint(
        t["function"]["name"] for t in target.asked[0].tools
    )
    assert own
    assert sum(message["role"] == "tool" for message in transcript.messages) == len(theirs)


def test_a_conversation_without_end_is_lost():
    suite = of("telecom")
    item = next(suite.items())
    transcript, found = played(suite, item, Scripted(), Scripted())
    assert (found.score, found.reason) == (0.0, "no end after 200 messages")
    assert transcript.state["calls"] == []


def test_sums_are_told_as_the_owners_tool_tells_them_and_nothing_else_is_evaluated():
    world = World("airline", next(of("airline").items()).meta["task"])

    def told(expression):
        return world.call(Made("assistant", "calculate", {"expression": expression}))

    assert [told(text) for text in ("2 + 2", " (10.5 - 3) * 2 / -4", "1 / 3", "7 // 2")] == [
        "4.0",
        "-3.75",
        "0.33",
        "3.0",
    ]
    assert told("1 / 0") == "Error: division by zero"
    assert told("len('a')") == "Error: Invalid characters in expression"
    assert told("2 +") == "Error: invalid syntax (<string>, line 1)"
    assert told("9**9**9**9") == "Error: Invalid expression: it may have numbers, +, -, *, / and parentheses"
    assert {tool["function"]["name"] for tool in world.tools("assistant")} >= {"calculate"}


@pytest.mark.parametrize("expression", ["1" * 501, "...", "(1)(2)", "(" * 250 + ")" * 250])
def test_sums_that_are_none_are_refused_at_once(expression):
    with pytest.raises((ValueError, SyntaxError, RecursionError, MemoryError)):
        calculate(expression)


def test_an_unknown_domain_is_told():
    with pytest.raises(AbruzziError, match="no domain is called 'airlines'"):
        of("airlines")
