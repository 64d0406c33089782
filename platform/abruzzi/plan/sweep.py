"""Which layouts a number of ranks allows, fastest first, and what would let a refused one fit.

All are estimated in closed form; the best of them are simulated, and only those are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from abruzzi.plan.devices import Device
from abruzzi.plan.layout import Workload, refusals
from abruzzi.plan.pipeline.order import warmup
from abruzzi.plan.rank_memory import memory_by_rank, memory_refusals
from abruzzi.plan.step import Refused, StepPlan, plan_step
from abruzzi.plan.step_time import optimizer_seconds, stage_seconds

_SHOWN = 6
_ALL_RECOMPUTED = ("layernorm", "swiglu", "mla_up_projection", "moe_down_projection")
_POLICIES: dict[str, dict[str, object]] = {
    "keep": {"recompute": (), "fp8_activations": False, "offload_activations": False},
    "recompute": {"recompute": _ALL_RECOMPUTED, "fp8_activations": False, "offload_activations": False},
    "recompute + FP8": {"recompute": _ALL_RECOMPUTED, "fp8_activations": True, "offload_activations": False},
    "recompute + FP8 + offload": {"recompute": _ALL_RECOMPUTED, "fp8_activations": True, "offload_activations": True},
}
"""Of activations, from the fastest to the smallest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    work: Workload
    policy: str
    step: StepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    ranked: list[Candidate]
    tried: int
    refused: dict[str, int]
    """{what: how many}: `layout`, `memory`."""


def sweep(work: Workload, device: Device, *, shown: int = _SHOWN) -> Sweep:
    """Feasible layouts of the same model, batch and ranks."""
    refused: Counter[str] = Counter()
    tried = 0
    estimated: list[tuple[float, int, str, Workload]] = []
    for policy, candidate in _layouts(work):
        tried += 1
        if refusals(candidate, device.ranks_per_node):
            refused["layout"] += 1
            continue
        seconds = estimate(candidate, device)
        if seconds is None:
            refused["memory"] += 1
            continue
        estimated.append((seconds, tried, policy, candidate))
    ranked: list[Candidate] = []
    for _, _, policy, candidate in sorted(estimated)[: shown + 2]:
        step = plan_step(candidate, device)
        if isinstance(step, Refused):
            refused["memory"] += 1
        else:
            ranked.append(Candidate(work=candidate, policy=policy, step=step))
    ranked.sort(key=lambda c: c.step.seconds)
    return Sweep(ranked=ranked[:shown], tried=tried, refused=dict(refused))


def _layouts(work: Workload) -> Iterator[tuple[str, Workload]]:
    """Every PP and EP that divide the ranks, with 1, 2 or 4 chunks and each policy."""
    for pp in _divisors(work.ranks):
        if pp > work.model.num_layers:
            continue
        for ep in _divisors(work.ranks // pp):
            if work.model.num_experts % ep:
                continue
            for vpp in (1, 2, 4) if pp > 1 else (1,):
                if pp * (vpp - 1) >= work.model.num_layers:
                    continue
                for policy, changes in _POLICIES.items():
                    yield policy, work.with_parallel(pp=pp, ep=ep, vpp=vpp).with_memory(**changes)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def estimate(work: Workload, device: Device) -> float | None:
    """Seconds of a step without a simulation, a little too good; None: memory would surely not do."""
    pp, vpp, m = work.parallel.pp, work.parallel.vpp, work.microbatches
    flying = [min(warmup(pp, m, vpp, work.extra_warmup, rank) + 1, m * vpp) for rank in range(pp)]
    staying = [min(chunks, 2) for chunks in flying] if work.memory.offload_activations else flying
    ranks = memory_by_rank(work, device, flying, staying)
    if memory_refusals(work, device, ranks):
        return None
    stages = stage_seconds(work, device)
    windows = [sum(s.forward + s.input_gradient + s.weight_gradient for s in stages[rank::pp]) for rank in range(pp)]
    exchanged = [2 * sum(s.all_to_all for s in stages[rank::pp]) for rank in range(pp)]
    slowest = max(max(pair) for pair in zip(windows, exchanged, strict=True))
    on_host = any(r.optimizer_on == "host" for r in ranks)
    optimizer = optimizer_seconds(work, device, [r.states for r in ranks], on_host=on_host)
    return slowest * m + (pp - 1) / vpp * max(windows) + optimizer.total


def what_would_fit(work: Workload, device: Device) -> str | None:
    """The nearest change of a layout that memory refuses: first the activations' policy, then more experts' and pipeline ranks."""
    at = next((i for i, changes in enumerate(_POLICIES.values()) if _fits(work.with_memory(**changes), device)), None)
    policies = list(_POLICIES)
    if at is not None:
        return f"activations: {policies[at]}"
    for key in ("ep", "pp"):
        for factor in (2, 4, 8):
            value = getattr(work.parallel, key) * factor
            for policy, changes in _POLICIES.items():
                candidate = work.with_parallel(**{key: value})
                if _fits(candidate.with_memory(**changes), device):
                    return f"{key} = {value} on the same {work.ranks} ranks, activations: {policy}"
    for factor in (2, 4, 8):
        wider = replace(work.with_parallel(ep=work.parallel.ep * factor), ranks=work.ranks * factor)
        for policy, changes in _POLICIES.items():
            if _fits(wider.with_memory(**changes), device):
                return f"ep = {wider.parallel.ep} on {wider.ranks} ranks, activations: {policy}"
    return None


def _fits(work: Workload, device: Device) -> bool:
    if refusals(work, device.ranks_per_node) or estimate(work, device) is None:
        return False
    return not isinstance(plan_step(work, device), Refused)
