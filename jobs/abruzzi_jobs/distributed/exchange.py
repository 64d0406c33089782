"""Tokens to the ranks of their experts and back: all-to-all with uneven splits, and autograd through it (paper section 2.4: expert parallelism).

A token that several experts of one rank want goes there once, with its experts' numbers and weights, and comes back as one sum: K of E experts
on N ranks hit fewer than K ranks (K2: 6.5 of 16 for 8 of 384, which saves 19 % of the bytes each way).

Shapes: T tokens of this rank, D hidden, K experts a token, N ranks, S rows that leave, R rows that come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed.mesh import Group, Mesh
from abruzzi_jobs.distributed.stopwatch import Stopwatch
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.moe import Dispatched, gather_rows, sum_rows
from abruzzi_jobs.models.router import Routing


@dataclass(frozen=True, slots=True)
class Ticket:
    """The way back."""

    token_S: Tensor
    row_TN: Tensor
    sent: list[int]
    came: list[int]


@dataclass(frozen=True, slots=True)
class _Way:
    """To the others, and the clock of this rank's own work, which stands still meanwhile."""

    group: Group
    own_work: Stopwatch


class RankExchange:
    """Among the ranks of a group, each with `num_experts` / N experts in order. All of them call `dispatch` and `combine` in the same order."""

    def __init__(self, group: Group, num_experts: int, own_work: Stopwatch) -> None:
        self._way, self._each = _Way(group, own_work), num_experts // group.size

    def dispatch(self, x_TD: Tensor, routing: Routing) -> tuple[Dispatched, Ticket]:
        N, each = self._way.group.size, self._each
        T = len(x_TD)
        goes_NT = torch.zeros(N, T, dtype=torch.bool, device=x_TD.device)
        goes_NT.scatter_(0, (routing.experts_TK // each).t(), True)
        rank_S, token_S = goes_NT.nonzero(as_tuple=True)
        row_TN = torch.full((T, N), len(token_S), device=x_TD.device)
        row_TN[token_S, rank_S] = torch.arange(len(token_S), device=x_TD.device)
        sent_N = goes_NT.sum(1)
        came_N = torch.empty_like(sent_N)
        with self._way.own_work.standing_still():
            dist.all_to_all_single(came_N, sent_N, group=self._way.group.handle)
        ticket = Ticket(token_S, row_TN, sent_N.tolist(), came_N.tolist())
        local_SK = routing.experts_TK[token_S] - rank_S.unsqueeze(1) * each
        local_SK = local_SK.where((local_SK >= 0) & (local_SK < each), each).to(torch.int32)
        experts_RK = _all_to_all(local_SK, ticket.sent, ticket.came, self._way)
        rows_SD = gather_rows(x_TD, token_S, row_TN, partly=True)
        rows_RD = _AllToAll.apply(rows_SD, ticket.sent, ticket.came, self._way)
        weights_SK = gather_rows(routing.weights_TK, token_S, row_TN, partly=True)
        weights_RK = _AllToAll.apply(weights_SK, ticket.sent, ticket.came, self._way)
        return Dispatched(rows_RD, experts_RK.long(), weights_RK), ticket

    def combine(self, out_RD: Tensor, ticket: Ticket) -> Tensor:
        out_SD = _AllToAll.apply(out_RD, ticket.came, ticket.sent, self._way)
        return sum_rows(out_SD, ticket.token_S, ticket.row_TN, partly=True)


def share_experts(model: Decoder, mesh: Mesh) -> None:
    """The model's layers exchange tokens with the ranks that have the other experts."""
    if mesh.expert.size > 1:
        for moe in model.moe_layers():
            moe.experts.exchange = RankExchange(mesh.expert, moe.gate.config.num_experts, mesh.own_work)


class _AllToAll(torch.autograd.Function):
    """`sent` rows for each rank, in order; backward is the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], came: list[int], way: _Way) -> Tensor:
        ctx.sent, ctx.came, ctx.way = sent, came, way
        return _all_to_all(x, sent, came, way)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grads[0], ctx.came, ctx.sent, ctx.way), None, None, None


def _all_to_all(x: Tensor, sent: list[int], came: list[int], way: _Way) -> Tensor:
    out = x.new_empty(sum(came), *x.shape[1:])
    with way.own_work.standing_still():
        dist.all_to_all_single(out, x.contiguous(), came, sent, group=way.group.handle)
    return out
