"""What environments teach before they reward."""

from __future__ import annotations

from pathlib import Path

import pytest

from abruzzi.contracts.recipe import SftStage
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.sft.rows import gym_rows

RECIPES = Path(__file__).parents[4] / "recipes"


@pytest.mark.parametrize("stage_id", ["sft", "sft-smollm2"])
def test_a_task_that_an_environment_has_with_either_of_two_options_is_taught_once(stage_id: str) -> None:
    """`3 + 4 =` is among numbers of one digit and of two."""
    stage = load_recipe((RECIPES / "rl-math.toml").read_text()).stage_by_id(stage_id)
    assert isinstance(stage, SftStage)
    together = [row.id for row in gym_rows(stage.data.gyms, seed=0)]
    apart = [row.id for taught in stage.data.gyms for row in gym_rows([taught], seed=0)]
    assert len(apart) > len(set(apart)), "the recipe's options share tasks"
    assert together == list(dict.fromkeys(apart))
