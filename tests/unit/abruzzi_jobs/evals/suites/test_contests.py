from itertools import islice

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.scorers.mathematics import is_right, last_boxed
from abruzzi_jobs.evals.suites.registry import open_suite

SIZES = {"aime2024": 30, "aime2025": 15, "cnmo2024": 18, "math500": 311}


@pytest.mark.parametrize("name", SIZES)
def test_gold_scores_one_and_perturbed_zero(name: str) -> None:
    suite = open_suite(name)
    items = list(suite.items())
    assert (len(items), len({item.id for item in items})) == (SIZES[name], SIZES[name])
    assert wrong(suite, islice(items, 20)) == []


@pytest.mark.parametrize("name", SIZES)
def test_gold_scores_one_and_perturbed_zero_on_all(name: str) -> None:
    suite = open_suite(name)
    assert wrong(suite, suite.items()) == []


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("204", "Thus \\boxed{204}.", True),
        ("204", "The answer is 204.", True),
        ("204", "First \\boxed{204}, no: \\boxed{205}", False),
        ("\\frac{1}{2}", "\\boxed{0.5}", True),
        ("\\text{Evelyn}", "\\boxed{\\text{evelyn}}", True),
        ("204", "", False),
        ("204", "\\boxed{" + "9" * 10_000 + "}", False),
        ("204", "\\boxed{204", False),
        ("204", "２０４ ‮204\u202c\u0000 \\boxed{٢٠٥}", False),
    ],
)
def test_the_last_stated_result_counts(gold: str, answer: str, right: bool) -> None:
    assert is_right(gold, answer)[0] is right


def test_a_box_may_hold_braces() -> None:
    assert last_boxed("\\boxed{1} so \\boxed{\\frac{a_{1}}{b}} and on") == "\\frac{a_{1}}{b}"


def test_other_languages_are_asked_in_their_own_words() -> None:
    suite = open_suite("aime2024", SuiteConfig(options={"languages": ["fr"]}))
    item = next(suite.items())
    assert "raisonner étape par étape" in suite.messages(item)[0]["content"]
    assert verdict(suite, item, suite.gold_answer(item)).score == 1.0


def test_a_language_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(AbruzziError) as told:
        open_suite("aime2024", SuiteConfig(options={"languages": ["fi"]}))
    assert "languages" in str(told.value)


def test_an_option_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(AbruzziError) as told:
        open_suite("aime2024", SuiteConfig(options={"language": ["fr"]}))
    assert (told.value.code, "languages" in (told.value.hint or "")) == ("bad_options", True)
