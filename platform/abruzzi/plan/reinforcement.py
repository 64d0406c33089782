"""What an rl stage will play and hold: tokens of an iteration, bytes by phase. Trainer and engine take turns on the same memory (paper 3.3.1)."""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.activations import activation_bytes_per_token
from abruzzi.plan.memory import optimizer_bytes
from abruzzi.plan.parameters import count_parameters

CACHE_BYTES = 1 << 30
"""The embedded engine's largest cache unless it is asked for more; `abruzzi_jobs.rl.engine.torch_engine` has the same number, and a test holds them
together."""


def plan_rl(stage: RlStage, model: ModelConfig, *, on_gpus: bool) -> dict[str, Any]:
    """Bytes are of the rank that has the trainer beside its engine; the others have an engine alone. `on_gpus`: the engine gives its weights back while
    the trainer works, and the trainer's steps leave nothing behind."""
    rl = stage.rl
    trajectories = rl.groups_per_iteration * rl.group_size
    begun = round(rl.groups_per_iteration * rl.over_provision) * rl.group_size
    most = max(budget.tokens for budget in (rl.budget, *rl.budgets.values()))
    parameters = count_parameters(model)
    value = 2 if stage.memory.dtype == "bfloat16" else 4
    weights = parameters.total * value
    gradients = parameters.total * 4
    optimizer = optimizer_bytes(parameters.total, stage.memory, adamw=stage.optimizer.kind == "adamw")
    activations = activation_bytes_per_token(model, stage.memory) * rl.micro_tokens * model.num_layers
    position = (model.kv_lora_rank + model.qk_rope_head_dim) * model.num_layers * value
    cache = min(rl.concurrency * model.max_position * position, max(CACHE_BYTES, model.max_position * position))
    trained = weights + optimizer
    phases = {
        "rollout": trained + weights + cache,
        "training": trained + gradients + activations + (0 if on_gpus else weights),
        "update": trained + (1 if on_gpus else 2) * weights,
    }
    return {
        "parameters": parameters.total,
        "active": parameters.active,
        "replicas": stage.resources.ranks,
        "iterations": rl.iterations,
        "steps": rl.iterations * rl.minibatches,
        "trajectories_per_iteration": trajectories,
        "trajectories_begun": begun,
        "tokens_per_iteration_most": trajectories * most,
        "tokens_most": rl.iterations * trajectories * most,
        "weights_bytes": weights,
        "optimizer_bytes": optimizer,
        "cache_bytes": cache,
        "activation_bytes": round(activations),
        "phase_bytes": {name: round(size) for name, size in phases.items()},
        "replica_bytes": round(weights + max(cache, weights)),
        "broadcast_bytes": weights,
        "memory_least": round(max(phases.values())),
        "memory_most": round(max(phases.values())),
    }
