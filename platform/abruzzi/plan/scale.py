"""The plan of a training stage at its full width, as plain data: what CLI, API and dashboard show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from abruzzi.plan.activations import activation_bytes_per_token, written_bytes_per_token
from abruzzi.plan.devices import Device
from abruzzi.plan.flops import flops_per_token
from abruzzi.plan.layout import Workload
from abruzzi.plan.rank_memory import RankMemory, chunk_bytes
from abruzzi.plan.step import Refused, StepPlan, first_rounds, plan_step
from abruzzi.plan.sweep import Candidate, sweep, what_would_fit

_DAY = 86_400.0
_DRAWN_ROUNDS = 2
_DRAWN_SPANS = 4000
"""A step of no more is drawn whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    sweep: bool = False
    """Rank other layouts of the same ranks, too: seconds of arithmetic."""
    timeline: bool = False
    """Spans of the planned schedule, for a picture."""
    price: float | None = None
    """Of one GPU-hour, in any currency; no price, no money."""
    device: Device | None = None
    """Instead of the pools' flavors: a machine by its measured table (devices.py: `measured_device`)."""
    nodes: int | None = None
    """Instead of the recipe's ranks, for pre-training stages."""


def describe(work: Workload, device: Device, options: PlanOptions) -> dict[str, Any]:
    """`feasible`, and either the reasons of the refusal and what would fit, or `by_rank`, `step`, `total`; both where only memory lacks."""
    found = plan_step(work, device)
    step = found.step if isinstance(found, Refused) else found
    refusals = found.reasons if isinstance(found, Refused) else []
    plan: dict[str, Any] = {
        "feasible": not refusals,
        "refusals": refusals,
        "would_fit": what_would_fit(work, device) if refusals and step is not None else None,
        "ranks": work.ranks,
        "ranks_per_node": device.ranks_per_node,
        "nodes": -(-work.ranks // device.ranks_per_node),
        "pp": work.parallel.pp,
        "vpp": work.parallel.vpp,
        "ep": work.parallel.ep,
        "data_ranks": work.data_ranks,
        "edp": work.edp,
        "microbatches": work.microbatches,
        "micro_tokens": work.micro_tokens,
        "extra_warmup": work.extra_warmup,
    }
    if step is not None:
        plan["by_rank"] = [_rank(rank) for rank in step.ranks]
        plan["activations"] = _activations(work, step)
        plan["step"] = _step(work, step)
        plan["total"] = total(work, step, options.price)
        if options.timeline:
            plan["timeline"] = timeline(work, device)
    if options.sweep:
        ranked = sweep(work, device)
        plan["sweep"] = {
            "tried": ranked.tried,
            "refused": ranked.refused,
            "ranked": [_candidate(c, options.price) for c in ranked.ranked],
        }
    return plan


def _rank(memory: RankMemory) -> dict[str, Any]:
    states = memory.states
    return {
        "rank": states.rank,
        "layers": list(states.layers),
        "parameters": states.parameters,
        "parameter_bytes": states.parameter_bytes,
        "gradient_bytes": states.gradient_bytes,
        "state_bytes": states.state_bytes,
        "optimizer_bytes": states.optimizer_bytes,
        "optimizer_on": memory.optimizer_on,
        "in_flight_chunks": memory.in_flight_chunks,
        "in_flight_bytes": memory.in_flight_bytes,
        "resident_bytes": memory.resident_bytes,
        "workspace_bytes": memory.workspace_bytes,
        "device_bytes": memory.device_bytes,
        "host_bytes": memory.host_bytes,
    }


def _activations(work: Workload, step: StepPlan) -> dict[str, Any]:
    return {
        "bytes_per_token_layer": activation_bytes_per_token(work.model, work.memory),
        "bytes_per_token_layer_kept": written_bytes_per_token(work.model, work.memory),
        "chunk_bytes": max(chunk_bytes(work, max(r.states.layers)) for r in step.ranks),
        "offload_bytes_per_second": step.offload_bytes_per_second,
    }


def _step(work: Workload, step: StepPlan) -> dict[str, Any]:
    return {
        "seconds": step.seconds,
        "pipeline_seconds": step.pipeline_seconds,
        "bubble": step.bubble,
        "idle": step.idle,
        "forward_seconds": max(s.forward for s in step.stages),
        "input_gradient_seconds": max(s.input_gradient for s in step.stages),
        "weight_gradient_seconds": max(s.weight_gradient for s in step.stages),
        "all_to_all_seconds": max(s.all_to_all for s in step.stages),
        "all_to_all_share": step.all_to_all_share,
        "exchange": asdict(step.exchange),
        "optimizer": {**asdict(step.optimizer), "seconds": step.optimizer.total},
        "tokens_per_second": step.tokens_per_second,
        "tokens_per_second_per_rank": step.tokens_per_second_per_rank,
        "flops_per_second_per_rank": step.mfu * step.peak_flops,
        "mfu": step.mfu,
        "checkpoint": {
            "bytes": step.checkpoint_bytes,
            "stall_seconds": step.checkpoint_stall_seconds,
            "write_seconds": step.checkpoint_write_seconds,
            "every_seconds": work.checkpoint.every,
        },
    }


def total(work: Workload, step: StepPlan, price: float | None) -> dict[str, Any] | None:
    """Of all phases; a longer sequence takes longer by its attention. None: nobody knows how many tokens there are."""
    if not work.phases:
        return None
    main = flops_per_token(work.model, work.batch.sequence_length)
    weighted = sum(p.tokens * flops_per_token(work.model, p.sequence_length) / main for p in work.phases)
    seconds = weighted / step.tokens_per_second
    hours = seconds / 3600 * work.ranks
    return {
        "tokens": sum(p.tokens for p in work.phases),
        "steps": work.steps,
        "seconds": seconds,
        "days": seconds / _DAY,
        "gpu_hours": hours,
        "price": price,
        "cost": None if price is None else hours * price,
    }


def _candidate(candidate: Candidate, price: float | None) -> dict[str, Any]:
    work, step = candidate.work, candidate.step
    whole = total(work, step, price)
    return {
        "pp": work.parallel.pp,
        "vpp": work.parallel.vpp,
        "ep": work.parallel.ep,
        "data_ranks": work.data_ranks,
        "microbatches": work.microbatches,
        "activations": candidate.policy,
        "optimizer_on": step.ranks[0].optimizer_on,
        "device_bytes": max(r.device_bytes for r in step.ranks),
        "bubble": step.bubble,
        "idle": step.idle,
        "seconds": step.seconds,
        "mfu": step.mfu,
        "tokens_per_second_per_rank": step.tokens_per_second_per_rank,
        "days": None if whole is None else whole["days"],
        "cost": None if whole is None else whole["cost"],
    }


def timeline(work: Workload, device: Device) -> dict[str, Any]:
    """Compute of all micro-batches on every pipeline rank, in a long step of the first ones: [operation, stage, micro-batch, start, end] in seconds."""
    spans_of_all = 3 * work.parallel.pp * work.parallel.vpp * work.microbatches
    shown, run = first_rounds(work, device, work.microbatches if spans_of_all <= _DRAWN_SPANS else _DRAWN_ROUNDS)
    spans = [
        [
            [s.action.op.value, s.action.stage, s.action.microbatch, round(s.start, 6), round(s.end, 6)]
            for s in of_rank
            if s.action.op.computes
        ]
        for of_rank in run.spans
    ]
    return {"microbatches": shown, "of": work.microbatches, "seconds": run.makespan, "ranks": spans}
