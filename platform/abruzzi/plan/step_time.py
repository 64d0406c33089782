"""Seconds of every action of a step, from the operation table, and of what follows the pipeline. Source: docs/maths.md; paper section 2.4."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.calibration import Operation
from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.activations import value_bytes, written_bytes_per_token
from abruzzi.plan.devices import Device
from abruzzi.plan.flops import matrices_of, matrix_flops
from abruzzi.plan.layout import Chunk, Workload, chunks
from abruzzi.plan.operations import OperationTable, Part, Pass
from abruzzi.plan.pipeline import Action, Op
from abruzzi.plan.rank_memory import RankStates, chunk_bytes

_PASSES: tuple[Pass, ...] = ("forward", "input_gradient", "weight_gradient")


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
    tokens, table = work.micro_tokens, device.table
    forward, input_gradient, weight_gradient = (pass_seconds(work, device, chunk, step) for step in _PASSES)
    all_to_all = _all_to_all(work, device) * chunk.moe
    message = tokens * work.model.hidden_size * value_bytes(work.memory)
    link = device.rates.within_node if work.ranks <= device.ranks_per_node else device.rates.between_nodes
    send = message / link if table is None else table.sized(Operation.MESSAGE, message)
    if table is not None and work.parallel.ep > 1:  # nothing hides it: it is a part of forward and of backward
        forward += all_to_all
        input_gradient += chunk.moe * _shared_experts(table, work, gradient=True)
    return StageSeconds(
        forward=forward,
        input_gradient=input_gradient + _recompute(work, device, chunk),
        weight_gradient=weight_gradient,
        all_to_all=all_to_all,
        copy=chunk_bytes(work, chunk.layers) / device.rates.host_copy if work.memory.offload_activations else 0.0,
        send=send if work.parallel.pp > 1 else 0.0,
    )


def pass_seconds(work: Workload, device: Device, chunk: Chunk, step: Pass) -> float:
    """Of one micro-batch through a stage, without exchange and recomputation."""
    model, tokens, operations = work.model, work.micro_tokens, device.operations
    length, hidden = work.batch.sequence_length, model.hidden_size

    def product(k: int, n: int) -> float:
        shapes = {"forward": (tokens, k, n), "input_gradient": (tokens, n, k), "weight_gradient": (k, tokens, n)}
        return operations.matmul(*shapes[step])

    def of_experts(k: int, n: int) -> float:
        rows, local = tokens * model.num_experts_per_token, model.num_experts // work.parallel.ep
        return operations.grouped_matmul(rows, local, *((n, k) if step == "input_gradient" else (k, n)))

    products = products_of(model)
    seconds = chunk.layers * sum(product(k, n) for k, n in products.attention)
    seconds += chunk.dense * sum(product(k, n) for k, n in products.dense)
    seconds += chunk.moe * sum(product(k, n) for k, n in products.moe)
    seconds += chunk.moe * sum(of_experts(k, n) for k, n in products.expert)
    seconds += sum(product(k, n) for k, n in products.head) * chunk.has_head
    if step != "weight_gradient":
        key = model.qk_nope_head_dim + model.qk_rope_head_dim
        sequences = tokens // length
        seconds += chunk.layers * operations.attention(
            sequences, length, model.num_heads, key, model.v_head_dim, gradient=step == "input_gradient"
        )
    kept = tokens * written_bytes_per_token(model, work.memory)
    rest: dict[Part, int] = {"dense": chunk.dense, "moe": chunk.moe}
    if device.table is not None:
        rest |= {"embedding": chunk.has_embedding, "head": chunk.has_head}
    for part, count in rest.items():
        if count:
            seconds += count * operations.rest(part, step, tokens=tokens, hidden=hidden, kept_bytes=kept)
    return seconds


@dataclass(frozen=True, slots=True)
class Products:
    """(inputs, outputs) of every matrix that multiplies a token's row."""

    attention: tuple[tuple[int, int], ...]
    dense: tuple[tuple[int, int], ...]
    moe: tuple[tuple[int, int], ...]
    """Router and shared experts."""
    expert: tuple[tuple[int, int], ...]
    head: tuple[tuple[int, int], ...]


def products_of(model: ModelConfig) -> Products:
    hidden, heads, width = model.hidden_size, model.num_heads, model.moe_intermediate_size
    shared = width * model.num_shared_experts
    return Products(
        attention=(
            (hidden, model.q_lora_rank),
            (model.q_lora_rank, heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)),
            (hidden, model.kv_lora_rank + model.qk_rope_head_dim),
            (model.kv_lora_rank, heads * (model.qk_nope_head_dim + model.v_head_dim)),
            (heads * model.v_head_dim, hidden),
        ),
        dense=((hidden, 2 * model.intermediate_size), (model.intermediate_size, hidden)),
        moe=((hidden, model.num_experts), *(((hidden, 2 * shared), (shared, hidden)) if shared else ())),
        expert=((hidden, 2 * width), (width, hidden)),
        head=((hidden, model.vocab_size),),
    )


def _all_to_all(work: Workload, device: Device) -> float:
    """Of one layer, there and back."""
    ep, rates = work.parallel.ep, device.rates
    if ep == 1:
        return 0.0
    if device.table is not None:
        return _shared_experts(device.table, work)
    way = exchange(work.model, ep, device.ranks_per_node, value_bytes(work.memory))
    within = (way.bytes - way.bytes_between_nodes) * (1 - 1 / max(1, min(ep, device.ranks_per_node)))
    slower = max(way.bytes_between_nodes / rates.between_nodes, within / rates.within_node)
    return 2 * slower * work.micro_tokens


def _shared_experts(table: OperationTable, work: Workload, *, gradient: bool = False) -> float:
    """Of one layer, as if each rank had a core: what shares them is simulated. While ranks wait for each other, other processes compute, where they are more
    than the cores: then what counts is what keeps a processor busy."""
    elapsed, busy = (
        (Operation.ALL_TO_ALL_GRADIENT, Operation.ALL_TO_ALL_GRADIENT_WORK)
        if gradient
        else (Operation.ALL_TO_ALL, Operation.ALL_TO_ALL_WORK)
    )
    ep, tokens = work.parallel.ep, work.micro_tokens
    if ep < work.ranks and work.ranks > table.cores:
        return table.sized(busy, tokens, ranks=ep)
    return table.sized(elapsed, tokens, ranks=ep) * table.speed(ep)


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
    update: float = 0.0
    """What is neither, where it was measured."""

    @property
    def total(self) -> float:
        """Newton-Schulz of one matrix runs while another's state is copied."""
        return max(self.newton_schulz, self.host_copy) + self.gradients + self.update


def optimizer_seconds(work: Workload, device: Device, states: list[RankStates], *, on_host: bool) -> OptimizerSeconds:
    rates, model = device.rates, work.model
    value = value_bytes(work.memory)
    if device.table is not None:
        table = device.table
        measured = [_measured(work, table, own, mine) for own, mine in zip(states, _by_rank(work), strict=True)]
        return max(measured, key=lambda seconds: seconds.total)
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


def _measured(work: Workload, table: OperationTable, own: RankStates, mine: list[Chunk]) -> OptimizerSeconds:
    """All ranks do this at once, on the same cores. Sums among some were measured as those alone did them: of all, each has its part of the machine."""
    model, ranks, edp, steps = work.model, work.data_ranks, work.edp, work.optimizer.newton_schulz_steps
    speed = table.speed(work.ranks)
    newton_schulz = 0.0
    if work.optimizer.kind != "adamw":

        def each(matrices: tuple[tuple[int, int], ...], count: int = 1) -> float:
            return sum(table.newton_schulz(count, rows, columns, steps) for rows, columns in matrices)

        matrices = matrices_of(model)
        layers, moe = sum(c.layers for c in mine), sum(c.moe for c in mine)
        whole = layers * each(matrices.attention) + (layers - moe) * each(matrices.dense)
        whole += moe * (each(matrices.router) + model.num_shared_experts * each(matrices.expert))
        experts = each(matrices.expert, -(-model.num_experts // (work.parallel.ep * edp)))
        newton_schulz = (whole / ranks + moe * experts) / speed

    def shared(parameters: int, among: int) -> float:
        if among == 1 or parameters == 0:
            return 0.0
        sizes = ((Operation.REDUCE, 4 * parameters), (Operation.BROADCAST, parameters * value_bytes(work.memory)))
        return sum(table.sized(op, size, ranks=among) for op, size in sizes) * table.speed(among) / speed

    owned = own.whole_parameters // ranks + own.routed_parameters // edp
    if edp == ranks:  # in the same messages
        gradients = shared(own.whole_parameters + own.routed_parameters, ranks)
    else:
        gradients = shared(own.whole_parameters, ranks) + shared(own.routed_parameters, edp)
    return OptimizerSeconds(
        newton_schulz=newton_schulz,
        host_copy=0.0,
        gradients=gradients,
        update=table.sized(Operation.UPDATE, owned) / speed + table.sized(Operation.STEP, work.ranks),
    )


def _by_rank(work: Workload) -> list[list[Chunk]]:
    of_stage = chunks(work.model, work.parallel.pp, work.parallel.vpp)
    return [of_stage[rank :: work.parallel.pp] for rank in range(work.parallel.pp)]
