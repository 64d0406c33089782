"""Bytes on every pipeline rank: states, the optimizer's share, activations in flight, and what lies on the host. Source: paper section 2.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from abruzzi.plan.activations import activation_bytes_per_token, value_bytes, written_bytes_per_token
from abruzzi.plan.devices import Device
from abruzzi.plan.layout import Chunk, Workload, chunks
from abruzzi.plan.parameters import count_parameters

_FILLED = 0.9
"""Share of the device up to which the optimizer may stay there: tokens come to experts unevenly, so activations are never as planned to the byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStates:
    """Of the ranks at one place of the pipeline, one of its data ranks."""

    rank: int
    layers: tuple[int, ...]
    """Of each of its chunks."""
    whole_parameters: int
    """On each data rank: attention, norms, router, shared experts, dense layers, embedding, head."""
    routed_parameters: int
    """This rank's experts."""
    adamw_parameters: int
    """Of the whole ones: embedding, head and norms, which have two moments."""
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    """Its ZeRO-1 share: float32 momentum, master copy when compute is bfloat16."""

    @property
    def parameters(self) -> int:
        return self.whole_parameters + self.routed_parameters

    @property
    def state_bytes(self) -> int:
        return self.parameter_bytes + self.gradient_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    states: RankStates
    in_flight_chunks: int
    in_flight_bytes: int
    """Kept for backward at the worst moment, wherever it lies, each chunk taken as the rank's largest."""
    resident_bytes: int
    """Of that, on the device."""
    workspace_bytes: int
    """One layer with nothing saved on (backward brings it back), messages, and the logits on the last rank."""
    optimizer_on: Literal["device", "host"]
    device_bytes: int
    """All of it, with what the device keeps for itself."""
    host_bytes: int


def states_by_rank(work: Workload) -> list[RankStates]:
    """Resident parameters in the compute dtype, float32 gradients; of the optimizer what ZeRO-1 leaves: experts over EDP, whole, all else over the
    data ranks, evenly."""
    model, pp, ep = work.model, work.parallel.pp, work.parallel.ep
    parameters = count_parameters(model)
    of_stage = chunks(model, pp, work.parallel.vpp)
    value = value_bytes(work.memory)
    expert = parameters.moe_layer.routed_experts // max(1, model.num_experts)
    muon_each = 4 + (4 if work.memory.dtype == "bfloat16" else 0)
    of_all = work.optimizer.kind == "adamw"
    found = []
    for rank in range(pp):
        mine = of_stage[rank::pp]
        dense, moe = sum(c.dense for c in mine), sum(c.moe for c in mine)
        whole = dense * parameters.dense_layer.total + moe * parameters.moe_layer.non_routed
        adamw = (dense + moe) * (parameters.dense_layer.norms + model.q_lora_rank + model.kv_lora_rank)
        ends = sum(parameters.embedding * c.has_embedding for c in mine)
        ends += sum((parameters.head + parameters.final_norm) * c.has_head for c in mine)
        routed = moe * (model.num_experts // ep) * expert
        owned_experts = -(-model.num_experts // (ep * work.edp)) * expert * moe
        second = adamw + ends if not of_all else whole + ends
        share = muon_each * (whole + ends) + 4 * second
        optimizer = -(-share // work.data_ranks) + owned_experts * (muon_each + (4 if of_all else 0))
        count = whole + ends + routed
        found.append(
            RankStates(
                rank=rank,
                layers=tuple(c.layers for c in mine),
                whole_parameters=whole + ends,
                routed_parameters=routed,
                adamw_parameters=adamw + ends,
                parameter_bytes=count * value,
                gradient_bytes=count * 4,
                optimizer_bytes=optimizer,
            )
        )
    return found


def chunk_bytes(work: Workload, layers: int) -> int:
    """Kept for backward by one chunk and micro-batch; a dense layer is taken as an MoE layer, which keeps more."""
    return round(layers * activation_bytes_per_token(work.model, work.memory) * work.micro_tokens)


def workspace_bytes(work: Workload, mine: list[Chunk]) -> int:
    layer = written_bytes_per_token(work.model, work.memory) * work.micro_tokens
    messages = 4 * work.micro_tokens * work.model.hidden_size * value_bytes(work.memory)
    logits = work.micro_tokens * work.model.vocab_size * 4 if any(c.has_head for c in mine) else 0
    return round(layer + messages + logits)


def memory_by_rank(work: Workload, device: Device, in_flight: list[int], resident: list[int]) -> list[RankMemory]:
    """`in_flight`, `resident`: chunks by rank at the worst moment (pipeline.Simulation).
    The optimizer stays on the devices if every rank has room for it."""
    states = states_by_rank(work)
    of_stage = chunks(work.model, work.parallel.pp, work.parallel.vpp)
    pp = work.parallel.pp
    without = []
    for rank, own in enumerate(states):
        largest = chunk_bytes(work, max(own.layers))
        flying, staying = in_flight[rank] * largest, resident[rank] * largest
        space = workspace_bytes(work, of_stage[rank::pp])
        without.append((own, flying, staying, space, own.state_bytes + staying + space + device.reserve_bytes))
    room = None if device.memory_bytes is None else _FILLED * device.memory_bytes
    fits = room is None or all(total + own.optimizer_bytes <= room for own, *_, total in without)
    return [
        RankMemory(
            states=own,
            in_flight_chunks=in_flight[own.rank],
            in_flight_bytes=flying,
            resident_bytes=staying,
            workspace_bytes=space,
            optimizer_on="device" if fits else "host",
            device_bytes=total + (own.optimizer_bytes if fits else 0),
            host_bytes=flying - staying + (0 if fits else own.optimizer_bytes),
        )
        for own, flying, staying, space, total in without
    ]


def memory_refusals(work: Workload, device: Device, ranks: list[RankMemory]) -> list[str]:
    """By how much the fullest rank, or node, is over."""
    found = []
    worst = max(ranks, key=lambda r: r.device_bytes)
    if device.memory_bytes is not None and worst.device_bytes > device.memory_bytes:
        over = worst.device_bytes - device.memory_bytes
        found.append(
            f"pipeline rank {worst.states.rank} needs {worst.device_bytes / 1e9:.1f} GB and one {device.name} has {device.memory_bytes / 1e9:.1f} GB: "
            f"{over / 1e9:.1f} GB over, with the optimizer on the {worst.optimizer_on}."
        )
    node = max(r.host_bytes for r in ranks) * min(device.ranks_per_node, work.ranks)
    if device.node_memory_bytes is not None and node > device.node_memory_bytes:
        over = node - device.node_memory_bytes
        found.append(
            f"a node needs {node / 1e9:.0f} GB for what its {device.ranks_per_node} ranks keep on the host and has "
            f"{device.node_memory_bytes / 1e9:.0f} GB: {over / 1e9:.0f} GB over."
        )
    return found


def total_by_ranks(states: list[RankStates], ep: int) -> int:
    """Parameters of the model, summed over one model-parallel group: what is whole counts once, experts of every EP rank."""
    return sum(s.whole_parameters + ep * s.routed_parameters for s in states)
