"""Rephrase stages in recipes: bound between corpus and tokenizer, and each mistake named with its place."""

from __future__ import annotations

import pytest

from abruzzi.contracts.graph import bind_inputs
from abruzzi.contracts.recipe import RephraseStage
from abruzzi.contracts.toml import load_recipe, parse_recipe
from abruzzi_jobs.rephrase.grid import load_grid

GOOD = """\
version = 1
name = "words"
[endpoint.teacher]
kind = "smollm2"

[[stage]]
id = "corpus"
kind = "corpus"
data = { sources = ["mendeleev"] }

[[stage]]
id = "rephrase"
kind = "rephrase"
needs = ["corpus"]
[stage.roles]
rephraser = { endpoint = "teacher", temperature = 0.7 }
[stage.rephrase]
styles = ["encyclopedia", "plain"]
part_tokens = 128
translate_from = []
[stage.rephrase.fidelity]
min_support = 0.4

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["rephrase"]
"""

BAD = {
    "a key": ("part_tokens", "part_token", 19, "stage.rephrase.rephrase.part_token", "Did you mean 'part_tokens'?"),
    "a threshold": ("min_support", "min_suport", 22, "stage.rephrase.rephrase.fidelity.min_suport", "'min_support'?"),
    "a style": ('"plain"', '"plane"', 18, "stage.rephrase.rephrase.styles.1", "Did you mean 'plain'?"),
    "parts that fit no excerpt": (
        "= 128",
        "= 128\nexcerpt_tokens = 100",
        19,
        "stage.rephrase.rephrase.part_tokens",
        "do not fit",
    ),
    "no rephraser": ("rephraser =", "judge =", 15, "stage.rephrase.roles", 'add rephraser = "<endpoint>"'),
    "no translator": ("from = []", 'from = ["es"]', 15, "stage.rephrase.roles", 'add translator = "<endpoint>"'),
    "no corpus": ('needs = ["corpus"]', "", 11, "stage.rephrase.needs", "Add 'corpus' to its needs."),
}


def test_a_rephrase_stage_takes_the_corpus_and_gives_the_one_that_is_tokenized() -> None:
    recipe = load_recipe(GOOD)
    stage = recipe.stage_by_id("rephrase")
    assert isinstance(stage, RephraseStage)
    assert (stage.rephrase.excerpt_tokens, stage.rephrase.part_tokens) == (4096, 128)
    assert list(stage.endpoint) == ["teacher"]
    assert bind_inputs(recipe, recipe.stage_by_id("tokenize"))["corpus"].stage_id == "rephrase"


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_named_with_its_line_and_its_remedy(name: str) -> None:
    old, new, line, key, remedy = BAD[name]
    recipe, found = parse_recipe(GOOD.replace(old, new, 1))
    assert recipe is None
    assert (found[0].key, remedy in str(found[0])) == (key, True), str(found[0])
    assert found[0].line == line, str(found[0])


def test_the_grid_has_a_prompt_for_each_word_that_a_recipe_may_use() -> None:
    schema = RephraseStage.model_json_schema()["$defs"]
    grid = load_grid().data
    assert schema["RephraseStyle"]["enum"] == list(grid["styles"])
    assert schema["RephrasePerspective"]["enum"] == list(grid["perspectives"])
