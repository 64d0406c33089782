"""Stages that recipes of tests share, as text, and what the inputs of a stage are bound to."""

from __future__ import annotations

from abruzzi.contracts.graph import bind_inputs
from abruzzi.contracts.recipe import Recipe

TRAINED = """\
[[stage]]
id = "corpus"
kind = "corpus"
data = { sources = ["python-stdlib"] }

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]

[[stage]]
id = "pretrain"
kind = "pretrain"
needs = ["tokenize"]
model = { preset = "tiny" }
schedule = { tokens = "4M" }
batch = { sequences = 32, sequence_length = 128 }
"""


def bound(recipe: Recipe, stage: str) -> dict[str, str]:
    """{input: "stage.output"}"""
    bindings = bind_inputs(recipe, recipe.stage_by_id(stage))
    return {name: f"{binding.stage_id}.{binding.output}" for name, binding in bindings.items()}
