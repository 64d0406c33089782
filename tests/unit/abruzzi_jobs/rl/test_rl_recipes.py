"""The shipped recipes' rl stages, shortened and with a policy that knows nothing: what they ask for is played, scored and learned from, to the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from rl_lab import RlLab, make_policy

from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.toml import load_recipe

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[4] / "recipes"
SHORT = {
    "iterations": 2,
    "groups_per_iteration": 2,
    "group_size": 2,
    "minibatches": 1,
    "held_out": {"every_iterations": 1, "tasks": 2},
}
ANY = {"candidates": 4, "attempts": 2, "k": 1, "low": 0.0, "high": 1.0}
"""A policy that knows nothing solves nothing."""
NO_TEXT = {"ptx_sequences": 0, "objective": {"ptx_weight": 0.0}}
"""A lab has none."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the room that a declaration of tools takes, letter by letter."""
    return make_policy(tmp_path_factory.mktemp("policy"), positions=8192)


@pytest.mark.parametrize(("recipe", "stage_id"), [("rl-math", "rl"), ("rl-math", "rl-smollm2"), ("rl-tools", "rl")])
def test_a_shipped_recipe_s_stage_ends_well(recipe: str, stage_id: str, tmp_path: Path, policy: Path) -> None:
    shipped = load_recipe((RECIPES / f"{recipe}.toml").read_text()).stage_by_id(stage_id)
    assert isinstance(shipped, RlStage)
    asked = shipped.rl.model_dump(mode="json", exclude_unset=True)
    difficulty = {"difficulty": ANY} if "difficulty" in asked else {}
    objective = {**asked.get("objective", {}), **NO_TEXT["objective"]}
    lab = RlLab(tmp_path, made=policy)
    attempt = lab.run(lab.reinforcing({"rl": {**asked, **SHORT, **difficulty, **NO_TEXT, "objective": objective}}))
    assert sorted(attempt.points()["rl/held_out_reward"]) == [0, 1, 2]
    rows = lab.rollouts()
    assert len(rows) >= 2 * 2 * 2
    assert {row["environment"].partition("@")[0] for row in rows} <= {each.name for each in shipped.rl.environments}
