"""Agents and tasks: many, different, from a seed; each task is solved by its plan, and by nothing less."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from task_play import converse, some_catalogue, some_tasks, some_tools

from abruzzi.contracts.agent import AgentSpec, Task
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.agents import make_agents
from abruzzi_jobs.synthesis.evolution import synthetic_tools
from abruzzi_jobs.synthesis.judge import Played, checks, judged
from abruzzi_jobs.synthesis.judge.checks import numbers, says
from abruzzi_jobs.synthesis.players import MISTAKES, ScriptedAgent, StandinSpeaker, mistaken
from abruzzi_jobs.synthesis.tasks import make_tasks
from abruzzi_jobs.synthesis.tasks.proof import reward
from abruzzi_jobs.synthesis.tasks.real.draw import MAKERS
from abruzzi_jobs.synthesis.user import UserSimulator
from abruzzi_jobs.synthesis.world import Schedule


def score_of(task: Task, episode) -> float:
    return judged(task, checks(task, episode)).score


def test_a_catalogue_gives_more_than_a_thousand_different_agents():
    tools = synthetic_tools()
    agents = make_agents(tools, 1200, seed=3)
    known = {(tool.source, tool.name) for tool in tools}
    assert len({(agent.system_prompt, agent.tools) for agent in agents}) == len({agent.id for agent in agents}) == 1200
    assert all((tool.source, tool.name) in known for agent in agents for tool in agent.tools)
    assert len({agent.tools for agent in agents}) > 900
    assert len({agent.system_prompt for agent in agents}) > 900
    assert all(len({tool.source for tool in agent.tools}) == 1 for agent in agents)


def test_small_agents_are_for_small_models():
    agents = make_agents(some_tools(), 40, tools_at_most=3)
    assert max(len(agent.tools) for agent in agents) == 3
    assert max(len(agent.system_prompt.split()) for agent in agents) <= 60


def test_agents_and_tasks_are_those_of_their_seed():
    assert make_agents(some_tools(), 20, seed=1) == make_agents(some_tools(), 20, seed=1)
    assert make_agents(some_tools(), 20, seed=1) != make_agents(some_tools(), 20, seed=2)
    agents = make_agents(some_tools(), 20)
    told: list[int] = []
    first = make_tasks(agents, some_tools(), 20, 1, tell=lambda done, count: told.append(done))
    again, other = (make_tasks(agents, some_tools(), 20, seed) for seed in (1, 2))
    assert told[-1] == 20
    assert first == again
    assert {task.id for task in first}.isdisjoint(task.id for task in other)


def test_too_little_to_make_them_of_is_said():
    with pytest.raises(AbruzziError, match="different agents"):
        make_agents([], 1)
    with pytest.raises(AbruzziError, match="different tasks"):
        make_tasks([], some_tools(), 1)


def test_tasks_are_of_every_kind():
    tasks = some_tasks()
    assert {task.difficulty for task in tasks} == {"simple", "moderate", "complex"}
    assert {fact.told for task in tasks for fact in task.facts} == {"first", "asked", "after"}
    assert 0.02 < sum(task.is_impossible for task in tasks) / len(tasks) < 0.3
    assert max(len(task.plan) for task in tasks) >= 6
    kinds = Counter(clause.kind for task in tasks for clause in task.rubric)
    assert set(kinds) == {"state", "diff", "call", "answer", "no_error", "judge"}


def test_rubrics_and_agents_survive_json():
    agents = make_agents(some_tools(), 20)
    assert [AgentSpec.model_validate_json(agent.model_dump_json()) for agent in agents] == agents
    assert [Task.model_validate_json(task.model_dump_json()) for task in some_tasks()] == list(some_tasks())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_task_is_solved_by_its_plan_and_not_by_doing_nothing(seed):
    catalogue = some_catalogue()
    for task in some_tasks(40, seed) if seed else some_tasks():
        assert reward(task, catalogue).score == 1.0, task
        assert reward(task, catalogue, plan=(), answer=task.instruction).score == 0.0, task


def test_no_task_is_solved_by_a_plan_that_errs():
    catalogue = some_catalogue()
    for task in some_tasks():
        for kind in MISTAKES:
            plan, answer = mistaken(task, kind, random.Random(0))
            assert reward(task, catalogue, plan=plan, answer=answer).score == 0.0, (kind, task)


def test_no_task_is_solved_where_one_call_more_changes_something():
    catalogue, spoilt = some_catalogue(), 0
    for task in some_tasks():
        deletes = [
            t for (source, name), t in catalogue.items() if source == task.ground.source and name.startswith("create_")
        ]
        required = deletes[0].input_schema["properties"]
        texts = {"string": "x", "integer": 1, "boolean": True}
        arguments = {
            name: schema.get(
                "enum",
                [
                    "2026-01-01"
                    if "pattern" in schema
                    else max(schema.get("minimum", 0), 1)
                    if schema["type"] == "integer"
                    else texts[schema["type"]]
                ],
            )[0]
            for name, schema in required.items()
        }
        more = task.plan[0].model_copy(
            update={"tool": task.plan[0].tool.model_copy(update={"name": deletes[0].name}), "arguments": arguments}
        )
        verdict = reward(task, catalogue, plan=(*task.plan, more))
        assert verdict.score == 0.0, task
        spoilt += any("unasked" in reason for reason in verdict.reasons)
    assert spoilt == len(some_tasks())


REAL_TOOLS = tuple(
    ToolSpec(name=name, description="", input_schema={"type": "object"}, source=f"mcp:{server}@1", licence="MIT")
    for server, name in sorted({tool for maker in MAKERS for tool in maker.tools})
)


def real_tasks(count: int) -> list[Task]:
    return make_tasks(make_agents(REAL_TOOLS, 200), REAL_TOOLS, count)


def test_real_tools_make_tasks_of_every_maker_that_idling_does_not_solve():
    tasks = real_tasks(400)
    assert {task.difficulty for task in tasks} == {"simple", "moderate", "complex"}
    assert {server for task in tasks for server in task.ground.servers} == {
        server for m in MAKERS for server, _ in m.tools
    }
    for task in tasks:
        idle = Played(
            messages=[{"role": "user", "content": task.instruction}, {"role": "assistant", "content": "Done."}]
        )
        assert score_of(task, idle) == 0.0, task
        said = " ".join(str(clause.number) for clause in task.rubric if clause.kind == "answer" and clause.number)
        assert not set(numbers(said)) & set(numbers(task.instruction)), task


def test_an_agent_of_both_kinds_has_tasks_of_both_kinds():
    tools = (*some_tools(), *REAL_TOOLS)
    mixed = [agent for agent in make_agents(tools, 150) if agent.traits["tools"] == "mixed"]
    tasks = make_tasks(mixed, tools, 40)
    assert {task.ground.kind for task in tasks} == {"world", "real"}
    assert all(
        call.tool.source in {t.source for t in a.tools}
        for task in tasks
        for a in mixed
        if a.id == task.agent_id
        for call in task.plan
    )


def test_a_scripted_agent_and_a_scripted_user_solve_every_task_in_conversation():
    for task in some_tasks():
        user = UserSimulator(task, scripted=True)
        episode = converse(task, ScriptedAgent(task), user)
        assert (user.ended, score_of(task, episode)) == ("user", 1.0), task
        for fact in task.facts:
            said = [n for n, m in enumerate(episode.messages) if m["role"] == "user" and says(m["content"], fact.value)]
            assert (said[0] > 1) == (fact.told != "first"), (fact, episode.messages)


def test_they_also_solve_it_where_tools_fail_by_a_schedule():
    scores = []
    for number, task in enumerate(some_tasks()):
        schedule = Schedule(seed=number, unavailable=0.2, rate_limited=0.1, lost_answer=0.05, partial=0.1)
        episode = converse(task, ScriptedAgent(task), UserSimulator(task, scripted=True), schedule)
        scores.append(score_of(task, episode) > 0)
    assert sum(scores) >= 0.9 * len(scores)


def test_an_agent_that_errs_at_a_rate_is_rejected_at_that_rate():
    agents = [ScriptedAgent(task, error_rate=0.4, seed=5) for task in some_tasks()]
    kept = [score_of(a.task, converse(a.task, a, UserSimulator(a.task, scripted=True))) > 0 for a in agents]
    assert kept == [agent.mistake is None for agent in agents]
    assert 0.25 < 1 - sum(kept) / len(kept) < 0.55
    assert agents[0].generator == "standin-rule-v1"


async def test_the_stand_in_speaks_as_the_script_does_and_is_marked():
    task = some_tasks()[0]
    messages = [{"role": "user", "content": task.instruction}]
    answer = await StandinSpeaker(task).reply(messages, None)
    turn = ScriptedAgent(task).reply(messages)
    assert answer.message() == turn
    assert (answer.generator, answer.is_llm) == ("standin-rule-v1", False)
