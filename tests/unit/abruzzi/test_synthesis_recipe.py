"""The recipe of data synthesis, and what a mistake in the stage's table is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from abruzzi.contracts.recipe import SynthesizeStage
from abruzzi.contracts.toml import load_recipe, parse_recipe

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "data-synthesis.toml"


def test_the_recipe_has_real_documents_and_eight_live_servers() -> None:
    recipe = load_recipe(RECIPE.read_text(), file=str(RECIPE))
    stage = recipe.stage_by_id("synthesize")
    assert isinstance(stage, SynthesizeStage)
    assert [s.kind for s in recipe.stage] == ["corpus", "rephrase", "synthesize"]
    assert len(set(stage.synthesis.servers)) == 8
    assert {endpoint.kind for endpoint in stage.endpoint.values()} == {"smollm2"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stage.synthesize.synthesis.max_turns", "0", "greater than or equal to 1"),
        ("stage.synthesize.synthesis.min_score", "2.0", "less than or equal to 1"),
        ("stage.synthesize.synthesis.tool_calls", '"magic"', "native"),
        ("stage.synthesize.synthesis.faults.unavailable", "0.99", "more than all"),
        ("stage.synthesize.synthesis.difficulties", '["easy"]', "simple"),
    ],
)
def test_a_mistake_is_told_with_its_key(key: str, value: str, said: str) -> None:
    recipe, mistakes = parse_recipe(RECIPE.read_text(), {key: value}, file="data-synthesis.toml")
    assert recipe is None
    assert any(mistake.key.startswith(key.rsplit(".", 1)[0]) and said in str(mistake) for mistake in mistakes), mistakes
