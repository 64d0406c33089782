"""In which order a rank computes: 1F1B (arXiv 1806.03377) for one chunk a rank, interleaved 1F1B (arXiv 2104.04473) for several, with more
warm-up where asked (paper section 2.4: what hides the all-to-all of experts), and the gradients of weights apart from those of inputs.

P ranks, V chunks a rank, M micro-batches; stage s lies on rank s mod P.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence

from abruzzi.plan.pipeline.actions import Action, Op


def compute_order(
    ranks: int, microbatches: int, *, chunks: int = 1, extra_warmup: int = 0, deferred_weights: int = 0
) -> list[list[Action]]:
    """F, I and W of every rank.

    `extra_warmup`: forward passes before the first backward, beyond those that the schedule needs.
    `deferred_weights`: how many W may wait for a pause. 0: each follows its I.
    With several chunks the micro-batches must fill rounds: M a multiple of max(1, M div P). Raises ValueError.
    """
    if min(ranks, microbatches, chunks) < 1 or min(extra_warmup, deferred_weights) < 0:
        raise ValueError("ranks, microbatches and chunks are 1 at least, extra_warmup and deferred_weights 0")
    rounds = max(1, microbatches // ranks)
    if chunks > 1 and microbatches % rounds:
        raise ValueError(
            f"{microbatches} micro-batches do not fill {rounds} rounds of {ranks} ranks: take a multiple of {ranks}"
        )
    paired = [_forwards_and_inputs(ranks, microbatches, chunks, extra_warmup, rank) for rank in range(ranks)]
    if deferred_weights == 0:
        return [[more for action in order for more in _with_weight(action)] for order in paired]
    return _weights_into_pauses(paired, last_stage=ranks * chunks - 1, most=deferred_weights)


def forward_order(ranks: int, microbatches: int, *, chunks: int = 1) -> list[list[Action]]:
    """F alone, for a look at held-out data: chunk by chunk."""
    return [
        [Action(Op.F, chunk * ranks + rank, m) for chunk in range(chunks) for m in range(microbatches)]
        for rank in range(ranks)
    ]


def warmup(ranks: int, microbatches: int, chunks: int, extra: int, rank: int) -> int:
    """Forward passes of a rank before its first pair of forward and backward."""
    hops = ranks - 1 - rank
    if chunks == 1:
        return min(hops + extra, microbatches)
    a_round = microbatches // max(1, microbatches // ranks)
    return min((chunks - 1) * a_round + 2 * hops + extra, microbatches * chunks)


def _forwards_and_inputs(ranks: int, microbatches: int, chunks: int, extra: int, rank: int) -> list[Action]:
    a_round = microbatches if chunks == 1 else microbatches // max(1, microbatches // ranks)
    total = microbatches * chunks

    def place(op: Op, step: int) -> Action:
        """Round after round; within one, all its micro-batches through a chunk before the next: backward from the last chunk."""
        round_, within = divmod(step, a_round * chunks)
        chunk, m = divmod(within, a_round)
        chunk = chunk if op is Op.F else chunks - 1 - chunk
        return Action(op, chunk * ranks + rank, round_ * a_round + m)

    first = warmup(ranks, microbatches, chunks, extra, rank)
    order = [place(Op.F, step) for step in range(first)]
    for step in range(first, total):
        order += [place(Op.F, step), place(Op.I, step - first)]
    return order + [place(Op.I, step) for step in range(total - first, total)]


def _with_weight(action: Action) -> list[Action]:
    return [action, action._replace(op=Op.W)] if action.op is Op.I else [action]


def _weights_into_pauses(paired: Sequence[Sequence[Action]], *, last_stage: int, most: int) -> list[list[Action]]:
    """Each rank computes its next F or I when its input is there, else a W that waits; with more than `most` of them waiting, one at once.

    All of F, I and W are taken to last as long as each other, messages nothing.
    """
    ranks = len(paired)
    orders: list[list[Action]] = [[] for _ in paired]
    following = [0] * ranks
    waiting: list[deque[Action]] = [deque() for _ in paired]
    done: dict[Action, int] = {}
    asleep: dict[Action, tuple[int, int]] = {}
    ready: list[tuple[int, int]] = [(0, rank) for rank in range(ranks)]
    while ready:
        now, rank = heapq.heappop(ready)
        order, place = paired[rank], following[rank]
        if place == len(order):
            orders[rank] += waiting[rank]
            continue
        action = order[place]
        need = needed(action, last_stage)
        there = need is None or (need in done and done[need] <= now)
        if waiting[rank] and (not there or len(waiting[rank]) > most):
            orders[rank].append(waiting[rank].popleft())
            heapq.heappush(ready, (now + 1, rank))
        elif there:
            orders[rank].append(action)
            following[rank] += 1
            done[action] = now + 1
            if action.op is Op.I:
                waiting[rank].append(action._replace(op=Op.W))
            heapq.heappush(ready, (now + 1, rank))
            if action in asleep:
                since, sleeper = asleep.pop(action)
                heapq.heappush(ready, (max(since, now + 1), sleeper))
        elif need in done:
            heapq.heappush(ready, (done[need], rank))
        else:
            assert need is not None
            asleep[need] = (now, rank)
    return orders


def needed(action: Action, last_stage: int) -> Action | None:
    """Whose result an F or I on another stage waits for; None where it needs that of its own stage alone."""
    if action.op is Op.F and action.stage > 0:
        return Action(Op.F, action.stage - 1, action.microbatch)
    if action.op is Op.I and action.stage < last_stage:
        return Action(Op.I, action.stage + 1, action.microbatch)
    return None
