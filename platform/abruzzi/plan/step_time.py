"""Seconds of every action of a step, from the operation table, and of what follows the pipeline. Source: docs/maths.md; paper section 2.4."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.activations import value_bytes, written_bytes_per_token
from abruzzi.plan.devices import Device
from abruzzi.plan.flops import matrix_flops
from abruzzi.plan.layout import Chunk, Workload, chunks
from abruzzi.plan.parameters import attention_parameters
from abruzzi.plan.pipeline import Action, Op
from abruzzi.plan.rank_memory import RankStates, chunk_bytes

_PASSES_FORWARD, _PASSES_BACKWARD = 2, 3
"""How often what a layer keeps without any policy crosses the device's memory outside of matrix multiplications: written and read; in backward the
gradient is written and read beside what is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds:
    """Of one micro-batch through one stage."""

    forward: float
    input_gradient: float
    weight_gradient: float
    all_to_all: float
    """Dispatch to the experts and back, of all its layers."""
    copy: float
    """Of what is kept, to the host or from it."""
    send: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one rank sends for a token and MoE layer in one direction, to experts elsewhere."""

    ranks_reached: float
    """Of EP, by one token's experts on average: a rank gets it once, however many of its experts it takes."""
    bytes: float
    bytes_between_nodes: float
    bytes_without_dedup: float


def exchange(model: ModelConfig, ep: int, ranks_per_node: int, value: int) -> Exchange:
    local = model.num_experts // ep
    missed = 1.0
    for i in range(model.num_experts_per_token):
        missed *= max(0, model.num_experts - local - i) / (model.num_experts - i)
    reached = ep * (1 - missed)
    row = model.hidden_size * value
    here = min(ep, ranks_per_node)
    each = reached / ep * row
    return Exchange(
        ranks_reached=reached,
        bytes=each * ep if ep > 1 else 0.0,
        bytes_between_nodes=each * (ep - here),
        bytes_without_dedup=model.num_experts_per_token * row if ep > 1 else 0.0,
    )


def stage_seconds(work: Workload, device: Device) -> list[StageSeconds]:
    """Of every stage in order."""
    return [_of(work, device, chunk) for chunk in chunks(work.model, work.parallel.pp, work.parallel.vpp)]


def _of(work: Workload, device: Device, chunk: Chunk) -> StageSeconds:
    model, tokens, rates = work.model, work.micro_tokens, device.rates
    value = value_bytes(work.memory)
    attention = attention_parameters(model) - model.q_lora_rank - model.kv_lora_rank
    expert = 3 * model.hidden_size * model.moe_intermediate_size
    plain = chunk.layers * attention
    plain += chunk.dense * 3 * model.hidden_size * model.intermediate_size
    plain += chunk.moe * (model.num_experts * model.hidden_size + model.num_shared_experts * expert)
    plain += model.vocab_size * model.hidden_size if chunk.has_head else 0
    matmul = 2.0 * tokens * plain / rates.matmul
    matmul += 2.0 * tokens * chunk.moe * model.num_experts_per_token * expert / rates.grouped_matmul
    core = _attention_core(model, work.batch.sequence_length, tokens) * chunk.layers / rates.attention
    passes = chunk.layers * tokens * written_bytes_per_token(model, work.memory) / rates.memory
    way = exchange(model, work.parallel.ep, device.ranks_per_node, value)
    all_to_all = 2 * max(
        way.bytes_between_nodes / rates.between_nodes,
        (way.bytes - way.bytes_between_nodes)
        * (1 - 1 / max(1, min(work.parallel.ep, device.ranks_per_node)))
        / rates.within_node,
    )
    message = tokens * model.hidden_size * value
    link = rates.within_node if work.ranks <= device.ranks_per_node else rates.between_nodes
    return StageSeconds(
        forward=matmul + core + _PASSES_FORWARD * passes,
        input_gradient=matmul + 2 * core + _PASSES_BACKWARD * passes + _recompute(work, device, chunk),
        weight_gradient=matmul,
        all_to_all=all_to_all * tokens * chunk.moe,
        copy=chunk_bytes(work, chunk.layers) / rates.host_copy if work.memory.offload_activations else 0.0,
        send=message / link if work.parallel.pp > 1 else 0.0,
    )


def _attention_core(model: ModelConfig, sequence_length: int, tokens: int) -> float:
    """FLOPs of one layer's forward: each token sees half the sequence on average."""
    per_pair = model.num_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim)
    return 2.0 * per_pair * (sequence_length / 2) * tokens


def _recompute(work: Workload, device: Device, chunk: Chunk) -> float:
    """What backward multiplies once more. Norms and SwiGLU are bound by memory: their passes are those of the plain layer. Nothing needs the experts'
    outputs, so that their down-projection is never repeated."""
    if "mla_up_projection" not in work.memory.recompute:
        return 0.0
    model = work.model
    query = model.q_lora_rank * model.num_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)
    key_value = model.kv_lora_rank * model.num_heads * (model.qk_nope_head_dim + model.v_head_dim)
    return 2.0 * work.micro_tokens * (query + key_value) * chunk.layers / device.rates.matmul


class ActionSeconds:
    """Seconds of an action (`pipeline.Cost`)."""

    def __init__(self, stages: list[StageSeconds]) -> None:
        self._of = {
            Op.F: [s.forward for s in stages],
            Op.I: [s.input_gradient for s in stages],
            Op.W: [s.weight_gradient for s in stages],
            Op.ALL_TO_ALL_F: [s.all_to_all for s in stages],
            Op.ALL_TO_ALL_I: [s.all_to_all for s in stages],
            Op.OFFLOAD: [s.copy for s in stages],
            Op.ONLOAD: [s.copy for s in stages],
            Op.SEND_F: [s.send for s in stages],
            Op.SEND_I: [s.send for s in stages],
        }

    def __call__(self, action: Action) -> float:
        return self._of[action.op][action.stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSeconds:
    """Of the slowest rank."""

    newton_schulz: float
    host_copy: float
    """State in and out, both ways at once; 0 where it stays on the device."""
    gradients: float
    """Reduce-scatter of float32 gradients, and all-gather of the new parameters."""

    @property
    def total(self) -> float:
        """Newton-Schulz of one matrix runs while another's state is copied."""
        return max(self.newton_schulz, self.host_copy) + self.gradients


def optimizer_seconds(work: Workload, device: Device, states: list[RankStates], *, on_host: bool) -> OptimizerSeconds:
    rates, model = device.rates, work.model
    value = value_bytes(work.memory)
    found = []
    link = rates.within_node if work.ranks <= device.ranks_per_node else rates.between_nodes
    for own, mine in zip(states, _by_rank(work), strict=True):
        flops = 0.0
        if work.optimizer.kind != "adamw":
            attention, router, dense, expert = matrix_flops(model, work.optimizer.newton_schulz_steps)
            layers, moe = sum(c.layers for c in mine), sum(c.moe for c in mine)
            whole = layers * attention + moe * (router + model.num_shared_experts * expert) + (layers - moe) * dense
            flops = whole / work.data_ranks + moe * expert * -(-model.num_experts // (work.parallel.ep * work.edp))
        moved = own.whole_parameters * (1 - 1 / work.data_ranks) + own.routed_parameters * (1 - 1 / work.edp)
        found.append(
            OptimizerSeconds(
                newton_schulz=flops / rates.newton_schulz,
                host_copy=own.optimizer_bytes / rates.host_copy if on_host else 0.0,
                gradients=moved * (4 + value) / link,
            )
        )
    return max(found, key=lambda seconds: seconds.total)


def _by_rank(work: Workload) -> list[list[Chunk]]:
    of_stage = chunks(work.model, work.parallel.pp, work.parallel.vpp)
    return [of_stage[rank :: work.parallel.pp] for rank in range(work.parallel.pp)]
