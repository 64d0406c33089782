"""Both pipelines: every bucket through its stages in order, no buffer written while it is read, and each the quicker one where it belongs."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi_jobs.rl.weights.plan import Parameter, make_plan
from abruzzi_jobs.rl.weights.schedule import (
    BUFFERS,
    EXCHANGE_BUFFERS,
    Pipeline,
    bucket_bytes_for,
    choose,
    makespan,
    schedule,
)

plans = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 3)), max_size=24).map(
    lambda rows: make_plan([Parameter(f"p{i}", "uint8", (size,), owner) for i, (size, owner) in enumerate(rows)], 64)
)
pipelines = st.sampled_from(get_args(Pipeline))
DEVICE = {"copy_in": 1.0, "broadcast": 1.0, "reload": 4.0}


@given(plans, pipelines)
def test_each_bucket_is_copied_in_broadcast_and_reloaded_once_in_this_order(plan, pipeline):
    when = {"copy_in": {}, "broadcast": {}, "reload": {}}
    for number, tick in enumerate(schedule(plan, pipeline)):
        for index in tick.copy_in:
            assert when["copy_in"].setdefault(index, number) == number
        if tick.broadcast is not None:
            assert when["broadcast"].setdefault(tick.broadcast, number) == number
        if tick.reload is not None:
            assert when["reload"].setdefault(tick.reload, number) == number
    every = [bucket.index for bucket in plan.buckets]
    assert list(when["broadcast"]) == list(when["reload"]) == every
    assert sorted(when["copy_in"]) == ([] if pipeline == "direct" else every)
    for index in every:
        assert when["copy_in"].get(index, -1) < when["broadcast"][index] < when["reload"][index]


@given(plans, pipelines)
def test_no_buffer_is_written_while_it_is_read_or_still_needed(plan, pipeline):
    copied_in, exchange = {}, {}
    for tick in schedule(plan, pipeline):
        if tick.broadcast is not None:
            owner = plan.buckets[tick.broadcast].owner
            if pipeline != "direct":
                assert copied_in.pop(owner) == tick.broadcast
            assert exchange.get(tick.broadcast % EXCHANGE_BUFFERS) is None
            exchange[tick.broadcast % EXCHANGE_BUFFERS] = tick.broadcast
        for index in tick.copy_in:
            assert plan.buckets[index].owner not in copied_in
            copied_in[plan.buckets[index].owner] = index
        if tick.reload is not None:
            assert exchange[tick.reload % EXCHANGE_BUFFERS] == tick.reload
            exchange[tick.reload % EXCHANGE_BUFFERS] = None


@given(plans)
def test_two_stages_never_copy_in_beside_a_broadcast(plan):
    for tick in schedule(plan, "two-stage"):
        assert not (tick.copy_in and tick.broadcast is not None)


@given(plans)
def test_two_stages_cost_no_more_than_three_on_a_shared_bus(plan):
    two, three = (
        makespan(schedule(plan, p), plan, DEVICE, engines_share_bus=True) for p in ("two-stage", "three-stage")
    )
    assert two <= three + max((b.nbytes for b in plan.buckets), default=0)


@pytest.mark.parametrize("owners", [1, 4])
def test_three_stages_are_quicker_where_copy_engines_have_buses_of_their_own(owners):
    plan = make_plan([Parameter(f"p{i}", "uint8", (64,), i % owners) for i in range(32)], 64)
    two, three = (
        makespan(schedule(plan, p), plan, DEVICE, engines_share_bus=False) for p in ("two-stage", "three-stage")
    )
    assert three < two


def test_broadcast_and_reload_overlap_in_all_pipelines():
    plan = make_plan([Parameter(f"p{i}", "uint8", (64,), i % 2) for i in range(8)], 64)
    for pipeline in get_args(Pipeline):
        beside = [tick for tick in schedule(plan, pipeline) if tick.broadcast is not None and tick.reload is not None]
        assert len(beside) >= 4


def test_the_pipeline_follows_from_device_and_bus():
    assert choose(device_is_host=True, engines_share_bus=True) == "direct"
    assert choose(device_is_host=False, engines_share_bus=True) == "two-stage"
    assert choose(device_is_host=False, engines_share_bus=False) == "three-stage"


def test_three_equal_buffers_share_the_free_memory():
    assert bucket_bytes_for(3000 << 20) == 900 << 20
    assert bucket_bytes_for(1 << 40) == 8 << 30
    assert BUFFERS * bucket_bytes_for(10_000) <= 10_000
    with pytest.raises(ValueError, match="let the engine sleep first"):
        bucket_bytes_for(100)
