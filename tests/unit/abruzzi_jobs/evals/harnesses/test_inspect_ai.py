"""inspect-ai's own evaluator, over a task of a local file, against an endpoint and a checkpoint of ours by its model API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Behaviour, chat_server, said
from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, tool

CHOICES = ("yes", "no")


def task(items: Path, **more: Any) -> Task:
    def read(row: dict[str, Any]) -> Sample:
        return Sample(input=row["question"], target=row["choices"][row["answer"]].strip())

    return Task(dataset=json_dataset(str(items), read), scorer=match(), **more)


async def run(given: Task, model: Any, folder: Path) -> Any:
    (log,) = await eval_async(given, model=model, log_dir=str(folder), log_samples=True)
    assert log.status == "success", log.error
    return log


async def test_a_task_is_asked_of_an_endpoint_and_scored_by_its_own_scorer(items: Path, tmp_path: Path) -> None:
    async with chat_server(said("yes")) as server:
        model = get_model("abruzzi/real-1", base_url=server.url, memoize=False)
        log = await run(task(items, config=GenerateConfig(max_tokens=7, temperature=0.5)), model, tmp_path)
        model.api.close()
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(2 / 3)
    assert sorted(request["messages"][-1]["content"] for request in server.requests) == [
        f"Question {n}:" for n in range(3)
    ]
    assert {(request["model"], request["max_tokens"], request["temperature"]) for request in server.requests} == {
        ("real-1", 7, 0.5)
    }
    assert log.stats.model_usage["abruzzi/real-1"].total_tokens == 30


@tool
def add() -> Tool:
    async def execute(x: int, y: int) -> str:
        """Adds two numbers.

        Args:
            x: The first.
            y: The second.
        """
        return str(x + y)

    return execute


async def test_calls_of_tools_go_both_ways(items: Path, tmp_path: Path) -> None:
    def answer(asked: dict[str, Any]) -> bytes:
        last = asked["messages"][-1]
        if last["role"] == "tool":
            return said(f"yes, {last['content']}").body
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": json.dumps({"x": 2, "y": 3})}}
        return said("", tool_calls=[call]).body

    async with chat_server(Behaviour(answers=answer)) as server:
        model = get_model("abruzzi/real-1", base_url=server.url, memoize=False)
        given = task(items, solver=[use_tools(add()), generate()])
        log = await run(given, model, tmp_path)
        model.api.close()
    declared = server.requests[0]["tools"][0]["function"]
    assert (declared["name"], set(declared["parameters"]["properties"])) == ("add", {"x", "y"})
    assert {sample.output.completion for sample in log.samples} == {"yes, 5"}


async def test_a_checkpoint_is_served_for_the_task(checkpoint: Any) -> None:
    model = get_model("abruzzi/tiny", memoize=False, **checkpoint)
    found = await model.generate([ChatMessageUser(content="Question 1:")], config=GenerateConfig(max_tokens=4, seed=3))
    model.api.close()
    assert found.usage.output_tokens <= 4
    assert found.choices[0].stop_reason in ("stop", "max_tokens")
