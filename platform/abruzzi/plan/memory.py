"""Bytes of states on a rank. Source: paper section 2.4; docs/maths.md says what is counted."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.training import MemoryConfig, ModelConfig, ParallelConfig
from abruzzi.plan.layout import chunks
from abruzzi.plan.parameters import count_parameters


@dataclass(frozen=True, slots=True)
class StageStates:
    """Parameters and gradients of one pipeline rank, all its chunks together."""

    stage: int
    layers: int
    parameters: int
    bytes: int


def states_by_stage(model: ModelConfig, memory: MemoryConfig, parallel: ParallelConfig) -> list[StageStates]:
    """Of each pipeline rank: resident parameters in the compute dtype and float32 gradient accumulation; experts shared out over EP."""
    parameters = count_parameters(model)
    bytes_each = (2 if memory.dtype == "bfloat16" else 4) + 4
    of_stage = chunks(model, parallel.pp, parallel.vpp)
    states: list[StageStates] = []
    for rank in range(parallel.pp):
        mine = of_stage[rank :: parallel.pp]
        dense, moe = sum(c.dense for c in mine), sum(c.moe for c in mine)
        count = dense * parameters.dense_layer.total
        count += moe * (parameters.moe_layer.non_routed + parameters.moe_layer.routed_experts // parallel.ep)
        count += sum(parameters.embedding * c.has_embedding for c in mine)
        count += sum((parameters.head + parameters.final_norm) * c.has_head for c in mine)
        states.append(StageStates(rank, dense + moe, count, count * bytes_each))
    return states


def optimizer_bytes(parameters: int, memory: MemoryConfig, *, adamw: bool = False) -> int:
    """Float32 momentum (two for AdamW), and a float32 master copy when compute is bfloat16."""
    return parameters * (4 * (2 if adamw else 1) + (4 if memory.dtype == "bfloat16" else 0))
