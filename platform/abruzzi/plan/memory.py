"""Bytes of states on a rank. Source: paper section 2.4; docs/maths.md says what is counted."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.training import MemoryConfig, ModelConfig
from abruzzi.plan.parameters import count_parameters


@dataclass(frozen=True, slots=True)
class StageStates:
    """Parameters and gradients of one pipeline stage on one rank."""

    stage: int
    layers: int
    parameters: int
    bytes: int


def layers_by_stage(num_layers: int, pp: int) -> list[int]:
    """As even as possible; the first and the last stages, which also hold embedding and head, get the smaller share."""
    base, rest = divmod(num_layers, pp)
    counts = [base] * pp
    order = sorted(range(pp), key=lambda s: (abs(s - (pp - 1) / 2), s))
    for stage in order[:rest]:
        counts[stage] += 1
    return counts


def states_by_stage(model: ModelConfig, memory: MemoryConfig, *, pp: int, ep: int) -> list[StageStates]:
    """Resident parameters in the compute dtype and float32 gradient accumulation; experts sharded over ep."""
    parameters = count_parameters(model)
    bytes_each = (2 if memory.dtype == "bfloat16" else 4) + 4
    states: list[StageStates] = []
    first = 0
    for stage, layers in enumerate(layers_by_stage(model.num_layers, pp)):
        dense = max(0, min(model.num_dense_layers - first, layers))
        moe = layers - dense
        count = dense * parameters.dense_layer.total
        count += moe * (parameters.moe_layer.non_routed + parameters.moe_layer.routed_experts // ep)
        count += parameters.embedding if stage == 0 else 0
        count += parameters.head + parameters.final_norm if stage == pp - 1 else 0
        states.append(StageStates(stage, layers, count, count * bytes_each))
        first += layers
    return states


def optimizer_bytes(parameters: int, memory: MemoryConfig, *, adamw: bool = False) -> int:
    """Float32 momentum (two for AdamW), and a float32 master copy when compute is bfloat16."""
    return parameters * (4 * (2 if adamw else 1) + (4 if memory.dtype == "bfloat16" else 0))
