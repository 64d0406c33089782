import pytest
from evals_oracle import wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.rl.environments import gym


def test_the_demo_asks_sixty_sums_that_no_training_sees() -> None:
    suite = open_suite("demo")
    items = list(suite.items())
    assert (len(items), len({item.id for item in items})) == (60, 60)
    assert wrong(suite, items) == []
    trained = {task.id for task in gym("arithmetic").tasks(0, 100, split="train")}
    assert not trained & {item.id for item in items}
    assert {item.subtask for item in items} == {"addition", "subtraction", "multiplication", "comparison"}


def test_an_environment_of_several_turns_is_no_suite() -> None:
    with pytest.raises(AbruzziError, match="several turns"):
        open_suite("gym", SuiteConfig(options={"gym": "tools"}))


@pytest.mark.parametrize(
    ("options", "where"), [({"items": 0}, "options.items"), ({"gyms": "arithmetic"}, "options.gyms")]
)
def test_options_that_are_none_are_the_recipes_mistake(options: dict[str, object], where: str) -> None:
    with pytest.raises(AbruzziError, match=where) as told:
        open_suite("gym", SuiteConfig(options=options))
    assert (told.value.code, told.value.status) == ("bad_options", 400)
