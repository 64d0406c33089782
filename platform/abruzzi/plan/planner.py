"""The dry run: what a recipe will need and take. Plain dictionaries, so that CLI, API and dashboard show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from abruzzi.contracts.graph import bind_inputs, made_by
from abruzzi.contracts.recipe import PretrainStage, Recipe, RlStage, SftStage, StageBase, TrainingStage
from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.activations import activation_bytes_per_token
from abruzzi.plan.devices import device_of, has_gpus
from abruzzi.plan.flops import flops_per_token, newton_schulz_flops
from abruzzi.plan.layout import Phase, Workload
from abruzzi.plan.memory import optimizer_bytes, states_by_stage
from abruzzi.plan.parameters import count_parameters
from abruzzi.plan.reinforcement import plan_rl
from abruzzi.plan.scale import PlanOptions, describe


def gpu_memory(flavor: str) -> tuple[int | None, str]:
    """(bytes, of what). None for a flavor that is not known."""
    device = device_of(flavor)
    return device.memory_bytes, f"a GPU of flavor {flavor!r}" if flavor else "a GPU"


def plan_recipe(
    recipe: Recipe, flavors: Mapping[str, str] = MappingProxyType({}), options: PlanOptions = PlanOptions()
) -> dict[str, Any]:
    """Plan of each stage; sums are in base units (bytes, FLOPs, seconds). `flavors`: of pools, where a platform knows them."""
    stages = [_plan_stage(recipe, stage, flavors, options) for stage in recipe.stage]
    return {"recipe": recipe.name, "stages": stages, "warnings": [w for s in stages for w in s["warnings"]]}


def _plan_stage(recipe: Recipe, stage: StageBase, flavors: Mapping[str, str], options: PlanOptions) -> dict[str, Any]:
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
        plan["training"] = plan_pretrain(stage, flavors, options)
        plan["ranks"] = plan["training"]["layout"]["ranks"]
    elif isinstance(stage, SftStage) and stage.base is None:
        maker = made_by(recipe, bindings["checkpoint"])
        if isinstance(maker, PretrainStage):  # of other makers nobody knows the model beforehand
            plan["training"] = _plan_training(stage, maker.model, (), flavors, replace(options, nodes=None))
    elif isinstance(stage, RlStage):
        model = _model_of(recipe, stage)
        if model is None:
            plan["warnings"].append(
                f"stage.{stage.id}: the model comes with its checkpoint from outside of this recipe, so nobody knows its size beforehand."
            )
        else:
            pool = stage.resources.pool
            device = flavors.get(pool) or pool
            plan["reinforcement"] = plan_rl(stage, model, on_gpus=has_gpus(device))
    return plan


def _model_of(recipe: Recipe, stage: StageBase) -> ModelConfig | None:
    """Of the stage that made the first checkpoint on the way to this one; None where that came from elsewhere."""
    if isinstance(stage, PretrainStage):
        return stage.model
    maker = made_by(recipe, bind_inputs(recipe, stage).get("checkpoint"))
    return None if maker is None else _model_of(recipe, maker)


def plan_pretrain(
    stage: PretrainStage, flavors: Mapping[str, str] = MappingProxyType({}), options: PlanOptions = PlanOptions()
) -> dict[str, Any]:
    """Parameters, FLOPs, states by pipeline stage, activations, steps and time; `layout` is the step as it would run (scale.describe)."""
    schedule, length = stage.schedule, stage.batch.sequence_length
    phases = (
        Phase(tokens=schedule.tokens, sequence_length=length),
        *(
            Phase(tokens=a.tokens, sequence_length=a.sequence_length or length, sequences=a.sequences)
            for a in schedule.anneal
        ),
    )
    return _plan_training(stage, stage.model, phases, flavors, options)


def workload_of(stage: TrainingStage, model: ModelConfig, *, ranks: int, phases: tuple[Phase, ...] = ()) -> Workload:
    return Workload(
        model=model,
        optimizer=stage.optimizer,
        batch=stage.batch,
        parallel=stage.parallel,
        memory=stage.memory,
        checkpoint=stage.checkpoint,
        ranks=ranks,
        phases=phases,
    )


def _plan_training(
    stage: TrainingStage,
    model: ModelConfig,
    phases: tuple[Phase, ...],
    flavors: Mapping[str, str],
    options: PlanOptions,
) -> dict[str, Any]:
    """No `phases`: as many tokens as its data has, which nobody knows beforehand."""
    pool = stage.resources.pool
    device = options.device or device_of(flavors.get(pool) or pool)
    ranks = stage.resources.ranks if options.nodes is None else options.nodes * device.ranks_per_node
    work = workload_of(stage, model, ranks=ranks, phases=phases)
    layout = describe(work, device, options)
    parameters = count_parameters(model)
    flops_token = flops_per_token(model, stage.batch.sequence_length)
    states = states_by_stage(model, stage.memory, stage.parallel)
    middle = states[len(states) // 2]
    optimizer = optimizer_bytes(middle.parameters, stage.memory, adamw=stage.optimizer.kind == "adamw")
    token_layer = activation_bytes_per_token(model, stage.memory)
    activations = token_layer * work.micro_tokens * middle.layers
    ns_flops = newton_schulz_flops(model, stage.optimizer.newton_schulz_steps)
    tokens = sum(phase.tokens for phase in phases) if phases else None
    step, total = layout.get("step"), layout.get("total")
    return {
        "parameters": {**asdict(parameters), "total": parameters.total, "active": parameters.active},
        "flops_per_token": flops_token,
        "newton_schulz_share": ns_flops / (flops_token * work.tokens_per_step),
        "tokens": tokens,
        "tokens_per_step": work.tokens_per_step,
        "steps": None if tokens is None else work.steps,
        "states": [asdict(s) for s in states],
        "middle_stage_bytes": middle.bytes,
        "optimizer_bytes": optimizer,
        "activation_bytes_per_token_layer": token_layer,
        "activation_bytes": activations,
        "memory_least": round(middle.bytes + optimizer / work.data_ranks + activations),
        "memory_most": round(middle.bytes + optimizer + activations),
        "pipeline_bubble": (stage.parallel.pp - 1) / (stage.parallel.vpp * work.microbatches + stage.parallel.pp - 1),
        "tokens_per_second": None if step is None else step["tokens_per_second"],
        "seconds": None if total is None else total["seconds"],
        "assumptions": {**device.as_assumptions(), "utilisation": None if step is None else step["mfu"]},
        "layout": layout,
    }
