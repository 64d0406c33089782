"""Instruct stages in recipes: who answers, and each mistake named with its place."""

from __future__ import annotations

import pytest

from abruzzi.contracts.instruct import PROMPT_SOURCES
from abruzzi.contracts.recipe import InstructStage
from abruzzi.contracts.toml import load_recipe, parse_recipe
from abruzzi_jobs.instruct.prompts import read_prompts

GOOD = """\
version = 1
name = "answers"
[endpoint.teacher]
kind = "smollm2"
[endpoint.own]
kind = "standin"

[[stage]]
id = "instruct"
kind = "instruct"
[stage.instruct]
candidates = [{ endpoint = "teacher", temperature = 0.7 }, "own"]
sources = ["elements", "mathematics"]
prompts = "2k"
keep = 1
[stage.instruct.judge]
fail_below = 0.3
[stage.roles]
judge = "teacher"
"""

BAD = {
    "one candidate": ('}, "own"]', "}]", 12, "stage.instruct.instruct.candidates"),
    "the same twice": ('"own"]', '"teacher"]', 12, "stage.instruct.instruct.candidates"),
    "an endpoint": ('"own"]', '"onw"]', 12, "stage.instruct.instruct.candidates.1.endpoint"),
    "a key": ("keep =", "keeps =", 15, "stage.instruct.instruct.keeps"),
    "more than there are": ("keep = 1", "keep = 3", 15, "stage.instruct.instruct.keep"),
    "scores": ("0.3", "0.9", 17, "stage.instruct.instruct.judge.fail_below"),
}


def test_a_recipe_gives_the_stage_the_endpoints_of_its_candidates_and_roles() -> None:
    stage = load_recipe(GOOD).stage[0]
    assert isinstance(stage, InstructStage)
    assert list(stage.asked_roles()) == ["candidate-teacher", "candidate-own", "judge"]
    assert set(stage.endpoint) == {"teacher", "own"}
    assert stage.instruct.prompts == 2000


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_its_place(case: str) -> None:
    there, instead, line, key = BAD[case]
    assert there in GOOD
    recipe, found = parse_recipe(GOOD.replace(there, instead, 1))
    assert recipe is None
    assert (found[0].line, found[0].key) == (line, key), [str(problem) for problem in found]


def test_every_shipped_source_has_prompts() -> None:
    for source in PROMPT_SOURCES:
        assert len(read_prompts([source], 3, seed=0)[0]) == 3, source
