"""A training step on a layout, whole: memory by rank, the simulated pipeline, time, rate and cost, or why it cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from abruzzi.plan.activations import value_bytes
from abruzzi.plan.devices import Device
from abruzzi.plan.flops import flops_per_token
from abruzzi.plan.layout import Workload, refusals
from abruzzi.plan.parameters import count_parameters
from abruzzi.plan.pipeline import Action, Simulation, simulate, simulate_shared, training_table
from abruzzi.plan.rank_memory import RankMemory, memory_by_rank, memory_refusals, states_by_rank
from abruzzi.plan.step_time import (
    ActionSeconds,
    Exchange,
    OptimizerSeconds,
    StageSeconds,
    exchange,
    optimizer_seconds,
    stage_seconds,
)

_ROUNDS = 3
"""Rounds of micro-batches that are simulated; a longer step repeats the last of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    ranks: list[RankMemory]
    """By pipeline rank."""
    stages: list[StageSeconds]
    exchange: Exchange
    optimizer: OptimizerSeconds
    bubble: float
    """(PP - 1) / (vpp x micro-batches + PP - 1): of a schedule with equal stages and nothing exposed."""
    idle: float
    """Share of the pipeline's time in which ranks do not compute, as simulated: the bubble, unequal stages, messages that do not hide."""
    pipeline_seconds: float
    offload_bytes_per_second: float
    """Each way, while pairs of forward and backward run; of the rank that copies most."""
    all_to_all_share: float
    """Of the compute that it could hide under: above 1 it cannot."""
    checkpoint_bytes: int
    checkpoint_stall_seconds: float
    """Staging copy of the fullest rank's share."""
    checkpoint_write_seconds: float
    flops_per_step: float
    tokens_per_step: int
    world: int
    peak_flops: float

    @property
    def seconds(self) -> float:
        return self.pipeline_seconds + self.optimizer.total

    @property
    def tokens_per_second(self) -> float:
        return self.tokens_per_step / self.seconds

    @property
    def tokens_per_second_per_rank(self) -> float:
        return self.tokens_per_second / self.world

    @property
    def mfu(self) -> float:
        return self.flops_per_step / (self.seconds * self.world * self.peak_flops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    reasons: list[str]
    step: StepPlan | None
    """What it would be if memory were there; None: the layout itself cannot be."""


@lru_cache(maxsize=256)
def plan_step(work: Workload, device: Device) -> StepPlan | Refused:
    reasons = refusals(work, device.ranks_per_node)
    if reasons:
        return Refused(reasons=reasons, step=None)
    step = _plan(work, device)
    over = memory_refusals(work, device, step.ranks)
    return Refused(reasons=over, step=step) if over else step


def _plan(work: Workload, device: Device) -> StepPlan:
    pp, vpp, m = work.parallel.pp, work.parallel.vpp, work.microbatches
    stages = stage_seconds(work, device)
    pipeline, run = simulated(work, stages, device)
    ranks = memory_by_rank(work, device, run.in_flight, run.resident)
    on_host = any(r.optimizer_on == "host" for r in ranks)
    of_rank = [stages[rank::pp] for rank in range(pp)]
    # A pair of forward and backward of every chunk: what copies and all-to-alls have to hide under.
    windows = [sum(s.forward + s.input_gradient + s.weight_gradient for s in mine) for mine in of_rank]
    copied = [sum(s.copy for s in mine) * device.rates.host_copy for mine in of_rank]
    exchanged = [2 * sum(s.all_to_all for s in mine) for mine in of_rank]
    share, size = _checkpoint(work)
    return StepPlan(
        ranks=ranks,
        stages=stages,
        exchange=exchange(work.model, work.parallel.ep, device.ranks_per_node, value_bytes(work.memory)),
        optimizer=optimizer_seconds(work, device, states_by_rank(work), on_host=on_host),
        bubble=(pp - 1) / (vpp * m + pp - 1),
        idle=idle_share(work, stages, pipeline),
        pipeline_seconds=pipeline,
        offload_bytes_per_second=max(c / w for c, w in zip(copied, windows, strict=True)),
        all_to_all_share=max(e / w for e, w in zip(exchanged, windows, strict=True)),
        checkpoint_bytes=size,
        checkpoint_stall_seconds=share / device.rates.host_copy,
        checkpoint_write_seconds=share / device.rates.checkpoint_write,
        flops_per_step=flops_per_token(work.model, work.batch.sequence_length) * work.tokens_per_step,
        tokens_per_step=work.tokens_per_step,
        world=work.ranks,
        peak_flops=device.peak_flops,
    )


def idle_share(work: Workload, stages: Sequence[StageSeconds], pipeline_seconds: float) -> float:
    """Of the pipeline's time, in which ranks do not compute."""
    computed = work.microbatches * sum(s.forward + s.input_gradient + s.weight_gradient for s in stages)
    return 1 - computed / (work.parallel.pp * pipeline_seconds)


def idle_by_cause(work: Workload, device: Device) -> list[tuple[str, float]]:
    """(what the schedule would be like, share of its time in which ranks idle): from equal stages whose exchanges take no time to the plan itself, each
    with one more of what makes ranks wait."""
    stages = stage_seconds(work, device)
    layer = stages[len(stages) // 2]
    short_head = [*stages[:-1], layer]
    found = {
        "all stages alike, no exchange of tokens": [replace(layer, all_to_all=0.0)] * len(stages),
        "all stages alike": [layer] * len(stages),
        "the layers as they lie, the head no longer than a layer": short_head,
        "as planned": stages,
    }
    return [(name, idle_share(work, those, simulated(work, those, device)[0])) for name, those in found.items()]


def simulated(work: Workload, stages: Sequence[StageSeconds], device: Device) -> tuple[float, Simulation]:
    """Seconds of the pipeline, and the simulation of its first rounds: a longer step repeats its steady state."""
    pp, m = work.parallel.pp, work.microbatches
    rounds = max(1, m // pp)
    a_round = m // rounds if work.parallel.vpp > 1 else pp
    few = min(m, _ROUNDS * a_round)
    run = _simulation(work, few, stages, device)
    if few == m:
        return run.makespan, run
    before = _simulation(work, few - a_round, stages, device)
    return run.makespan + (m - few) / a_round * (run.makespan - before.makespan), run


def _simulation(work: Workload, microbatches: int, stages: Sequence[StageSeconds], device: Device) -> Simulation:
    seconds, shared = ActionSeconds(list(stages)), device.table
    if shared is not None:
        table = _table(work, microbatches, beside=False)
        return simulate_shared(table, seconds, copies=work.data_ranks, speed=shared.speed)
    return simulate(_table(work, microbatches, beside=True), seconds)


def _table(work: Workload, microbatches: int, *, beside: bool) -> list[list[Action]]:
    """`beside`: exchanges and copies run beside compute."""
    return training_table(
        work.parallel,
        microbatches,
        all_to_all=beside and work.parallel.ep > 1,
        offload=beside and work.memory.offload_activations,
    )


def first_rounds(work: Workload, device: Device, rounds: int) -> tuple[int, Simulation]:
    """(micro-batches, their simulation): the beginning of a step, or all of a short one."""
    pp, m = work.parallel.pp, work.microbatches
    few = min(m, rounds * (m // max(1, m // pp) if work.parallel.vpp > 1 else pp))
    return few, _simulation(work, few, stage_seconds(work, device), device)


def _checkpoint(work: Workload) -> tuple[float, int]:
    """(bytes of the rank that writes most, of all): parameters once, in the compute dtype, and the optimizer's state."""
    value = value_bytes(work.memory)
    states = states_by_rank(work)
    shares = [
        s.whole_parameters * value / work.data_ranks + s.routed_parameters * value / work.edp + s.optimizer_bytes
        for s in states
    ]
    parameters = count_parameters(work.model)
    each = value + 4 * (2 if work.optimizer.kind == "adamw" else 1) + (4 if work.memory.dtype == "bfloat16" else 0)
    moments = 0 if work.optimizer.kind == "adamw" else 4 * sum(s.adamw_parameters for s in states)
    return max(shares), parameters.total * each + moments
