"""Recipes with a stage `rl`: what it is given, what later stages are given of it, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_parts import TRAINED, bound

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.states import StageKind
from abruzzi.contracts.toml import load_recipe

RECIPE = (
    """\
version = 1
name = "rewarded"

"""
    + TRAINED
    + """\

[[stage]]
id = "sft"
kind = "sft"
needs = ["pretrain", "tokenize"]
batch = { sequences = 8, sequence_length = 256 }
[[stage.data.gyms]]
name = "arithmetic"
conversations = 1000

[[stage]]
id = "rl"
kind = "rl"
needs = ["sft"]
[stage.rl]
iterations = 10
budget = { tokens = 64 }
budgets = { division = { tokens = 128, penalty = -1.0 } }
[[stage.rl.environments]]
name = "arithmetic@1"
families = ["addition", "division"]

[[stage]]
id = "evaluate"
kind = "evaluate"
needs = ["rl", "corpus"]
"""
)


RECIPES = Path(__file__).parents[3] / "recipes"


def test_it_goes_on_from_the_fine_tuned_checkpoint_with_its_tokenizer_and_evaluate_judges_what_it_made() -> None:
    recipe = load_recipe(RECIPE)
    assert bound(recipe, "rl") == {"checkpoint": "sft.checkpoint", "tokenizer": "sft.tokenizer"}
    assert bound(recipe, "evaluate") == {
        "checkpoint": "rl.checkpoint", "tokenizer": "rl.tokenizer", "corpus": "corpus.corpus",
    }  # fmt: skip
    assert StageKind.RL.trains


def test_texts_not_to_forget_are_those_of_a_tokenize_stage_among_its_own_needs() -> None:
    recipe = load_recipe(RECIPE.replace('needs = ["sft"]', 'needs = ["sft", "tokenize"]'))
    assert bound(recipe, "rl")["dataset"] == "tokenize.dataset"


def test_a_family_has_its_own_budget_or_that_of_all() -> None:
    stage = load_recipe(RECIPE).stage_by_id("rl")
    assert isinstance(stage, RlStage)
    assert stage.rl.budget_of("division").tokens == 128
    assert stage.rl.budget_of("addition").tokens == 64


MISTAKES = {
    "a group of one": ("iterations = 10", "group_size = 1", r"group_size"),
    "more steps than groups": ("iterations = 10", "groups_per_iteration = 2\nminibatches = 3", r"3 steps cannot be made of 2 groups"),
    "no environment": ("[[stage.rl.environments]]", "[[stage.rl.environment]]", r"environments"),
    "an environment twice": (
        'families = ["addition", "division"]',
        'families = ["addition"]\n[[stage.rl.environments]]\nname = "arithmetic@1"\nfamilies = ["addition"]',
        r"one stands there twice",
    ),
    "two processes": ("[stage.rl]", "resources = { ranks = 2 }\n[stage.rl]", r"2 engines are actors of Ray"),
    "no budget": ("budget = { tokens = 64 }", "", r"budget"),
    "an unknown key": ("iterations = 10", "iteration = 10", r"iterations"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_are_named_with_their_line(old: str, new: str, sentence: str) -> None:
    assert RECIPE.count(old) == 1
    with pytest.raises(AbruzziError, match=sentence) as caught:
        load_recipe(RECIPE.replace(old, new), file="rewarded.toml")
    assert "rewarded.toml:" in str(caught.value)


COMPARED = """\
[stage.rl.critic]
refinement = { weight = 0.0 }
[[stage.rl.environments]]
name = "conversation"
reward = "rubric"
[stage.roles]
critic = "teacher"
judge = "teacher"
[stage.endpoint.teacher]
kind = "standin"
"""
ROLE_MISTAKES = {
    "a critic without work": ('reward = "rubric"\n', "", r"need the table|nobody asks it"),
    "lessons of another model": ("refinement = { weight = 0.0 }\n", "", r"lessons are the policy's"),
    "a role that nobody asks for": ("judge =", "rephraser =", r"nobody in an rl stage asks for it; valid: critic, judge"),
    "an endpoint that is not there": ("[stage.endpoint.teacher]", "[stage.endpoint.taecher]", r"no endpoint is called 'teacher'"),
}  # fmt: skip


def with_roles(table: str) -> str:
    return RECIPE.replace('[[stage]]\nid = "evaluate"', f'{table}\n[[stage]]\nid = "evaluate"')


def test_a_role_on_an_endpoint_compares_in_place_of_the_policy() -> None:
    stage = load_recipe(with_roles(COMPARED)).stage_by_id("rl")
    assert isinstance(stage, RlStage)
    assert set(stage.roles) == {"critic", "judge"}
    assert set(stage.endpoint) == {"teacher"}


@pytest.mark.parametrize(("old", "new", "sentence"), ROLE_MISTAKES.values(), ids=list(ROLE_MISTAKES))
def test_roles_without_work_are_refused(old: str, new: str, sentence: str) -> None:
    assert COMPARED.count(old) == 1
    with pytest.raises(AbruzziError, match=sentence):
        load_recipe(with_roles(COMPARED.replace(old, new)))


def test_the_shipped_recipe_goes_from_text_to_a_rewarded_policy() -> None:
    recipe = load_recipe((RECIPES / "tiny.toml").read_text())
    stages = ["corpus", "tokenize", "pretrain", "evaluate", "sft", "rl", "evaluate-rl"]
    assert [stage.id for stage in recipe.stage] == stages
    assert bound(recipe, "rl") == {"checkpoint": "sft.checkpoint", "tokenizer": "sft.tokenizer"}
    assert bound(recipe, "evaluate-rl")["checkpoint"] == "rl.checkpoint"
    assert bound(recipe, "evaluate")["checkpoint"] == "pretrain.checkpoint"


def test_the_longer_recipes_reward_a_small_k2_and_smollm2() -> None:
    mathematics = load_recipe((RECIPES / "rl-math.toml").read_text())
    assert bound(mathematics, "rl") == {
        "checkpoint": "sft.checkpoint", "tokenizer": "sft.tokenizer", "dataset": "tokenize.dataset",
    }  # fmt: skip
    small, smollm2 = mathematics.stage_by_id("rl"), mathematics.stage_by_id("rl-smollm2")
    assert isinstance(small, RlStage)
    assert isinstance(smollm2, RlStage)
    assert small.rl.difficulty is not None
    assert smollm2.rl.difficulty is not None
    assert bound(mathematics, "rl-smollm2")["checkpoint"] == "sft-smollm2.checkpoint"
    tools = load_recipe((RECIPES / "rl-tools.toml").read_text())
    assert bound(tools, "rl") == {"checkpoint": "sft.checkpoint", "tokenizer": "sft.tokenizer"}


def test_the_recipe_of_rubrics_has_a_critic_and_something_that_keeps_it_honest() -> None:
    stage = load_recipe((RECIPES / "rl-rubrics.toml").read_text()).stage_by_id("rl")
    assert isinstance(stage, RlStage)
    assert {gym.reward for gym in stage.rl.environments} == {"environment", "rubric"}
    assert stage.rl.critic is not None
    assert stage.rl.critic.gate.enabled
    assert stage.rl.critic.refinement.weight > 0
