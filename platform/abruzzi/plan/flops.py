"""Floating-point operations of a training step, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.parameters import count_parameters


def flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """6 x active parameters in matmuls, and causal attention: each token sees half the sequence on average."""
    linear = 6.0 * count_parameters(model).active_in_matmuls
    per_pair = model.num_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim)
    attention = 3.0 * 2.0 * per_pair * (sequence_length / 2) * model.num_layers
    return linear + attention


def newton_schulz_flops(model: ModelConfig, steps: int) -> float:
    """Of one optimizer step over all matrices: steps x (4 m^2 n + 2 m^3) with m <= n."""
    attention, router, dense, expert = matrix_flops(model, steps)
    moe_layers = model.num_layers - model.num_dense_layers
    moe = (model.num_experts + model.num_shared_experts) * expert + router
    return model.num_layers * attention + moe_layers * moe + model.num_dense_layers * dense


@dataclass(frozen=True, slots=True)
class Matrices:
    """(rows, columns) of every matrix that is orthogonalised by itself."""

    attention: tuple[tuple[int, int], ...]
    router: tuple[tuple[int, int], ...]
    dense: tuple[tuple[int, int], ...]
    expert: tuple[tuple[int, int], ...]


def matrices_of(model: ModelConfig) -> Matrices:
    return Matrices(
        attention=(
            (model.q_lora_rank, model.hidden_size),
            (model.num_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim), model.q_lora_rank),
            (model.kv_lora_rank + model.qk_rope_head_dim, model.hidden_size),
            (model.num_heads * (model.qk_nope_head_dim + model.v_head_dim), model.kv_lora_rank),
            (model.hidden_size, model.num_heads * model.v_head_dim),
        ),
        router=((model.num_experts, model.hidden_size),),
        dense=((model.intermediate_size, model.hidden_size),) * 3,
        expert=((model.moe_intermediate_size, model.hidden_size),) * 3,
    )


def matrix_flops(model: ModelConfig, steps: int) -> tuple[float, float, float, float]:
    """Newton-Schulz of one layer's attention, one router, one dense layer's SwiGLU, one expert."""

    def of(matrices: tuple[tuple[int, int], ...]) -> float:
        pairs = [sorted(shape) for shape in matrices]
        return sum(steps * (4.0 * m * m * n + 2.0 * m**3) for m, n in pairs)

    found = matrices_of(model)
    return of(found.attention), of(found.router), of(found.dense), of(found.expert)
