"""From an order of compute to what a rank does: messages, all-to-alls and copies put where they hide.

A receive is begun before the compute that comes before its consumer; a send follows its producer; an offload follows its F, an onload is begun
before the two computes that come before its I, so that one goes out while another comes in (paper section 2.4): what a layer keeps of a micro-batch may
take longer to copy than its forward does to compute.
"""

from __future__ import annotations

from collections.abc import Sequence

from abruzzi.contracts.training import ParallelConfig
from abruzzi.plan.pipeline.actions import Action, Op
from abruzzi.plan.pipeline.order import compute_order, forward_order, needed

Table = list[list[Action]]
"""Of each rank."""

_ONLOAD_LEAD = 2
"""Computes before its I that an onload may hide under."""
_SENDS = {Op.F: Op.SEND_F, Op.I: Op.SEND_I}
_RECEIVES = {Op.F: Op.RECV_F, Op.I: Op.RECV_I}
_ALL_TO_ALLS = {Op.F: Op.ALL_TO_ALL_F, Op.I: Op.ALL_TO_ALL_I}


def action_table(
    ranks: int,
    microbatches: int,
    *,
    chunks: int = 1,
    extra_warmup: int = 0,
    deferred_weights: int | None = 0,
    all_to_all: bool = False,
    offload: bool = False,
) -> Table:
    """A training step (order.py: `compute_order`). `all_to_all`: stages have experts on other ranks.

    `deferred_weights` 0: each W follows its I, while the input's gradient is under way; None: backward is whole, the input's gradient leaves
    after W, as where a framework does not part the two. Raises ValueError.
    """
    orders = compute_order(
        ranks, microbatches, chunks=chunks, extra_warmup=extra_warmup, deferred_weights=deferred_weights or 0
    )
    whole = deferred_weights is None
    return [_with_messages(order, ranks * chunks - 1, ranks, all_to_all, offload, whole) for order in orders]


def training_table(
    parallel: ParallelConfig, microbatches: int, *, all_to_all: bool = False, offload: bool = False
) -> Table:
    """The step of a layout, as it is planned and as it is executed. Raises ValueError."""
    return action_table(
        parallel.pp,
        microbatches,
        chunks=parallel.vpp,
        extra_warmup=extra_warmup(parallel),
        all_to_all=all_to_all,
        offload=offload,
    )


def extra_warmup(parallel: ParallelConfig) -> int:
    """One forward more before the first backward, so that an all-to-all has a compute to hide under (paper section 2.4)."""
    return 1 if parallel.ep > 1 and parallel.pp > 1 else 0


def forward_table(ranks: int, microbatches: int, *, chunks: int = 1) -> Table:
    """Forward passes alone."""
    return [
        _with_messages(order, ranks * chunks - 1, ranks, False, False, False)
        for order in forward_order(ranks, microbatches, chunks=chunks)
    ]


def _with_messages(
    order: Sequence[Action], last_stage: int, ranks: int, all_to_all: bool, offload: bool, whole: bool
) -> list[Action]:
    away = _worth_offloading(order) if offload else set()
    actions: list[Action] = []
    for place, action in enumerate(order):
        if place == 0:
            actions += _receives(action, last_stage, ranks)
            actions += _onloads(order[:_ONLOAD_LEAD], away)
        actions += [more for coming in order[place + 1 : place + 2] for more in _receives(coming, last_stage, ranks)]
        actions += _onloads(order[place + _ONLOAD_LEAD : place + _ONLOAD_LEAD + 1], away)
        actions.append(action)
        if all_to_all and action.op is not Op.W:
            actions.append(action._replace(op=_ALL_TO_ALLS[action.op]))
        op = Op.I if whole and action.op is Op.W else action.op
        leaves = op in _SENDS and not (whole and action.op is Op.I)
        if ranks > 1 and leaves and action.stage != (last_stage if op is Op.F else 0):
            actions.append(action._replace(op=_SENDS[op]))
        if action.op is Op.F and (action.stage, action.microbatch) in away:
            actions.append(action._replace(op=Op.OFFLOAD))
    return actions


def _receives(action: Action, last_stage: int, ranks: int) -> list[Action]:
    if ranks == 1 or needed(action, last_stage) is None:
        return []
    return [action._replace(op=_RECEIVES[action.op])]


def _onloads(coming: Sequence[Action], away: set[tuple[int, int]]) -> list[Action]:
    return [a._replace(op=Op.ONLOAD) for a in coming if a.op is Op.I and (a.stage, a.microbatch) in away]


def _worth_offloading(order: Sequence[Action]) -> set[tuple[int, int]]:
    """Where computes lie between F and I for each copy to hide under: one for the way out, `_ONLOAD_LEAD` for the way back."""
    began = {(a.stage, a.microbatch): place for place, a in enumerate(order) if a.op is Op.F}
    return {
        (a.stage, a.microbatch)
        for place, a in enumerate(order)
        if a.op is Op.I and place - began[a.stage, a.microbatch] > 1 + _ONLOAD_LEAD
    }
