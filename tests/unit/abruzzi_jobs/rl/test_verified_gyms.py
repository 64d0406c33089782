"""Gyms whose verifiers are programs of others, worlds and sandboxes."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from planted_gyms import played

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.environments import evaluating, gym
from abruzzi_jobs.rl.environments.answers import as_assistant
from abruzzi_jobs.rl.environments.evaluating import Bounds, evaluate
from abruzzi_jobs.sandbox import processes
from abruzzi_jobs.sft.conversation import read_conversation


async def _worth(name: str, task: Any, text: str) -> Any:
    return await played(gym(name), task, [as_assistant(text)])


async def test_mathematics_takes_equal_answers_and_no_wrong_steps() -> None:
    found = gym("mathematics")
    for family in found.families:
        for task in found.tasks(3, 1, family=family):
            assert (await played(found, task, found.solution(task))).reward == 1.0
            assert (await _worth("mathematics", task, f"Answer: {task.data['result']} + 1")).reward == 0.0
    task = found.tasks(0, 1, family="fractions")[0].model_copy(update={"data": {"prompt": "?", "result": "1/2"}})
    for text, reward in (
        (r"So it is \boxed{\frac{2}{4}}.", 1.0),
        ("1/4 + 1/4 = 1/2\nAnswer: 0.5", 1.0),
        ("1 + 1 = 3\nAnswer: 1/2", 0.0),
        ("Answer: 1/3", 0.0),
        ("", 0.0),
    ):
        assert (await _worth("mathematics", task, text)).reward == reward, text


class _Numbers:
    """A dataset of the package's shape: an entry follows from seed and index."""

    def __init__(self, seed: int, add: int) -> None:
        self.seed, self.add = seed, add

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "question": f"{self.seed % 10} + {self.add}?",
            "answer": str(self.seed % 10 + self.add),
            "metadata": {"n": (1,)},
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        if answer == "garbage" or entry["answer"] == "8":
            raise ValueError(f"invalid literal: {answer!r}")
        return 1.0 if answer == entry["answer"] else 0.25 if answer else 0.0


async def test_reasoning_makes_the_same_entry_again_for_its_verifier(monkeypatch) -> None:
    def create_dataset(name: str, *, size: int, seed: int, add: int = 1) -> _Numbers:
        return _Numbers(seed, add)

    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(create_dataset=create_dataset))
    found = gym("reasoning", {"datasets": ["gcd"], "config": {"gcd": {"add": 7}}})
    task = found.task(0, 0, family="arithmetic")
    assert task.data["dataset"] == "gcd"
    assert "+ 7?" in task.data["prompt"]
    assert (await played(found, task, found.solution(task))).reward == 1.0
    assert (await _worth("reasoning", task, "Answer: no")).reward == 0.25
    assert (await _worth("reasoning", task, "")).reward == 0.0
    unreadable = await _worth("reasoning", task, "Answer: garbage")
    assert (unreadable.reward, "cannot read" in unreadable.detail) == (0.0, True)
    broken = task.model_copy(update={"data": {**task.data, "seed": 1}})
    with pytest.raises(ValueError, match="invalid literal"):
        await _worth("reasoning", broken, "Answer: 9")
    with pytest.raises(AbruzziError, match="Did you mean 'gcd'"):
        gym("reasoning", {"datasets": ["gcdd"]})
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(AbruzziError) as caught:
        gym("reasoning")
    assert caught.value.code == "missing_package"


@pytest.mark.prove
async def test_real_reasoning_tasks_are_worth_one_with_their_answers() -> None:
    """With the package beside (`uv pip install reasoning-gym`): its own dependencies would put others of ours back by years."""
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    found = gym("reasoning")
    for family in found.families:
        for task in found.tasks(0, 3, family=family):
            outcome = await played(found, task, found.solution(task))
            assert outcome.reward == 1.0, (task.data["dataset"], outcome)
            assert (await _worth("reasoning", task, "Answer: I do not know")).reward != 1.0


async def test_tools_are_solved_by_the_plan_and_not_by_doing_nothing() -> None:
    found = gym("tools", {"tools": 4})
    for family in found.families:
        for task in found.tasks(0, 2, family=family):
            said = [message for message in found.solution(task) if message["role"] == "assistant"]
            outcome = await played(found, task, said)
            assert outcome.reward == 1.0, outcome
            idle = await played(found, task, [as_assistant("I will see.")] * 20)
            assert idle.reward == 0.0, idle
            row = await found.conversation(task)
            assert row is not None
            assert read_conversation(row).tools
    train = {found.task(0, index).data["source"] for index in range(15)}
    held_out = {found.task(0, index, split="held_out").data["source"] for index in range(15)}
    assert not train & held_out


async def test_half_of_the_work_earns_part_and_harm_earns_nothing() -> None:
    found = gym("tools")
    for task in found.tasks(1, 12, family="complex"):
        said = [message for message in found.solution(task) if message["role"] == "assistant"]
        acting = [m for m in said if m.get("tool_calls")]
        if len(acting) > 2 and not task.data["task"]["is_impossible"]:
            begun = await played(found, task, [*acting[:-1], as_assistant("That is it.")])
            assert begun.reward is not None
            assert begun.reward <= 0.5
            break
    else:
        raise AssertionError("no task of several calls")
    strange = {"id": "functions.fly:0", "type": "function", "function": {"name": "fly", "arguments": "{"}}
    wrong = await played(found, task, [{"role": "assistant", "content": "", "tool_calls": [strange] * 9}] * 3)
    assert wrong.reward is not None
    assert wrong.reward < 0.5


async def test_code_passes_hidden_tests_or_has_no_reward_whatever_it_does() -> None:
    found = gym("coding")
    task = found.task(0, 0, family="digit_sum")
    right = "```python\ndef digit_sum(n):\n    return sum(int(c) for c in str(n))\n```"
    shown_only = "def digit_sum(n):\n    return 4"
    for text, reward in (
        (right, 1.0),
        (shown_only, 0.0),
        ("def digit_sum(n):\n    while True: pass", 0.0),
        ("import os\ndef digit_sum(n):\n    os._exit(0)", 0.0),
        ("import os, signal\ndef digit_sum(n):\n    os.kill(os.getppid(), signal.SIGKILL)", 0.0),
        ("class Equal(int):\n    def __eq__(self, other): return True\ndef digit_sum(n): return Equal(0)", 0.0),
        ("digit_sum = (", 0.0),
        ("", 0.0),
    ):
        outcome = await _worth("coding", task, text)
        assert outcome.reward == reward, (text, outcome)


def test_expressions_cannot_disturb_each_other() -> None:
    files = {"program.py": "seen = []\n", "deep/er.txt": "x"}
    spoil = "seen.append(1) or len(seen)"
    found = evaluate(files, "from program import *", [spoil, spoil, "1 / 0", "open('deep/er.txt').read()"])
    assert found.values == ("1", "1", None, "'x'")
    assert found.fault == "1 / 0 raised ZeroDivisionError"


KILL = "__import__('os').kill(__import__('os').{}(), 9)"


def test_what_the_box_ended_is_told_apart_from_what_the_program_did() -> None:
    for expression, bounds, cut in (
        ("[0 for _ in iter(int, 1)]", Bounds(box_seconds=0.5), "the box's 0.5 seconds ran out"),
        (KILL.format("getpid"), Bounds(), ""),
        (KILL.format("getppid"), Bounds(), ""),
        ("[0 for _ in iter(int, 1)]", Bounds(cpu_seconds=1, wall_seconds=240.0, box_seconds=None), ""),
        ("__import__('os')._exit(0)", Bounds(), ""),
        ("bytearray(2 << 30)", Bounds(), ""),
    ):
        found = evaluate({}, "", [expression, "1"], bounds)
        assert (found.values[0], found.cut) == (None, cut), expression


def test_a_program_that_stops_what_is_to_end_it_is_wrong_unless_the_machine_stood_still(monkeypatch) -> None:
    stops = KILL.format("getppid").replace("9", "19")
    for seconds in (3.0, 30.0, 300.0):  # a busy machine may need the first to get as far
        monkeypatch.setattr(evaluating, "_START_SECONDS", seconds)
        found = evaluate({}, "", [stops], Bounds(wall_seconds=0.1, box_seconds=None))
        if not found.cut:
            break
    assert (found.cut, found.fault) == ("", "the program stopped what was to end it")
    monkeypatch.setattr(evaluating, "_LATE_SECONDS", 0.0)
    found = evaluate({}, "", [stops], Bounds(wall_seconds=0.1, box_seconds=None))
    assert found.cut == f"the box's {seconds + 0.1:g} seconds ran out"


def test_what_was_killed_while_the_machine_ran_out_of_memory_is_cut(monkeypatch) -> None:
    monkeypatch.setattr(processes, "kills_for_memory", itertools.count().__next__)
    for who, cut in (
        ("getpid", "a program was killed with time left"),
        ("getppid", "the box was killed for the machine's memory"),
    ):
        assert evaluate({}, "", [KILL.format(who)]).cut == cut


def test_where_nothing_isolates_there_is_no_coding_and_a_reason(monkeypatch) -> None:
    monkeypatch.setattr(evaluating, "isolators", tuple)
    with pytest.raises(AbruzziError) as caught:
        gym("coding")
    assert (caught.value.code, caught.value.status) == ("no_sandbox", 503)
    assert "user namespaces" in str(caught.value)
