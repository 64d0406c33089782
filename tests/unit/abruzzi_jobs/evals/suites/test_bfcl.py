import asyncio
import json
from itertools import islice

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteConfig
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall, Usage
from abruzzi_jobs.evals.suites import bfcl, bfcl_turns
from abruzzi_jobs.evals.suites.registry import open_suite


def some(name, category, count):
    suite = open_suite(name, SuiteConfig(options={"categories": [category]}))
    return suite, [item for item in islice(suite.items(), count) if suite.gold_answer(item) is not None]


@pytest.mark.parametrize("category", bfcl.CATEGORIES)
def test_gold_calls_score_one_and_others_zero(category):
    suite, items = some("bfcl", category, 40)
    assert items
    assert wrong(suite, items) == []


@pytest.mark.parametrize("category", bfcl_turns.CATEGORIES)
def test_gold_turns_score_one_and_fewer_zero(category):
    suite, items = some("bfcl-turns", category, 8)
    assert len(items) == 8
    assert wrong(suite, items) == []


@pytest.mark.parametrize(("name", "count", "without"), [("bfcl", 3641, bfcl.WITHOUT_GOLD), ("bfcl-turns", 800, set())])
def test_gold_scores_one_and_perturbed_zero_on_all(name, count, without):
    suite = open_suite(name)
    items = list(suite.items())
    assert (len(items), len({item.id for item in items})) == (count, count)
    assert {item.id for item in items if suite.gold_answer(item) is None} == without
    assert wrong(suite, [item for item in items if item.id not in without]) == []


class Scripted:
    """A target that makes the calls of given turns, one step a turn, by the protocol."""

    def __init__(self, turns):
        self.steps = [step for turn in turns for step in (*turn, [])]
        self.asked: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(request)
        calls = tuple(ToolCall(f"c{n}", name, arguments) for n, (name, arguments) in enumerate(self.steps.pop(0)))
        return ChatResponse(text="", tool_calls=calls, usage=Usage(1, 1), model="m", generator="m", is_llm=False)


def test_a_conversation_is_played_with_tools_that_come_when_the_owner_gives_them():
    suite, (item, *_) = some("bfcl-turns", "miss_func", 1)
    turns = bfcl_turns.turns_of(suite.gold_answer(item))
    target = Scripted([[[(c.name, json.dumps(c.arguments)) for c in step] for step in turn] for turn in turns])
    transcript = asyncio.run(suite.play(item, target, {}))
    assert asyncio.run(suite.score(item, transcript, {})).score == 1.0
    offered = [{tool["function"]["name"] for tool in request.tools} for request in target.asked]
    held_back = {name for names in item.meta["held_back"].values() for name in names}
    assert held_back
    assert not held_back & offered[0]
    assert held_back <= offered[-1]


def test_arguments_that_are_no_json_are_told_to_the_target_and_call_nothing():
    suite, (item, *_) = some("bfcl-turns", "base", 1)
    target = Scripted([[[("cd", "{folder")]], *[[] for _ in item.gold[1:]]])
    transcript = asyncio.run(suite.play(item, target, {}))
    said = [message for message in transcript.messages if message["role"] == "tool"]
    assert "no JSON object" in said[0]["content"]
    assert "calls nothing in turn 0" in asyncio.run(suite.score(item, transcript, {})).reason


def test_an_answer_without_tools_is_read_as_a_list_of_calls():
    suite, (item, *_) = some("bfcl", "simple", 1)
    gold = suite.gold_answer(item)
    assert verdict(suite, item, f"Here they are:\n```json\n{gold}\n```").score == 1.0
    assert verdict(suite, item, "[" * 100_000).score == 0.0
    assert verdict(suite, item, "No call is needed.").score == 0.0


def test_names_that_protocols_refuse_are_sent_and_read_back():
    suite, (item, *_) = some("bfcl", "multiple", 1)
    target = Scripted([[[("triangle_properties_get", '{"side1": 5, "side2": 4, "side3": 3}')]]])
    transcript = asyncio.run(suite.play(item, target, {}))
    assert target.asked[0].tools[0]["function"]["name"] == "triangle_properties_get"
    assert asyncio.run(suite.score(item, transcript, {})).score == 1.0


def test_a_power_too_large_to_be_written_is_told_and_one_too_large_to_compute_is_not_computed():
    world = bfcl_turns.World(Item(id="sums", meta={"classes": ["MathAPI"], "config": {}}))
    assert world.call("power", {"base": 2, "exponent": 3}) == '{"result": 8}'
    assert world.call("power", {"base": 10, "exponent": 5000}) == "Error during execution: the result is too large"
    huge = world.call("power", {"base": 10**13, "exponent": 10_000})
    assert huge == "Error during execution: base is beyond 1000000000000"


def test_an_unknown_category_is_told():
    with pytest.raises(AbruzziError, match="no category is called 'simpel'"):
        open_suite("bfcl", SuiteConfig(options={"categories": ["simpel"]}))
