"""Endpoints and roles in recipes: bound, resolved into the stages that ask, and each mistake named with its place."""

from __future__ import annotations

import pytest
from recipe_parts import TRAINED

from abruzzi.contracts.endpoint import ChatRole, secret_variable
from abruzzi.contracts.graph import bind_inputs
from abruzzi.contracts.recipe import Recipe
from abruzzi.contracts.toml import load_recipe, parse_recipe

GOOD = (
    """\
version = 1
name = "roles"

[endpoint.teacher]
kind = "openai"
base_url = "https://llm.example.org/v1/"
model = "big"
api_key = "secret:teacher-key"
requests_per_minute = "1k"

[endpoint.own]
kind = "checkpoint"
checkpoint = "pretrain.checkpoint"
tokenizer = "tokenize.tokenizer"

"""
    + TRAINED
    + """\

[[stage]]
id = "ask"
kind = "container"
needs = ["pretrain", "tokenize"]
container = { command = ["python", "-m", "mine"] }
[stage.roles]
rephraser = { endpoint = "teacher", temperature = 0.7, budget_tokens = "2M" }
judge = "rules"
agent = "own"
[stage.endpoint.rules]
kind = "standin"
faults = { drop_number = 0.1 }
"""
)


def test_a_stage_holds_the_endpoints_that_it_asks_and_gets_what_they_serve() -> None:
    recipe = load_recipe(GOOD)
    asking = recipe.stage[3]
    assert set(asking.endpoint) == {"own", "rules", "teacher"}
    assert asking.roles[ChatRole.JUDGE].endpoint == "rules"
    assert asking.roles[ChatRole.REPHRASER].budget_tokens == 2_000_000
    assert asking.endpoint["teacher"].base_url == "https://llm.example.org/v1"
    bound = {name: f"{b.stage_id}.{b.output}" for name, b in bind_inputs(recipe, asking).items()}
    assert bound == {"own.checkpoint": "pretrain.checkpoint", "own.tokenizer": "tokenize.tokenizer"}
    assert Recipe.model_validate(recipe.resolved()) == recipe
    assert secret_variable("secret:teacher-key") == "ABRUZZI_SECRET_TEACHER_KEY"


# (what is replaced, by what, line, key, part of the sentence)
BAD = {
    "a key in the recipe": ('"secret:teacher-key"', '"sk-live-1234"', 8, "endpoint.teacher.api_key", "ABRUZZI_SECRET_NAME"),
    "a list of keys": ('"secret:teacher-key"', '["sk-live-1234"]', 8, "endpoint.teacher.api_key", "never the key itself"),
    "a key in the address": ("//llm", "//me:sk-live-1234@llm", 6, "endpoint.teacher.base_url", "api_key ="),
    "no address": ("https://llm", "llm", 6, "endpoint.teacher.base_url", "no http or https URL"),
    "a kind": ('"openai"', '"opnai"', 5, "endpoint.teacher.kind", "no endpoint kind is called 'opnai'. Did you mean 'openai'?"),
    "a key of the table": ("base_url", "base_ulr", 6, "endpoint.teacher.base_ulr", "Did you mean 'base_url'?"),
    "a key of another kind": ("faults =", "context =", 45, "stage.ask.endpoint.rules.context", "unknown key"),
    "a number": ('"1k"', "0", 9, "endpoint.teacher.requests_per_minute", "greater than 0"),
    "a share": ("0.1", "1.5", 45, "stage.ask.endpoint.rules.faults.drop_number", "less than or equal to 1"),
    "a fault": ("drop_number", "drop_nubmer", 45, "stage.ask.endpoint.rules.faults.drop_nubmer", "'drop_number'"),
    "a role": ("judge =", "jugde =", 41, "stage.ask.roles.jugde", "Did you mean 'judge'?"),
    "an endpoint": ('"teacher",', '"teachr",', 40, "stage.ask.roles.rephraser.endpoint", "Did you mean 'teacher'?"),
    "a setting": ("temperature", "temprature", 40, "stage.ask.roles.rephraser.temprature", "Did you mean 'temperature'?"),
    "an output": ("pretrain.checkpoint", "pretrain.chekpoint", 13, "endpoint.own.checkpoint", "Did you mean 'checkpoint'?"),
    "a stage": ("tokenize.tokenizer", "tokenise.tokenizer", 14, "endpoint.own.tokenizer", "Did you mean 'tokenize'?"),
    "another kind of output": ("pretrain.checkpoint", "tokenize.dataset", 13, "endpoint.own.checkpoint", "no checkpoint"),
    "an embedder that only talks": ("judge =", "embedder =", 41, "stage.ask.roles.embedder.endpoint", 'endpoint of kind "openai"'),
    "a need": ('["pretrain", "tokenize"]', '["pretrain"]', None, "", ""),
    "no need": ('["pretrain", "tokenize"]', '["corpus"]', 13, "endpoint.own.checkpoint", "Add 'pretrain' to the needs of 'ask'."),
    "a name": ("endpoint.own]", "endpoint.Own]", 11, "endpoint.Own", "small letters"),
    "roles where nothing asks": ("data = {", "roles = { judge = 'own' }\ndata = {", 19, "stage.corpus.roles", "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_has_its_place_and_remedy_and_no_key_in_it(case: str) -> None:
    old, new, line, key, words = BAD[case]
    assert old in GOOD
    _, mistakes = parse_recipe(GOOD.replace(old, new, 1))
    assert "sk-live" not in " ".join(map(str, mistakes))
    if line is None:  # tokenize is above pretrain: it is needed through it
        assert not mistakes
        return
    found = {(m.line, m.key): str(m) for m in mistakes}
    assert (line, key) in found, found
    assert words in found[line, key]


def test_a_value_that_was_set_stands_there() -> None:
    _, (mistake,) = parse_recipe(GOOD, {"endpoint.teacher.concurrency": "0"})
    assert (mistake.file, mistake.key) == ("--set", "endpoint.teacher.concurrency")
