from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_gyms import answered, ended

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.rl.environments import Gym, gym, named_gyms
from abruzzi_jobs.rl.environments.answers import as_assistant
from abruzzi_jobs.rl.environments.environment import Services
from abruzzi_jobs.sft.conversation import read_conversation

TINY = ("arithmetic", "logic")


def _reward(found: Gym, task, text: str) -> float | None:
    return found.score(ended(task), answered(text), {}).reward


@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**40), name=st.sampled_from(TINY))
def test_a_task_is_a_pure_function_of_seed_and_index(seed: int, index: int, name: str) -> None:
    task = gym(name).task(seed, index)
    assert task == gym(name).task(seed, index)
    assert task.environment == f"{name}@1"


@pytest.mark.parametrize("name", [*TINY, "coding", "instructions", "mathematics"])
def test_no_question_is_both_trained_on_and_held_out(name: str) -> None:
    found = gym(name)
    train = {found.task(seed, index).data["prompt"] for seed in range(3) for index in range(60)}
    held_out = {found.task(seed, index, split="held_out").data["prompt"] for seed in range(3) for index in range(60)}
    assert train
    assert held_out
    assert not train & held_out


@pytest.mark.parametrize("name", TINY)
async def test_the_solution_is_worth_one_and_nothing_else_is(name: str) -> None:
    found = gym(name)
    for family in found.families:
        for task in found.tasks(1, 10, family=family):
            assert task.family == family
            answer = task.data["answer"]
            assert _reward(found, task, answer) == 1.0
            assert _reward(found, task, f"I think so.\nAnswer: {answer}.") == 1.0
            for wrong in ("", "Answer:", f"{answer}1", f"-{answer}x", f"{answer} or 1000001", "٣"):
                assert _reward(found, task, wrong) == 0.0, wrong
            row = await found.conversation(task)
            assert row is not None
            assert read_conversation(row).messages[-1]["content"] == answer


@pytest.mark.parametrize("name", ["faithfulness", "instructions", "safety"])
async def test_a_gym_does_without_the_roles_that_a_recipe_does_not_give(name: str) -> None:
    found = gym(name)
    for family in found.families:
        [task] = found.tasks(0, 1, family=family)
        session = found.session(Services(backends=Roles({}, None)))
        await session.reset(task, 0)
        await session.step(as_assistant("Yes."))
        assert "judge" not in await session.state()
        await session.close()


def test_truth_is_as_python_has_it() -> None:
    found = gym("logic", {"size": 5})
    for task in found.tasks(0, 100, family="truth"):
        told = task.data["prompt"].removeprefix("True or false: ").rstrip("?")
        python = told.replace("true", "True").replace("false", "False")
        assert str(eval(python)).lower() == task.data["answer"]  # noqa: S307


def test_different_tasks_as_many_as_wanted_or_a_refusal() -> None:
    tasks = gym("arithmetic", {"digits": 2}).tasks(0, 500)
    assert len({task.id for task in tasks}) == 500
    with pytest.raises(AbruzziError, match="hardly more than") as caught:
        gym("arithmetic").tasks(0, 1000, family="comparison")
    assert caught.value.code == "too_few_tasks"


@pytest.mark.parametrize(
    ("reference", "options", "code", "said"),
    [
        ("arithmetics", {}, "unknown_environment", "Did you mean 'arithmetic'?"),
        ("arithmetic@9", {}, "unknown_environment", "There is arithmetic@1."),
        ("nowhere.to_be:Found", {}, "unknown_environment", "PYTHONPATH"),
        ("collections:OrderedDict", {}, "unknown_environment", "no subclass of Gym"),
        ("arithmetic", {"digit": 2}, "bad_options", "Did you mean 'digits'?"),
        ("arithmetic", {"digits": "two"}, "bad_options", "digits"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(reference: str, options: dict, code: str, said: str) -> None:
    with pytest.raises(AbruzziError) as caught:
        gym(reference, options)
    assert caught.value.code == code
    assert said in str(caught.value)


def test_an_unknown_family_is_named_with_the_nearest() -> None:
    with pytest.raises(AbruzziError, match="Did you mean 'addition'"):
        gym("arithmetic").task(0, 0, family="additions")


def test_every_shipped_gym_says_what_it_is() -> None:
    for reference, found in named_gyms().items():
        assert reference == f"{found.name}@{found.version}"
        assert found.summary
        assert found.families


def test_environments_and_rewards_load_no_torch() -> None:
    program = "import sys, abruzzi_jobs.rl.rewards.worker as w; w.gym('arithmetic'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
