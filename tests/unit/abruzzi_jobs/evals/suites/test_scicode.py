from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.evaluation import Item
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Usage
from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.evals.suites.scicode import LEFT_OUT


def test_a_problem_tells_the_owners_solution_from_functions_that_do_nothing() -> None:
    suite = open_suite("scicode")
    short = [item for item in suite.items() if len(item.gold) == 1]
    assert len(short) == 5
    assert wrong(suite, short[:2]) == []


def test_solution_and_answer_draw_the_same_random_numbers_also_where_only_the_first_test_sets_their_seed() -> None:
    code = "def draw():\n    return np.random.random()"
    tests = ["np.random.seed(1)\nassert draw() == target", "assert draw() == target"]
    item = Item(id="1", prompt="Draw.", gold=[code], meta={"dependencies": "import numpy as np", "tests": [tests]})
    assert verdict(open_suite("scicode"), item, json.dumps([code])).score == 1.0


def test_what_is_asked_are_14_problems_in_39_steps() -> None:
    items = list(open_suite("scicode").items())
    assert (len(items), sum(len(item.gold) for item in items)) == (14, 39)
    assert not {item.id for item in items} & set(LEFT_OUT)


@pytest.mark.prove
@pytest.mark.parametrize("number", range(14))
def test_every_problem_tells_gold_from_perturbed(number: int) -> None:
    suite = open_suite("scicode")
    assert wrong(suite, islice(suite.items(), number, number + 1)) == []


def test_a_problem_is_solved_by_all_of_its_steps_and_each_counts_in_the_parts() -> None:
    suite = open_suite("scicode")
    item = next(item for item in suite.items() if item.id == "19")
    gold, nothing = json.loads(suite.gold_answer(item)), json.loads(suite.perturbed_answer(item))
    found = verdict(suite, item, json.dumps([gold[0], nothing[1]]))
    assert (found.score, found.parts) == (0.0, {"steps": 0.5})
    assert found.reason


async def test_each_step_is_asked_with_the_code_of_those_before_it() -> None:
    suite = open_suite("scicode")
    item = next(item for item in suite.items() if item.id == "19")
    asked: list[str] = []

    async def ask(request: ChatRequest) -> ChatResponse:
        asked.append(request.messages[-1]["content"])
        text = f"So:\n```python\nimport os\ndef step{len(asked)}():\n    pass\n```"
        return ChatResponse(text=text, usage=Usage(1, 1), model="m", generator="m", is_llm=True)

    transcript: Any = await suite.play(item, ask, {})
    codes = json.loads(transcript.answer)
    assert len(asked) == len(codes) == 2
    assert "def step1" in asked[1]
    assert "import os" not in codes[0]
    assert item.meta["headers"][1] in asked[1]
