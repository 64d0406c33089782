"""A machine's measured table in place of a device's rates: what is looked up how, ranks on shared cores, and `abruzzi plan --calibration`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from abruzzi.cli.main import app
from abruzzi.contracts.calibration import Calibration, MeasuredOperation, Operation
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.plan.devices import Device, device_of, measured_device
from abruzzi.plan.layout import Workload
from abruzzi.plan.operations import ByRates, OperationTable
from abruzzi.plan.pipeline import Action, Costs, Op, ScheduleError, action_table, simulate, simulate_shared
from abruzzi.plan.step import StepPlan, plan_step

RECIPES = Path(__file__).parents[3] / "recipes"
LAYER_PASSES = [
    Operation(f"{part}_{step}")
    for part in ("dense", "moe", "embedding", "head")
    for step in ("forward", "input_gradient", "weight_gradient")
]


def calibration(**changes: Any) -> Calibration:
    """Two cores, a GFLOP/s each, nothing beyond products and attention."""
    rows: list[tuple[Operation, tuple[int, ...], float]] = [
        (Operation.MATMUL, (100, 100, 100), 2e-3),
        (Operation.GROUPED_MATMUL, (100, 4, 100, 100), 2e-3),
        (Operation.ATTENTION, (1, 100, 1, 50, 50), 1e-3),
        (Operation.ATTENTION_GRADIENT, (1, 100, 1, 50, 50), 2e-3),
        (Operation.MESSAGE, (1000,), 1e-4),
        (Operation.MESSAGE, (2000,), 1.5e-4),
        (Operation.ALL_TO_ALL, (2, 100, 64), 1e-3),
        (Operation.ALL_TO_ALL_GRADIENT, (2, 100, 64), 1e-3),
        (Operation.ALL_TO_ALL_WORK, (2, 100, 64), 2e-4),
        (Operation.ALL_TO_ALL_GRADIENT_WORK, (2, 100, 64), 2e-4),
        (Operation.REDUCE, (2, 1000), 1e-4),
        (Operation.BROADCAST, (2, 1000), 1e-4),
        (Operation.NEWTON_SCHULZ, (1, 100, 100, 5), 5 * 6e-3),
        (Operation.UPDATE, (1000,), 1e-5),
        (Operation.STEP, (2,), 1e-3),
        *((op, (100, 64), 0.0) for op in LAYER_PASSES),
    ]
    made = {
        "version": 1, "machine": "two cores", "cores": 2, "crowding": ((1, 1.0), (2, 1.0), (4, 0.5)), "memory_bytes": 10**10,
        "operations": tuple(MeasuredOperation(op=op, shape=shape, seconds=seconds) for op, shape, seconds in rows),
    }  # fmt: skip
    return Calibration(**{**made, **changes})


def tiny(pp: int, vpp: int, ep: int, dp: int) -> Workload:
    stage = load_recipe((RECIPES / "tiny.toml").read_text()).stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    work = Workload(
        model=stage.model, optimizer=stage.optimizer, batch=stage.batch.model_copy(update={"sequences": 8, "micro_sequences": 1}),
        parallel=stage.parallel, memory=stage.memory, checkpoint=stage.checkpoint, ranks=pp * dp, phases=(),
    )  # fmt: skip
    return work.with_parallel(pp=pp, vpp=vpp, ep=ep)


def planned(work: Workload, device: Device) -> StepPlan:
    step = plan_step(work, device)
    assert isinstance(step, StepPlan), step
    return step


def test_a_measured_shape_is_taken_as_it_is_and_others_by_the_nearest_ones_rate() -> None:
    table = OperationTable(
        ((Operation.MATMUL, (8, 8, 8), 1.0), (Operation.MATMUL, (1000, 1000, 1000), 7.0)), crowding=((1, 1.0),)
    )
    assert table.matmul(8, 8, 8) == 1.0
    assert table.matmul(8, 8, 16) == pytest.approx(2.0)
    assert table.matmul(1000, 500, 1000) == pytest.approx(3.5)


def test_what_grows_with_size_lies_on_the_line_through_two_measured_sizes() -> None:
    table = OperationTable.of(calibration())
    assert table.sized(Operation.MESSAGE, 1500) == pytest.approx(1.25e-4)
    assert table.sized(Operation.MESSAGE, 4000) == pytest.approx(2.5e-4)
    assert table.sized(Operation.REDUCE, 2000, ranks=4) == pytest.approx(2e-4)


def test_more_processes_than_were_measured_share_what_the_most_had() -> None:
    table = OperationTable.of(calibration())
    assert [table.speed(count) for count in (1, 2, 3, 4, 8)] == pytest.approx([1.0, 1.0, 2 / 3, 0.5, 0.25])


def test_a_table_that_lacks_an_operation_says_which() -> None:
    with pytest.raises(ValueError, match="has no all_to_all: measure it again"):
        OperationTable((), crowding=((1, 1.0),)).sized(Operation.ALL_TO_ALL, 1, ranks=2)


def test_a_table_of_constant_rates_says_of_a_layers_products_what_the_rates_say() -> None:
    measured = measured_device(calibration())
    rates = replace(measured.rates, matmul=1e9, grouped_matmul=1e9)
    assert measured.table is not None
    for shape in ((7, 30, 5), (512, 64, 2048)):
        assert measured.table.matmul(*shape) == pytest.approx(ByRates(rates).matmul(*shape))
    assert measured.peak_flops == pytest.approx(1e9)


def one_core(processes: int) -> float:
    return 1 / processes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_ranks_on_one_core_are_never_idle_and_take_what_all_their_work_takes(
    ranks: int, chunks: int, rounds: int, copies: int
) -> None:
    table = action_table(ranks, ranks * rounds, chunks=chunks)
    run = simulate_shared(table, Costs(), copies=copies, speed=one_core)
    assert run.makespan == pytest.approx(copies * 3 * ranks * chunks * ranks * rounds)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, 0.25]))
def test_ranks_with_a_core_each_are_as_fast_as_the_planners_simulator_says(
    ranks: int, chunks: int, rounds: int, send: float
) -> None:
    table = action_table(ranks, ranks * rounds, chunks=chunks)
    cost = Costs(forward=1.0, input_gradient=1.5, weight_gradient=0.5, send=send)
    shared = simulate_shared(table, cost, copies=1, speed=lambda processes: 1.0)
    alone = simulate(table, cost)
    assert shared.makespan == pytest.approx(alone.makespan)
    assert shared.in_flight == alone.in_flight


def test_ranks_that_wait_for_each_other_and_what_runs_beside_compute_are_refused() -> None:
    with pytest.raises(ScheduleError, match="wait for each other: rank 1 at 1F0"):
        simulate_shared([[], [Action(Op.F, 1, 0)]], Costs(), copies=1, speed=one_core)
    with pytest.raises(ScheduleError, match="nothing runs beside compute"):
        simulate_shared(action_table(2, 2, all_to_all=True), Costs(), copies=1, speed=one_core)


def test_two_ranks_on_two_cores_halve_a_step_and_four_do_not_shorten_it_further() -> None:
    device = measured_device(calibration())
    alone, two, four = (planned(tiny(1, 1, 1, dp), device).pipeline_seconds for dp in (1, 2, 4))
    assert two == pytest.approx(alone / 2)
    assert four == pytest.approx(two)


def test_an_exchange_of_experts_is_a_part_of_forward_and_backward() -> None:
    device = measured_device(calibration())
    plain, shared = planned(tiny(1, 1, 1, 2), device), planned(tiny(1, 1, 2, 2), device)
    assert shared.pipeline_seconds > plain.pipeline_seconds
    assert planned(tiny(2, 2, 2, 2), device).idle >= -1e-9


def test_while_ranks_wait_for_each_others_tokens_the_cores_are_others() -> None:
    """Two ranks on two cores wait, of four the others compute: only what keeps a processor busy counts."""
    device = measured_device(calibration())

    def added(ranks: int) -> float:
        return (
            planned(tiny(1, 1, 2, ranks), device).pipeline_seconds
            - planned(tiny(1, 1, 1, ranks), device).pipeline_seconds
        )

    def exchanges(ranks: int) -> float:
        work = tiny(1, 1, 2, ranks)
        layers = work.model.num_layers - work.model.num_dense_layers
        return 2 * layers * work.microbatches * work.micro_tokens / 100

    assert added(2) == pytest.approx(exchanges(2) * 1e-3)
    assert added(4) == pytest.approx(exchanges(4) * 2 * 2e-4)


def test_the_command_plans_as_on_the_measured_machine(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(calibration().model_dump_json())
    words = ["plan", str(RECIPES / "tiny.toml"), "--calibration", str(file), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    training = next(s["training"] for s in json.loads(result.stdout)["stages"] if s["id"] == "pretrain")
    assert training["assumptions"]["device"] == "two cores"
    assert training["assumptions"]["source"].startswith("27 operations measured on 2 cores")
    by_rates = CliRunner().invoke(app, words[:2] + words[-1:])
    assert json.loads(by_rates.stdout)["stages"] != json.loads(result.stdout)["stages"]
    assert device_of("local").table is None


def test_a_file_that_is_no_table_is_refused_by_name_and_place(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text('{"version": 1}')
    result = CliRunner().invoke(app, ["plan", str(RECIPES / "tiny.toml"), "--calibration", str(file)])
    assert result.exit_code != 0
    assert "is no table of operations: machine: Field required" in str(result.exception or result.output)
