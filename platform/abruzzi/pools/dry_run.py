"""The dry run of a recipe against the pools as they are now: nodes, pods, quota, queue. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.graph import nearest
from abruzzi.contracts.plan import PlacementOut, Verdict
from abruzzi.contracts.pool import LOCAL, Amounts, PoolSpec, PoolStatus
from abruzzi.contracts.recipe import Recipe, StageBase
from abruzzi.plan.placement import node_count, workload_kind
from abruzzi.plan.planner import gpu_memory
from abruzzi.pools.estimate import Estimate
from abruzzi.pools.queue import QueueView, lacking, look
from abruzzi.pools.service import list_specs

_NOTHING = Amounts(cpus=0.0, memory=0)


async def place_all(
    session: AsyncSession, recipe: Recipe, planned: Mapping[str, Any], *, default: str, now: datetime
) -> dict[str, PlacementOut]:
    """By stage. `planned` is the recipe's plan (plan.plan_recipe). Each stage is judged as if it alone were to start now."""
    known = {spec.name: spec for spec in await list_specs(session)}
    views: dict[str, QueueView] = {}
    of_stage = {stage["id"]: stage for stage in planned["stages"]}
    made: dict[str, PlacementOut] = {}
    for stage in recipe.stage:
        name = default if stage.resources.pool == LOCAL else stage.resources.pool
        if name not in known:
            made[stage.id] = _no_pool(name, stage.resources.ranks, nearest(name, list(known)))
            continue
        if name not in views:
            views[name] = await look(session, name, now=now)
        made[stage.id] = _place(stage, views[name], _memory(of_stage[stage.id]))
    return made


def _memory(planned: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return planned.get("training") or planned.get("reinforcement")


def _place(stage: StageBase, view: QueueView, training: Mapping[str, Any] | None) -> PlacementOut:
    pool, resources = view.spec, stage.resources
    asked = pool.needs(resources.ranks, threads=resources.threads, capacity=view.status.capacity)
    is_local = pool.kind == "local"
    nodes = 1 if is_local else node_count(resources.ranks, pool.ranks_per_node)
    on_a_node = resources.ranks if is_local else min(resources.ranks, pool.ranks_per_node)
    estimate = view.estimate_next(asked)
    verdict, sentence = _judge(stage, view, asked, estimate)
    queues = verdict in (Verdict.QUEUES, Verdict.FITS)
    there, of = gpu_memory(pool.flavor) if pool.rank.gpus else (pool.rank.memory, f"a rank in pool {pool.name!r}")
    return PlacementOut(
        pool=pool.name,
        pool_kind=pool.kind,
        flavor=pool.flavor,
        workload="process" if is_local else _kind(stage, nodes, view.status),
        nodes=nodes,
        pods=0 if is_local else nodes,
        ranks=resources.ranks,
        ranks_per_node=on_a_node,
        asked=asked,
        per_pod=pool.needs(on_a_node, threads=resources.threads, capacity=view.status.capacity),
        verdict=verdict,
        sentence=sentence,
        position=len(view.waiting) + 1 if verdict is Verdict.QUEUES else None,
        eta_seconds=estimate.seconds if queues else None,
        eta_basis=estimate.basis if queues else "",
        memory_least=training["memory_least"] if training else None,
        memory_most=training["memory_most"] if training else None,
        memory_there=there,
        memory_of=of,
    )


def _kind(stage: StageBase, nodes: int, status: PoolStatus) -> str | None:
    if not status.kinds:
        return None
    return workload_kind(stage.kind, nodes, status.kinds, framework=getattr(stage.resources, "framework", None))


def _judge(stage: StageBase, view: QueueView, asked: Amounts, estimate: Estimate) -> tuple[Verdict, str]:
    pool = view.spec
    never = pool.never_fits(stage.resources.ranks, threads=stage.resources.threads)
    if never is not None:
        return Verdict.NEVER_FITS, f"It can never run here: {never}."
    if view.free is None or view.quota is None:
        return Verdict.NO_QUOTA, f"Pool {pool.name!r} has no quota: nobody queues."
    field = lacking(asked, view.free) or ("gpus" if asked.gpus else "cpus")
    whose = "of quota" if pool.quota is not None else "of this machine"
    free = f"{_amount(field, view.free)} of {_amount(field, view.quota)} {_UNITS[field]} {whose} are free"
    if estimate.seconds == 0 and lacking(asked, view.free) is None:
        return Verdict.FITS, f"It would be let in at once: it asks for {_amount(field, asked)}, and {free}."
    until = f"in about {estimate.seconds:.0f} s" if estimate.seconds is not None else "no estimate"
    ahead = len(view.waiting)
    return (
        Verdict.QUEUES,
        f"It would wait behind {ahead} other{'' if ahead == 1 else 's'}: it asks for {_amount(field, asked)}, and {free} ({until}: {estimate.basis}).",
    )


_UNITS = {"gpus": "GPUs", "cpus": "CPUs", "memory": "GiB"}


def _amount(field: str, amounts: Amounts) -> str:
    return f"{amounts.memory / (1 << 30):,.4g}" if field == "memory" else f"{getattr(amounts, field):g}"


def _no_pool(name: str, ranks: int, hint: str) -> PlacementOut:
    return PlacementOut(
        pool=name, pool_kind=None, flavor="", workload=None, nodes=0, pods=0, ranks=ranks, ranks_per_node=0, asked=_NOTHING, per_pod=_NOTHING,
        verdict=Verdict.NO_POOL, sentence=f"There is no pool {name!r}. {hint}".strip(), position=None, eta_seconds=None, eta_basis="",
        memory_least=None, memory_most=None, memory_there=None, memory_of="",
    )  # fmt: skip


def warnings(placements: Mapping[str, PlacementOut]) -> list[str]:
    """What submitting would be refused for, and what would run out of memory."""
    found: list[str] = []
    for stage_id, placed in placements.items():
        if placed.verdict in (Verdict.NO_POOL, Verdict.NEVER_FITS):
            found.append(f"stage.{stage_id}: {placed.sentence}")
        if placed.workload is None and placed.pool_kind == "kubernetes" and placed.nodes > 1:
            found.append(
                f"stage.{stage_id}: no workload is known that could run it over {placed.nodes} nodes of pool {placed.pool!r}."
            )
        if placed.memory_there is None or placed.memory_least is None or placed.memory_most is None:
            continue
        gigabytes = [
            f"{value / 1e9:.1f} GB" for value in (placed.memory_least, placed.memory_most, placed.memory_there)
        ]
        if placed.memory_least > placed.memory_there:
            found.append(
                f"stage.{stage_id}: a rank needs {gigabytes[0]} at least; {placed.memory_of} has {gigabytes[2]}."
            )
        elif placed.memory_most > placed.memory_there:
            found.append(
                f"stage.{stage_id}: it fits only while the optimizer is shared by the data-parallel ranks: "
                f"{gigabytes[1]} with all of it on a rank; {placed.memory_of} has {gigabytes[2]}."
            )
    return found


def flavors(specs: list[PoolSpec], default: str) -> dict[str, str]:
    """{what a recipe calls the pool: the pool's flavor}."""
    known = {spec.name: spec.flavor for spec in specs}
    return {**known, LOCAL: known.get(default, "")}
