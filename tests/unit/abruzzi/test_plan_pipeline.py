"""Pipeline schedules: golden bubbles and memory, whole and free of deadlock for any shape, and what the simulator refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.plan.pipeline import Action, Costs, Op, ScheduleError, action_table, forward_table, simulate
from abruzzi.plan.pipeline.order import warmup


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, int]:
    ranks = draw(st.integers(1, 6))
    chunks = draw(st.integers(1, 4))
    whole_rounds = ranks * draw(st.integers(1, 4))
    microbatches = whole_rounds if chunks > 1 else draw(st.integers(1, 13))
    return {"ranks": ranks, "microbatches": microbatches, "chunks": chunks}


@pytest.mark.parametrize(("chunks", "bubble"), [(1, 0.190), (2, 0.105), (4, 0.055)])
def test_bubble_of_16_ranks_and_64_micro_batches(chunks: int, bubble: float) -> None:
    simulation = simulate(action_table(16, 64, chunks=chunks, deferred_weights=None), Costs())
    assert simulation.bubble == pytest.approx(bubble, abs=5e-4)
    assert simulation.bubble == pytest.approx(15 / (64 * chunks + 15), rel=1e-9)


@pytest.mark.parametrize(("chunks", "most"), [(1, 16), (2, 47), (4, 79)])
def test_first_rank_keeps_what_the_warm_up_makes(chunks: int, most: int) -> None:
    table = action_table(16, 64, chunks=chunks)
    assert simulate(table, Costs()).in_flight[0] == most
    assert simulate(action_table(16, 64, chunks=chunks, extra_warmup=1), Costs()).in_flight[0] == most + 1
    assert most == warmup(16, 64, chunks, 0, 0) + 1


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_weight_gradients_of_their_own_shorten_the_step(chunks: int) -> None:
    whole, apart, deferred = (
        simulate(action_table(16, 64, chunks=chunks, deferred_weights=weights), Costs()).makespan
        for weights in (None, 0, 4)
    )
    assert deferred < apart < whole


def test_one_more_warm_up_hides_the_all_to_all_of_the_experts() -> None:
    costs = Costs(send=0.2, all_to_all=0.5)
    plain, more = (
        simulate(action_table(8, 64, chunks=2, extra_warmup=extra, all_to_all=True), costs).bubble for extra in (0, 1)
    )
    assert more < plain


def test_offloading_leaves_a_few_chunks_on_the_device_and_costs_no_time_where_the_bus_keeps_up() -> None:
    table = action_table(8, 32, chunks=4)
    away = simulate(action_table(8, 32, chunks=4, offload=True), Costs(offload=0.9, onload=0.9))
    assert away.makespan == pytest.approx(simulate(table, Costs()).makespan, rel=1e-9)
    assert away.in_flight[0] == 7 * 2 + 3 * 8 + 1
    assert max(away.resident) <= 4


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes(),
    extra=st.integers(0, 2),
    weights=st.none() | st.integers(0, 3),
    offload=st.booleans(),
    all_to_all=st.booleans(),
    costs=st.tuples(*[st.floats(0.1, 3.0)] * 3, *[st.floats(0.0, 2.0)] * 4),
)
def test_any_table_runs_to_its_end(
    shape: dict[str, int],
    extra: int,
    weights: int | None,
    offload: bool,
    all_to_all: bool,
    costs: tuple[float, float, float, float, float, float, float],
) -> None:
    """Simulation refuses what is twice, missing, out of order, unsent or stuck; here it refuses nothing."""
    table = action_table(**shape, extra_warmup=extra, deferred_weights=weights, offload=offload, all_to_all=all_to_all)
    forward, inputs, grads, send, exchange, out, back = costs
    simulation = simulate(
        table,
        Costs(
            forward=forward, input_gradient=inputs, weight_gradient=grads, send=send, all_to_all=exchange,
            offload=out, onload=back,
        ),
    )  # fmt: skip
    work = shape["microbatches"] * shape["chunks"] * (forward + inputs + grads)
    assert simulation.busy(0) == pytest.approx(work)
    assert simulation.makespan >= work * (1 - 1e-9)
    for rank in range(shape["ranks"]):
        needed = warmup(shape["ranks"], shape["microbatches"], shape["chunks"], extra, rank)
        most = min(needed + 1 + (weights or 0), shape["microbatches"] * shape["chunks"])
        assert simulation.resident[rank] <= simulation.in_flight[rank] <= most


@given(shape=shapes())
def test_forward_tables_run_to_their_end(shape: dict[str, int]) -> None:
    simulation = simulate(forward_table(**shape), Costs(), forward_only=True)
    assert simulation.busy(0) == shape["microbatches"] * shape["chunks"]


def test_micro_batches_that_fill_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="take a multiple of 4"):
        action_table(4, 9, chunks=2)


def broken(op: Op, *, by: str) -> list[list[Action]]:
    table = action_table(2, 4)
    rank = next(r for r, actions in enumerate(table) if any(a.op is op for a in actions))
    place = next(p for p, a in enumerate(table[rank]) if a.op is op)
    actions = table[rank]
    if by == "removing":
        del actions[place]
    elif by == "doubling":
        actions.insert(place, actions[place])
    elif by == "moving to the end":
        actions.append(actions.pop(place))
    elif by == "moving to the front":
        actions.insert(0, actions.pop(place))
    elif by == "another rank":
        actions[place] = actions[place]._replace(stage=actions[place].stage + 1)
    return table


@pytest.mark.parametrize(
    ("op", "by", "message"),
    [
        (Op.W, "removing", "0W0 is missing"),
        (Op.F, "doubling", "stands 2 times"),
        (Op.F, "another rank", "belongs to rank 1"),
        (Op.SEND_F, "removing", "0SEND_F0 is never sent"),
        (Op.RECV_F, "removing", "0SEND_F0 is never taken"),
        (Op.SEND_F, "moving to the end", "another order"),
        (Op.I, "moving to the front", "stands before"),
        (Op.W, "moving to the front", "stands before"),
    ],
)
def test_a_broken_table_is_refused(op: Op, by: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        simulate(broken(op, by=by), Costs())


def test_ranks_that_wait_for_each_other_are_named() -> None:
    """Rank 0 wants a gradient before it sends its second output, rank 1 that output before it sends the gradient."""
    _, second = action_table(2, 2, extra_warmup=1)
    late = [Action(Op.F, 0, 1), Action(Op.SEND_F, 0, 1)]
    first = [action for action in action_table(2, 2)[0] if action not in late]
    place = first.index(Action(Op.I, 0, 0)) + 1
    with pytest.raises(ScheduleError, match="wait for each other: rank 0 at 0I0, rank 1 at 1F1"):
        simulate([first[:place] + late + first[place:], second], Costs())
