"""Our rules say what their owners' own code says of the same answers. (bench/rule_agreement.py asks about many more, with all of NLTK's data.)"""

from __future__ import annotations

import random

import pytest
from owner_rules import NEEDS_A_TAGGER, owners
from rule_answers import exchanged, of_ifeval, real

from abruzzi_jobs.evals.scorers import ifbench_rules, ifeval_rules
from abruzzi_jobs.evals.scorers.instructions import followed

BY_OTHER_MEANS = {NEEDS_A_TAGGER, "language:response_language", "change_case:english_capital", "change_case:english_lowercase"}  # fmt: skip
"""Verbs and languages are told by other means than the owners': of these some differ."""


@pytest.fixture(scope="module")
def their():
    with owners() as found:
        yield found


def differences(rules, owner, asked):
    found, compared = [], 0
    for one in asked:
        if BY_OTHER_MEANS & set(one.names):
            continue
        ours, theirs = followed(rules, one.names, one.params, one.answer), owner(*one[1:])
        if theirs is None:  # the owner's code raises at some answers, such as those without words
            continue
        compared += 1
        if (ours.strict, ours.loose) != theirs:
            found.append((one.key, one.names, one.answer[:200], ours, theirs))
    return found, compared


def test_a_models_answers_to_ifbench_get_the_owners_verdicts_prompt_by_prompt(their):
    found, compared = differences(ifbench_rules.RULES, their.ifbench, real())
    assert found == []
    assert compared > 270


def test_each_rule_of_ifbench_gives_the_owners_verdict_over_changed_answers(their):
    found, compared = differences(ifbench_rules.RULES, their.ifbench, exchanged(random.Random(0), 6))
    assert found == []
    assert compared > 300


def test_each_rule_of_ifeval_gives_the_verdict_of_lm_evals_over_changed_answers(their):
    found, compared = differences(ifeval_rules.RULES, their.ifeval, of_ifeval(random.Random(1), 12))
    assert found == []
    assert compared > 240
