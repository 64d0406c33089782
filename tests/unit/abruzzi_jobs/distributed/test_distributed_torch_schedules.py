"""Our order of computation is that of torch.distributed.pipelining, where the two define the same schedule."""

from __future__ import annotations

from typing import Any

import pytest
from torch.distributed.pipelining import Schedule1F1B, ScheduleInterleaved1F1B

from abruzzi.plan.pipeline import Op, compute_order


def ours(ranks: int, microbatches: int, chunks: int) -> list[list[str]]:
    """F and B (an I with its W) of every rank."""
    orders = compute_order(ranks, microbatches, chunks=chunks)
    return [[str(action).replace("I", "B") for action in order if action.op is not Op.W] for order in orders]


def compute(actions: list[Any]) -> list[str]:
    return [str(action) for action in actions if action is not None and action.is_compute_op]


@pytest.mark.parametrize(("ranks", "microbatches"), [(1, 3), (2, 4), (4, 8), (4, 9), (8, 32)])
def test_one_chunk_a_rank_is_their_1f1b(ranks: int, microbatches: int) -> None:
    schedule: Any = object.__new__(Schedule1F1B)
    schedule._num_stages, schedule._n_microbatches = ranks, microbatches
    theirs = schedule._get_pipeline_order()
    orders = ours(ranks, microbatches, 1)
    assert orders[:-1] == [compute(theirs[rank]) for rank in range(ranks - 1)]
    # Their table numbers the last rank's forwards from 1 (torch 2.15), its order is the same.
    last = [action.replace("F", "F-") if "F" in action else action for action in compute(theirs[ranks - 1])]
    assert [forward_after(action) for action in orders[-1]] == last


def forward_after(action: str) -> str:
    stage, forward, microbatch = action.partition("F")
    return f"{stage}F-{int(microbatch) + 1}" if forward else action


@pytest.mark.parametrize(
    ("ranks", "microbatches", "chunks"), [(2, 4, 2), (4, 8, 2), (4, 10, 2), (4, 3, 2), (4, 4, 3), (16, 64, 4)]
)
def test_several_chunks_a_rank_are_their_interleaved_1f1b(ranks: int, microbatches: int, chunks: int) -> None:
    schedule: Any = object.__new__(ScheduleInterleaved1F1B)
    schedule.n_local_stages, schedule.pp_group_size, schedule._n_microbatches = chunks, ranks, microbatches
    schedule.number_of_rounds = max(1, microbatches // ranks)
    schedule.microbatches_per_round = microbatches // schedule.number_of_rounds
    theirs = [schedule._calculate_single_rank_operations(rank) for rank in range(ranks)]
    assert ours(ranks, microbatches, chunks) == [compute(actions) for actions in theirs]
