"""Golden values of the plan: the published K2, derived from its configuration (docs/maths.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.contracts.training import MemoryConfig, ModelConfig
from abruzzi.plan import reinforcement
from abruzzi.plan.activations import activation_bytes_per_token, written_bytes_per_token
from abruzzi.plan.flops import flops_per_token
from abruzzi.plan.parameters import attention_parameters, count_parameters
from abruzzi.plan.planner import plan_pretrain, plan_recipe
from abruzzi_jobs.rl.engine import torch_engine as engine

RECIPES = Path(__file__).parents[3] / "recipes"
OWN_WEIGHTS = """
version = 1
name = "smollm2-rl"
[[stage]]
id = "sft"
kind = "sft"
base = "smollm2"
[stage.data]
sources = ["./talk.jsonl"]
[stage.batch]
sequences = 4
sequence_length = 255
[[stage]]
id = "rl"
kind = "rl"
needs = ["sft"]
[stage.rl]
budget = { tokens = 64 }
[[stage.rl.environments]]
name = "arithmetic"
"""


@pytest.fixture(scope="module")
def k2() -> PretrainStage:
    stage = load_recipe((RECIPES / "k2.toml").read_text()).stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    return stage


def test_k2_has_the_published_parameters(k2: PretrainStage) -> None:
    parameters = count_parameters(k2.model)
    assert parameters.total / 1e9 == pytest.approx(1026.4, abs=0.05)
    assert parameters.active / 1e9 == pytest.approx(32.86, abs=0.005)
    assert attention_parameters(k2.model) / 1e6 == pytest.approx(101.1, abs=0.05)
    assert parameters.moe_layer.routed_experts / 384 / 1e6 == pytest.approx(44.04, abs=0.005)


def test_k2_takes_205_gigaflop_a_token_at_4k(k2: PretrainStage) -> None:
    assert flops_per_token(k2.model, 4096) / 1e9 == pytest.approx(205.5, abs=0.1)
    attention_at_32k = flops_per_token(k2.model, 32768) - 6 * count_parameters(k2.model).active_in_matmuls
    assert attention_at_32k / 1e9 == pytest.approx(122.8, abs=0.1)


def test_a_middle_stage_of_pp16_ep16_holds_28_9_gigabytes_of_states(k2: PretrainStage) -> None:
    plan = plan_pretrain(k2)
    assert plan["middle_stage_bytes"] / 1e9 == pytest.approx(28.9, abs=0.05)
    assert sum(s["layers"] for s in plan["states"]) == 61


def test_k2_steps_batch_and_newton_schulz_share(k2: PretrainStage) -> None:
    plan = plan_pretrain(k2)
    assert plan["tokens_per_step"] == 67_108_864
    assert k2.schedule.tokens // plan["tokens_per_step"] == pytest.approx(231_000, rel=1e-3)
    assert plan["newton_schulz_share"] == pytest.approx(0.0035, abs=0.0001)


def test_activation_policy_of_the_paper_saves_three_times_the_bytes(k2: PretrainStage) -> None:
    reduced = activation_bytes_per_token(k2.model, k2.memory)
    assert reduced / 1024 == pytest.approx(145, rel=0.01)
    written = written_bytes_per_token(k2.model, k2.memory)
    rotary_keys = k2.model.num_heads * k2.model.qk_rope_head_dim * 2  # the usual count has one for all heads
    assert (written - rotary_keys) / 1024 == pytest.approx(466, rel=0.01)
    assert written / reduced > 3.2


def test_the_experts_outputs_are_never_kept_whether_the_policy_names_them_or_not(k2: PretrainStage) -> None:
    plain = MemoryConfig(dtype="bfloat16")
    named = MemoryConfig(dtype="bfloat16", recompute=("moe_down_projection",))
    assert activation_bytes_per_token(k2.model, plain) == activation_bytes_per_token(k2.model, named)
    assert activation_bytes_per_token(k2.model, plain) / 1024 == pytest.approx(366, abs=0.5)


@given(st.sampled_from(["tiny", "nano"]), st.integers(1, 8))
def test_more_experts_never_change_the_active_parameters_of_experts(preset: str, factor: int) -> None:
    model = ModelConfig.model_validate({"preset": preset})
    wide = ModelConfig.model_validate({"preset": preset, "num_experts": model.num_experts * factor})
    router = (wide.num_experts - model.num_experts) * model.hidden_size * (model.num_layers - model.num_dense_layers)
    assert count_parameters(wide).active - router == count_parameters(model).active


def rl_plan(changes: str = "") -> dict[str, Any]:
    text = (RECIPES / "tiny.toml").read_text().replace("group_size = 8\n", f"group_size = 8\n{changes}")
    return next(stage for stage in plan_recipe(load_recipe(text))["stages"] if stage["id"] == "rl")


def test_an_rl_stage_says_its_tokens_and_its_memory_by_phase_by_the_model_that_it_was_fine_tuned_from() -> None:
    plan = rl_plan()["reinforcement"]
    assert (plan["trajectories_per_iteration"], plan["tokens_per_iteration_most"]) == (96, 96 * 8)
    assert (plan["steps"], plan["tokens_most"]) == (30, 30 * 96 * 8)
    weights, optimizer = plan["weights_bytes"], plan["optimizer_bytes"]
    assert plan["phase_bytes"]["update"] == optimizer + 3 * weights, "the trainer's, those served, those that come"
    assert plan["phase_bytes"]["rollout"] == optimizer + 2 * weights + plan["cache_bytes"]
    assert plan["memory_most"] == max(plan["phase_bytes"].values())


def test_over_provision_begins_more_than_it_trains_on() -> None:
    plan = rl_plan("over_provision = 1.5\n")["reinforcement"]
    assert (plan["trajectories_begun"], plan["trajectories_per_iteration"]) == (144, 96)


def test_an_rl_stage_on_weights_of_others_says_that_nobody_knows_their_size() -> None:
    plan = next(stage for stage in plan_recipe(load_recipe(OWN_WEIGHTS))["stages"] if stage["kind"] == "rl")
    assert "reinforcement" not in plan
    assert "comes with its checkpoint from outside" in plan["warnings"][0]


def test_the_largest_cache_of_the_plan_is_that_of_the_engine() -> None:
    assert engine.CACHE_BYTES == reinforcement.CACHE_BYTES
