"""Who keeps the optimizer's state of what, so that no matrix is cut (ZeRO-1 that knows Muon; paper section 2.4).

Experts are whole and where they are computed: the ranks that hold the same ones take equal shares of them. A dense matrix that Muon
orthogonalises has one owner among the ranks of its pipeline stage, chosen so that Newton-Schulz takes them all about as long
(longest processing time first). Embedding and head, which AdamW takes entry by entry, are shared out by rows.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from abruzzi_jobs.optim.plan import ParameterPlan


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `first` to `last` of a parameter's first dimension."""

    name: str
    first: int
    last: int
    owner: int
    """Place among the ranks that hold the parameter."""


def is_expert(plan: ParameterPlan) -> bool:
    return plan.split in ("experts", "expert_halves") or len(plan.shape) == 3


def newton_schulz_flops(plan: ParameterPlan, *, steps: int) -> int:
    """4m²n + 2m³ an iteration for m ≤ n (reference: Muon, arXiv 2502.16982)."""
    m, n = sorted((plan.rows, plan.cols))
    return plan.num_matrices * steps * (4 * m * m * n + 2 * m**3)


def share_dense(plans: Sequence[ParameterPlan], ranks: int, *, steps: int) -> list[Piece]:
    """Pieces of all that is no expert."""
    dense = [plan for plan in plans if not is_expert(plan)]
    whole = {plan.name: newton_schulz_flops(plan, steps=steps) for plan in dense if plan.kind == "muon"}
    whole |= {plan.name: plan.shape[0] for plan in dense if plan.kind == "adamw" and len(plan.shape) == 1}
    owners = longest_first(whole, ranks)
    pieces = []
    for plan in dense:
        if plan.name in owners:
            pieces.append(Piece(plan.name, 0, plan.shape[0], owners[plan.name]))
        else:
            pieces += _rows(plan, ranks)
    return pieces


def share_experts_out(plans: Sequence[ParameterPlan], ranks: int) -> list[Piece]:
    """Pieces of the experts of a rank, among the ranks that hold the same."""
    return [piece for plan in plans if is_expert(plan) for piece in _rows(plan, ranks)]


def longest_first(costs: Mapping[str, int], ranks: int) -> dict[str, int]:
    """name → rank: the costliest first, each to the rank that has least so far."""
    loads = [(0, rank) for rank in range(ranks)]
    owners = {}
    for name, cost in sorted(costs.items(), key=lambda item: (-item[1], item[0])):
        load, rank = heapq.heappop(loads)
        owners[name] = rank
        heapq.heappush(loads, (load + cost, rank))
    return owners


def _rows(plan: ParameterPlan, ranks: int) -> list[Piece]:
    bounds = [plan.shape[0] * rank // ranks for rank in range(ranks + 1)]
    return [Piece(plan.name, first, last, rank) for rank, (first, last) in enumerate(pairwise(bounds)) if last > first]
