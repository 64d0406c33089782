from itertools import islice

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.suites.registry import open_suite, suite_class, suite_paths


def test_the_first_items_tell_gold_from_perturbed() -> None:
    suite = open_suite("humaneval")
    assert wrong(suite, islice(suite.items(), 3)) == []


@pytest.mark.prove
def test_all_164_items_tell_gold_from_perturbed() -> None:
    suite = open_suite("humaneval")
    items = list(suite.items())
    assert (len(items), len({item.id for item in items})) == (164, 164)
    assert wrong(suite, items) == []


def test_an_answer_may_be_a_block_a_function_or_the_body_alone() -> None:
    suite = open_suite("humaneval@1")
    item = next(suite.items())
    said = f"Sure!\n```python\n{item.prompt}{item.gold}```\nIt is quadratic."
    assert [verdict(suite, item, text).score for text in (said, item.prompt + item.gold, item.gold, "")] == [1, 1, 1, 0]


def test_settings_of_a_recipe_replace_the_suites_own() -> None:
    suite = open_suite("humaneval", SuiteConfig(samples=4, temperature=0.8))
    assert (suite.settings.samples, suite.settings.temperature, suite.settings.max_tokens) == (4, 0.8, 8192)


def test_a_name_that_nobody_knows_is_told_with_the_nearest() -> None:
    with pytest.raises(AbruzziError) as told:
        open_suite("humanevil")
    assert "humaneval" in (told.value.hint or "")


@pytest.mark.parametrize("reference", suite_paths())
def test_every_suite_is_what_it_is_registered_as(reference: str) -> None:
    found = suite_class(reference)
    assert f"{found.name}@{found.version}" == reference
    assert found.summary.endswith(".")
    assert found.licence
    assert found.source
