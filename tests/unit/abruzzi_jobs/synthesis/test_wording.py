"""Instructions and prompts in a model's words: taken where nothing is lost, given away or invented."""

from __future__ import annotations

import pytest
from task_play import some_tasks, some_tools

from abruzzi.contracts.agent import Fact
from abruzzi.contracts.endpoint import ChatRole, RoleConfig, StandInEndpoint
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.synthesis.agents import make_agents
from abruzzi_jobs.synthesis.agents.wording import reprompt
from abruzzi_jobs.synthesis.tasks.wording import reword, wording_fault

TASK = some_tasks()[0].model_copy(
    update={
        "instruction": 'Please raise the cash of account 3 by 250 cents. Then create a deal: subject "pilot project". Do not guess.',
        "facts": (
            Fact(name="id", text="It is account 3.", value="3"),
            Fact(name="by", text="By 250.", value="250"),
            Fact(name="subject", text='It is "pilot project".', value="pilot project"),
            Fact(name="owner", text="For Nora Lind.", value="Nora Lind", told="asked", words=("owner",)),
        ),
    }
)
GOOD = 'Hi, could you increase the cash of account 3 by 250 cents, and then make a deal with the subject "pilot project"? Do not guess.'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD, ""),
        (GOOD.replace("250", "25"), "lost_a_fact"),
        (GOOD.replace("pilot project", "pilot projects"), "lost_a_fact"),
        (GOOD.replace("cents", "cents for Nora Lind"), "gave_away_a_fact"),
        (GOOD.replace("cents", "cents in 2 days"), "numbers"),
        (GOOD.replace("Do not guess", "Do guess"), "negation"),
        (GOOD.replace("increase", "lower"), "lost_a_wish"),
        (GOOD * 3, "length"),
        ("", "length"),
    ],
)
def test_a_wording_loses_nothing_and_adds_nothing(text, fault):
    assert wording_fault(TASK, text) == fault


def test_an_instruction_says_what_it_says():
    assert [wording_fault(task, task.instruction) for task in some_tasks()] == [""] * len(some_tasks())


async def asked(role: ChatRole, script, question, things):
    endpoints = {"model": StandInEndpoint(kind="standin")}
    async with open_roles({role: RoleConfig(endpoint="model")}, endpoints, script=script) as roles:
        return await question(things, roles[role])


async def test_tasks_stay_as_they_were_where_the_model_fails():
    answers = iter(
        [GOOD, "Sure! I can help you with that request of yours, whatever it may be, at once and at 7 o'clock."]
    )
    first, second = TASK, TASK.model_copy(update={"instruction": f"Hello! {TASK.instruction}"})
    worded, refused = await asked(ChatRole.USER, lambda role, body: next(answers), reword, [first, second])
    assert sum(task.instruction == GOOD for task in worded) == 1
    assert sum(task in (first, second) for task in worded) == 1
    assert dict(refused) == {"lost_a_fact": 1}
    assert {(task.generator, task.is_llm) for task in worded} == {
        ("backward-plans-v1", False),
        ("backward-plans-v1+standin-rule-v1", False),
    }


async def test_a_prompt_that_is_none_leaves_the_agent_alone():
    agents = make_agents(some_tools(), 3)
    prompt = (
        "You look after the records of a small firm, and you change nothing that you were not asked to change, ever."
    )
    answers = iter([prompt, "Here is your system prompt: {}", ""])
    written, refused = await asked(ChatRole.TOOL_AUTHOR, lambda role, body: next(answers), reprompt, agents)
    fresh = [agent for agent in written if agent.system_prompt == prompt]
    assert len(fresh) == 1
    assert fresh[0].id not in {agent.id for agent in agents}
    assert sum(agent in agents for agent in written) == 2
    assert sum(refused.values()) == 2
