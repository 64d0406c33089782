"""The dry run: what a recipe will need and take. Plain dictionaries, so that CLI, API and dashboard show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from abruzzi.contracts.graph import bind_inputs, made_by
from abruzzi.contracts.recipe import PretrainStage, Recipe, RlStage, SftStage, StageBase, TrainingStage
from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.flops import flops_per_token, newton_schulz_flops
from abruzzi.plan.memory import activation_bytes_per_token, optimizer_bytes, states_by_stage
from abruzzi.plan.parameters import count_parameters
from abruzzi.plan.reinforcement import plan_rl

# Assumptions, shown in every plan beside what they yield. H800: 989 TFLOP/s dense BF16 by its data sheet, 25 % is the design's
# target (the only published K2 figure is 19.1 %). CPU: one core's float32 rate in the train-step benchmark of the tiny preset.
_DEVICES: dict[str, dict[str, Any]] = {
    "h800": {
        "device": "H800",
        "peak_flops": 989e12,
        "utilisation": 0.25,
        "memory_bytes": 80_000_000_000,
        "source": "data sheet; target utilisation of the design",
    },
    "local": {
        "device": "CPU rank",
        "peak_flops": 50e9,
        "utilisation": 0.5,
        "source": "two cores, float32, as bench/train_step measures",
    },
}


def gpu_memory(flavor: str) -> tuple[int | None, str]:
    """(bytes, of what). None for a flavor that is not known."""
    device = _DEVICES.get(flavor.lower(), {})
    return device.get("memory_bytes"), f"a GPU of flavor {flavor!r}" if flavor else "a GPU"


def plan_recipe(recipe: Recipe, flavors: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Plan of each stage; sums are in base units (bytes, FLOPs, seconds). `flavors`: of pools, where a platform knows them."""
    stages = [_plan_stage(recipe, stage, flavors) for stage in recipe.stage]
    return {"recipe": recipe.name, "stages": stages, "warnings": [w for s in stages for w in s["warnings"]]}


def _plan_stage(recipe: Recipe, stage: StageBase, flavors: Mapping[str, str]) -> dict[str, Any]:
    bindings = bind_inputs(recipe, stage)
    bound = {b.name: b.reference for b in bindings.values()}
    plan: dict[str, Any] = {
        "id": stage.id,
        "kind": stage.kind,
        "needs": list(stage.needs),
        "inputs": bound,
        "pool": stage.resources.pool,
        "ranks": stage.resources.ranks,
        "warnings": [],
    }
    if isinstance(stage, PretrainStage):
        plan["training"] = plan_pretrain(stage, flavors)
    elif isinstance(stage, SftStage) and stage.base is None:
        maker = made_by(recipe, bindings["checkpoint"])
        if isinstance(maker, PretrainStage):  # of other makers nobody knows the model beforehand
            plan["training"] = _plan_training(stage, maker.model, None, flavors)
    elif isinstance(stage, RlStage):
        model = _model_of(recipe, stage)
        if model is None:
            plan["warnings"].append(
                f"stage.{stage.id}: the model comes with its checkpoint from outside of this recipe, so nobody knows its size beforehand."
            )
        else:
            pool = stage.resources.pool
            device = (flavors.get(pool) or pool).lower()
            plan["reinforcement"] = plan_rl(
                stage, model, on_gpus=_DEVICES.get(device, _DEVICES["local"]) is not _DEVICES["local"]
            )
    return plan


def _model_of(recipe: Recipe, stage: StageBase) -> ModelConfig | None:
    """Of the stage that made the first checkpoint on the way to this one; None where that came from elsewhere."""
    if isinstance(stage, PretrainStage):
        return stage.model
    maker = made_by(recipe, bind_inputs(recipe, stage).get("checkpoint"))
    return None if maker is None else _model_of(recipe, maker)


def plan_pretrain(stage: PretrainStage, flavors: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Parameters, FLOPs, states by pipeline stage, activations, steps and time."""
    tokens = stage.schedule.tokens + sum(a.tokens for a in stage.schedule.anneal)
    return _plan_training(stage, stage.model, tokens, flavors)


def _plan_training(
    stage: TrainingStage, model: ModelConfig, tokens: int | None, flavors: Mapping[str, str]
) -> dict[str, Any]:
    """`tokens` None: as many as its data has, which nobody knows beforehand."""
    batch, parallel = stage.batch, stage.parallel
    parameters = count_parameters(model)
    flops_token = flops_per_token(model, batch.sequence_length)
    tokens_step = batch.sequences * batch.sequence_length
    states = states_by_stage(model, stage.memory, pp=parallel.pp, ep=parallel.ep)
    middle = states[len(states) // 2]
    data_ranks = stage.resources.ranks // parallel.pp
    micro_sequences = batch.micro_sequences or batch.sequences // data_ranks
    micro_batches = max(1, batch.sequences // data_ranks // micro_sequences)
    bubble = (parallel.pp - 1) / (parallel.vpp * micro_batches + parallel.pp - 1)
    pool = stage.resources.pool
    device = _DEVICES.get((flavors.get(pool) or pool).lower(), _DEVICES["local"])
    optimizer = optimizer_bytes(middle.parameters, stage.memory, adamw=stage.optimizer.kind == "adamw")
    activations = (
        activation_bytes_per_token(model, stage.memory) * micro_sequences * batch.sequence_length * middle.layers
    )
    rate = device["peak_flops"] * device["utilisation"] * stage.resources.ranks / flops_token
    ns_flops = newton_schulz_flops(model, stage.optimizer.newton_schulz_steps)
    return {
        "parameters": {**asdict(parameters), "total": parameters.total, "active": parameters.active},
        "flops_per_token": flops_token,
        "newton_schulz_share": ns_flops / (flops_token * tokens_step),
        "tokens": tokens,
        "tokens_per_step": tokens_step,
        "steps": None if tokens is None else tokens // tokens_step,
        "states": [asdict(s) for s in states],
        "middle_stage_bytes": middle.bytes,
        "optimizer_bytes": optimizer,
        "activation_bytes_per_token_layer": activation_bytes_per_token(model, stage.memory),
        "activation_bytes": activations,
        "memory_least": round(middle.bytes + optimizer / data_ranks + activations),
        "memory_most": round(middle.bytes + optimizer + activations),
        "pipeline_bubble": bubble,
        "tokens_per_second": rate,
        "seconds": None if tokens is None else tokens / rate,
        "assumptions": device,
    }
