"""The plan at full width: golden values of the published K2, why layouts are refused, and what must hold of any layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.contracts.training import ModelConfig, ParallelConfig
from abruzzi.plan.devices import Device, device_of
from abruzzi.plan.layout import Phase, Workload, head_in_layers, layer_ranges, layers_by_chunk, refusals
from abruzzi.plan.memory import states_by_stage
from abruzzi.plan.parameters import count_parameters
from abruzzi.plan.pipeline import Costs, action_table, simulate
from abruzzi.plan.rank_memory import chunk_bytes, memory_by_rank, states_by_rank, total_by_ranks
from abruzzi.plan.scale import PlanOptions, describe, timeline
from abruzzi.plan.step import Refused, StepPlan, first_rounds, plan_step, simulated
from abruzzi.plan.step_time import exchange, stage_seconds
from abruzzi.plan.sweep import sweep, what_would_fit

H800 = device_of("h800")
RECIPES = Path(__file__).parents[3] / "recipes"


def workload(recipe: str, ranks: int) -> Workload:
    stage = load_recipe((RECIPES / recipe).read_text()).stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    phases = (Phase(tokens=stage.schedule.tokens, sequence_length=stage.batch.sequence_length),)
    return Workload(
        model=stage.model, optimizer=stage.optimizer, batch=stage.batch, parallel=stage.parallel, memory=stage.memory,
        checkpoint=stage.checkpoint, ranks=ranks, phases=phases,
    )  # fmt: skip


K2 = workload("k2.toml", 256)
TINY = workload("tiny.toml", 1)


def planned(work: Workload, device: Device = H800) -> StepPlan:
    step = plan_step(work, device)
    assert isinstance(step, StepPlan), step
    return step


def test_a_middle_rank_of_k2_holds_28_9_gigabytes_of_states_and_256_gpus_6_16_terabytes() -> None:
    states = states_by_rank(K2)
    assert states[8].state_bytes / 1e9 == pytest.approx(28.9, abs=0.05)
    assert 6 * total_by_ranks(states, K2.parallel.ep) / 1e12 == pytest.approx(6.16, abs=0.005)


def test_both_tables_of_states_say_the_same_of_a_rank() -> None:
    by_stage = states_by_stage(K2.model, K2.memory, K2.parallel)
    assert [(s.layers, s.parameters, s.bytes) for s in by_stage] == [
        (sum(s.layers), s.parameters, s.state_bytes) for s in states_by_rank(K2)
    ]


def test_the_head_takes_the_place_of_layers_on_the_last_rank() -> None:
    states = states_by_rank(K2)
    assert [sum(s.layers) for s in states] == [4] * 15 + [1]
    assert sum(layers_by_chunk(K2.model, 16, 4)) == 61


@pytest.mark.parametrize(("chunks", "bubble"), [(1, 0.19), (2, 0.105), (4, 0.055)])
def test_bubbles_of_16_ranks_and_64_micro_batches(chunks: int, bubble: float) -> None:
    work = replace(K2.with_parallel(vpp=chunks), batch=K2.batch.model_copy(update={"sequences": 1024}))
    assert work.microbatches == 64
    assert planned(work).bubble == pytest.approx(bubble, abs=0.001)
    table = action_table(16, 64, chunks=chunks, deferred_weights=None)
    assert simulate(table, Costs()).bubble == pytest.approx(bubble, abs=0.001)


@pytest.mark.parametrize(("chunks", "in_flight", "gigabytes"), [(4, 79, 48), (2, 47, 57)])
def test_what_the_first_rank_of_k2_has_in_flight(chunks: int, in_flight: int, gigabytes: float) -> None:
    work = K2.with_parallel(vpp=chunks)
    run = simulate(action_table(16, 48, chunks=chunks), Costs())
    assert run.in_flight[0] == in_flight
    assert run.in_flight[0] * chunk_bytes(work, max(states_by_rank(work)[0].layers)) / 1e9 == pytest.approx(
        gigabytes, rel=0.02
    )
    assert planned(work).ranks[0].in_flight_chunks == in_flight + 1, (
        "one forward more, under which the all-to-all hides"
    )


def test_the_first_ranks_are_the_peak_and_offload_takes_most_of_it_away() -> None:
    ranks = planned(K2).ranks
    assert max(ranks, key=lambda r: r.in_flight_bytes).states.rank == 0
    assert ranks[0].resident_bytes < ranks[0].in_flight_bytes / 5
    kept = plan_step(K2.with_memory(offload_activations=False, fp8_activations=False, recompute=()), H800)
    assert isinstance(kept, Refused)


def test_the_optimizer_of_32_nodes_lies_on_the_host_and_that_of_256_on_the_gpu() -> None:
    small, large = planned(K2), planned(replace(K2, ranks=2048))
    assert {r.optimizer_on for r in small.ranks} == {"host"}
    assert {r.optimizer_on for r in large.ranks} == {"device"}
    assert large.ranks[8].states.optimizer_bytes / 1e9 == pytest.approx(4.2, abs=0.1)


def test_eight_of_384_experts_reach_six_and_a_half_of_16_ranks() -> None:
    way = exchange(K2.model, 16, 8, 2)
    assert way.ranks_reached == pytest.approx(6.5, abs=0.01)
    assert (way.bytes / 1024, way.bytes_without_dedup / 1024) == pytest.approx((91, 112), abs=0.1)


def test_a_checkpoint_of_k2_takes_ten_terabytes_and_hides_behind_a_second() -> None:
    step = planned(K2)
    assert step.checkpoint_bytes / 1e12 == pytest.approx(10.3, abs=0.05)
    assert step.checkpoint_stall_seconds < 1.6


def test_nodes_that_do_not_fill_model_parallel_groups_are_refused_with_the_next_that_do() -> None:
    refused = plan_step(replace(K2, ranks=320), H800)
    assert isinstance(refused, Refused)
    assert refused.step is None
    assert refused.reasons == [
        "PP 16 x EP 16 = 256 ranks are one model-parallel group: 32 nodes of 8. 40 nodes % 32 = 8: take 32 or 64 nodes."
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ep": 5, "pp": 1}, "experts cannot be shared out evenly over EP 5"),
        ({"pp": 128, "ep": 1, "vpp": 1}, "for 61 layers"),
        ({"dp": 4}, "leave 16"),
    ],
)
def test_layouts_that_cannot_be_say_why(changes: dict[str, int], says: str) -> None:
    ranks = 1280 if changes.get("ep") == 5 else 256
    assert says in " ".join(refusals(replace(K2.with_parallel(**changes), ranks=ranks), 8))


def test_micro_batches_that_fill_no_round_are_refused_with_the_multiple() -> None:
    work = replace(K2, batch=K2.batch.model_copy(update={"sequences": 16 * 17}))
    assert refusals(work, 8) == []
    odd = replace(K2, batch=K2.batch.model_copy(update={"sequences": 16 * 33}))
    assert "take a multiple of 16" in refusals(odd, 8)[0]


def test_too_much_memory_is_refused_by_how_much_and_what_would_fit() -> None:
    layout = describe(
        K2.with_memory(recompute=(), fp8_activations=False, offload_activations=False), H800, PlanOptions()
    )
    assert layout["feasible"] is False
    assert "has 80.0 GB" in layout["refusals"][0]
    assert "GB over" in layout["refusals"][0]
    assert layout["would_fit"].startswith("activations: recompute")
    assert layout["by_rank"], "the table is still there, to be read"


def test_where_no_policy_is_enough_more_expert_ranks_are() -> None:
    fits = what_would_fit(K2.with_parallel(ep=4), H800)
    assert fits is not None
    assert fits.startswith("ep = ")


def test_money_is_told_only_where_a_price_is_given() -> None:
    free, priced = (describe(K2, H800, PlanOptions(price=price))["total"] for price in (None, 2.0))
    assert free["cost"] is None
    assert priced["cost"] == pytest.approx(2.0 * free["gpu_hours"])
    assert priced["gpu_hours"] == pytest.approx(24 * 256 * priced["days"])


def test_a_sweep_ranks_feasible_layouts_by_the_time_of_a_step() -> None:
    small = replace(
        TINY.with_parallel(pp=1, vpp=1, ep=1),
        ranks=4,
        batch=TINY.batch.model_copy(update={"sequences": 32, "micro_sequences": 1}),
    )
    found = sweep(small, replace(device_of("local"), memory_bytes=10**9))
    seconds = [c.step.seconds for c in found.ranked]
    assert seconds == sorted(seconds)
    assert found.tried > len(found.ranked) > 1
    assert all(not refusals(c.work, 64) for c in found.ranked)


def test_a_long_step_repeats_its_steady_state() -> None:
    work = replace(
        K2.with_parallel(pp=4, ep=8, vpp=2), ranks=32, batch=K2.batch.model_copy(update={"sequences": 8 * 32})
    )
    stages = stage_seconds(work, H800)
    few, _ = simulated(work, stages, H800)
    all_of_it, run = first_rounds(work, H800, 8)
    assert all_of_it == work.microbatches == 32
    assert few == pytest.approx(run.makespan, rel=1e-3)


def test_a_short_step_is_drawn_whole_and_of_a_long_one_the_first_rounds() -> None:
    short = replace(TINY.with_parallel(pp=2), ranks=2, batch=TINY.batch.model_copy(update={"micro_sequences": 1}))
    drawn = timeline(short, device_of("local"))
    assert (drawn["microbatches"], drawn["of"]) == (8, 8)
    assert [len(spans) for spans in drawn["ranks"]] == [3 * 8] * 2
    of_k2 = timeline(K2, H800)
    assert of_k2["microbatches"] < of_k2["of"]


LAYOUTS = st.builds(
    lambda pp, vpp, ep: (pp, vpp, ep),
    st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4, 8, 16, 32]),
)  # fmt: skip


@given(LAYOUTS)
def test_parameters_of_all_ranks_sum_to_the_models(layout: tuple[int, int, int]) -> None:
    pp, vpp, ep = layout
    work = replace(K2.with_parallel(pp=pp, vpp=vpp, ep=ep), ranks=pp * ep)
    assert total_by_ranks(states_by_rank(work), ep) == count_parameters(K2.model).total


@given(LAYOUTS, st.integers(1, 8))
def test_more_expert_or_data_ranks_never_take_more_memory(layout: tuple[int, int, int], wider: int) -> None:
    pp, vpp, ep = layout
    flying = [8] * pp

    def most(ep: int, ranks: int) -> int:
        work = replace(K2.with_parallel(pp=pp, vpp=vpp, ep=ep), ranks=ranks)
        unbound = replace(H800, memory_bytes=None)
        return max(r.device_bytes for r in memory_by_rank(work, unbound, flying, flying))

    assert most(2 * ep, 2 * pp * ep) <= most(ep, 2 * pp * ep) <= most(ep, pp * ep)
    assert most(ep, wider * pp * ep) <= most(ep, pp * ep)


def test_layers_are_missing_at_the_ends_of_the_model_where_the_pipeline_idles_less_so() -> None:
    model = ModelConfig.model_validate({"preset": "nano", "num_layers": 6, "vocab_size": 128, "num_dense_layers": 1})

    def idle(counts: list[int]) -> float:
        weights = [*counts[:-1], counts[-1] + head_in_layers(model)]
        return simulate(action_table(2, 4, chunks=2), lambda a: weights[a.stage] if a.op.computes else 0.0).bubble

    assert layers_by_chunk(model, 2, 2) == [1, 2, 2, 1]
    assert idle([1, 2, 2, 1]) < 0.75 * idle([2, 2, 1, 1])
    last = layers_by_chunk(K2.model, 16, 4)
    assert [stage for stage, layers in enumerate(last) if layers == 0] == [31, 47, 63], "all of the rank with the head"


@settings(deadline=None)
@given(st.integers(1, 96), st.integers(1, 8), st.integers(1, 4), st.integers(256, 200_000))
def test_every_layer_has_one_place_and_no_rank_two_layers_more_than_a_full_one(
    num_layers: int, pp: int, vpp: int, vocab: int
) -> None:
    model = ModelConfig.model_validate(
        {"preset": "nano", "num_layers": num_layers, "vocab_size": vocab, "num_dense_layers": min(1, num_layers)}
    )
    counts = layers_by_chunk(model, pp, vpp)
    assert sum(counts) == num_layers
    assert max(counts) <= -(-num_layers // (pp * vpp))
    assert min(counts) >= 0
    parallel = ParallelConfig(pp=pp, vpp=vpp)
    if parallel.too_many_stages(num_layers):
        with pytest.raises(ValueError, match=f"stages for {num_layers} layers"):
            layer_ranges(model, parallel)
        return
    ranges = layer_ranges(model, parallel)
    assert [len(layers) for layers in ranges] == counts
    assert [layer for layers in ranges for layer in layers] == list(range(num_layers))
    assert counts[0] > 0
    assert all(any(counts[rank::pp]) for rank in range(pp - 1)), "the last may have the head alone"


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.booleans()
)
def test_no_layout_is_faster_than_its_slowest_rank_nor_idle_below_nothing(
    pp: int, vpp: int, ep: int, rounds: int, offload: bool
) -> None:
    batch = TINY.batch.model_copy(update={"sequences": pp * rounds * ep, "micro_sequences": 1})
    work = replace(TINY.with_parallel(pp=pp, vpp=vpp, ep=ep), ranks=pp * ep, batch=batch)
    step = plan_step(work.with_memory(offload_activations=offload), device_of("local"))
    if isinstance(step, Refused):
        assert pp * (vpp - 1) >= work.model.num_layers
        return
    assert -1e-9 <= step.idle < 1
    assert step.seconds > 0
    assert 0 < step.mfu < 1
    assert all(r.resident_bytes <= r.in_flight_bytes for r in step.ranks)
