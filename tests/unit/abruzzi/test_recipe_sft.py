"""Recipes with a stage `sft`: what its inputs bind to, what later stages are given of it, what the plan can say."""

from __future__ import annotations

from recipe_parts import TRAINED, bound

from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.contracts.toml import load_recipe
from abruzzi.plan.placement import workload_kind
from abruzzi.plan.planner import plan_recipe

RECIPE = (
    """\
version = 1
name = "tuned"

"""
    + TRAINED
    + """\

[[stage]]
id = "sft"
kind = "sft"
needs = ["pretrain", "tokenize"]
data = { sources = ["./chats/*.jsonl"] }
batch = { sequences = 8, sequence_length = 512 }

[[stage]]
id = "evaluate"
kind = "evaluate"
needs = ["sft", "corpus"]
"""
)


def test_sft_goes_on_from_pretrain_and_evaluate_judges_what_it_made() -> None:
    recipe = load_recipe(RECIPE)
    assert bound(recipe, "sft") == {"checkpoint": "pretrain.checkpoint", "tokenizer": "tokenize.tokenizer"}
    assert bound(recipe, "evaluate") == {
        "checkpoint": "sft.checkpoint", "tokenizer": "sft.tokenizer", "corpus": "corpus.corpus",
    }  # fmt: skip


def test_the_plan_knows_the_model_and_not_how_much_there_is_to_learn() -> None:
    stage = next(s for s in plan_recipe(load_recipe(RECIPE))["stages"] if s["id"] == "sft")
    training = stage["training"]
    assert training["parameters"]["total"] > 1_000_000
    assert training["tokens_per_step"] == 8 * 512
    assert training["tokens"] is training["steps"] is training["seconds"] is None


def test_it_trains_where_pretrain_does() -> None:
    served = ("Job", "PyTorchJob")
    assert workload_kind(StageKind.SFT, 1, served) == workload_kind(StageKind.PRETRAIN, 1, served) == "PyTorchJob"
    assert [kind for kind in StageKind if kind.trains] == [StageKind.PRETRAIN, StageKind.SFT, StageKind.RL]
    assert {ArtifactKind.CONVERSATIONS, ArtifactKind.TRAJECTORIES} <= set(ArtifactKind)
