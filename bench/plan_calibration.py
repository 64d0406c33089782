"""The planner against this machine: a table of what its operations take, measured, and from that table the same model's step time of every layout
of 2 to 8 processes beside the measured one.

Layouts take turns, the table is measured anew in between, and medians of all are compared: what else the machine does slows both alike. All ranks
have one thread; there are more of them than cores. Those of all layouts stand ready at once, in some 15 GB of memory: fewer `--processes` need less.

    python bench/plan_calibration.py --out plan_calibration.json --table plan_operations.json
    abruzzi plan recipe.toml --calibration plan_operations.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from interleaved import report, summary
from parallel_ranks import LENGTH, MODEL, SEQUENCES, Candidate, Processes, named, parallel_of, setting

from abruzzi.contracts.calibration import Calibration, MeasuredOperation, Operation
from abruzzi.contracts.training import BatchConfig, CheckpointConfig, MemoryConfig, OptimizerConfig
from abruzzi.plan.devices import Device, measured_device
from abruzzi.plan.flops import matrices_of
from abruzzi.plan.layout import Chunk, Workload
from abruzzi.plan.operations import OperationTable, Pass
from abruzzi.plan.rank_memory import states_by_rank
from abruzzi.plan.step import Refused, first_rounds, plan_step
from abruzzi.plan.step_time import optimizer_seconds, pass_seconds, products_of
from abruzzi_jobs.distributed import Layout

LAYOUTS = [
    Layout(dp=2), Layout(ep=2, dp=2), Layout(pp=2), Layout(pp=2, vpp=2),
    Layout(dp=4), Layout(ep=2, dp=4), Layout(ep=4, dp=4), Layout(pp=2, dp=2), Layout(pp=2, vpp=2, dp=2),
    Layout(pp=2, ep=2, dp=2), Layout(pp=2, vpp=2, ep=2, dp=2), Layout(pp=4),
    Layout(ep=8, dp=8), Layout(ep=4, dp=8), Layout(pp=2, ep=2, dp=4), Layout(pp=2, vpp=2, ep=4, dp=4), Layout(pp=4, ep=2, dp=2),
]  # fmt: skip
DRAWN = (Layout(pp=2, vpp=2), Layout(pp=4))
"""Whose timelines are kept, too."""
TARGET = 0.20
_MESSAGES = [1 << 10, 1 << 17, 1 << 19]
_SUMS = [1 << 12, 1 << 20, 1 << 23]
_PARTS = {
    "dense": Chunk(1, 0, False, False), "moe": Chunk(0, 1, False, False),
    "embedding": Chunk(0, 0, True, False), "head": Chunk(0, 0, False, True),
}  # fmt: skip


def main() -> int:
    arguments = _arguments()
    layouts = [layout for layout in LAYOUTS if layout.world_size <= arguments.processes]
    candidates = {layout: Candidate(layout, micro(layout)) for layout in layouts}
    # Of each layout their own: with another's process groups beside it a rank would do more than in a run of its own.
    ready = {layout: Processes([candidates[layout]]) for layout in layouts}
    alone = Processes([Candidate(None, 4)])
    rows: dict[tuple[str, tuple[int, ...]], list[float]] = defaultdict(list)
    crowding: dict[int, list[float]] = defaultdict(list)
    seconds: dict[Layout, list[float]] = {layout: [] for layout in layouts}
    for layout in layouts:
        ready[layout].step(candidates[layout])
    pieces = _pieces(alone, ready, layouts, rows, crowding)
    for index in range(max(2, arguments.rounds)):
        # Between the steps, not before them: the machine's speed is another one half a minute later.
        due = pieces[index % 2 :: 2]
        for position, layout in enumerate(layouts if index % 2 == 0 else reversed(layouts)):
            for measure in due[position * len(due) // len(layouts) : (position + 1) * len(due) // len(layouts)]:
                measure()
            seconds[layout].append(ready[layout].step(candidates[layout]))
    table = _calibration(rows, crowding, layouts)
    if arguments.table is not None:
        arguments.table.write_text(table.model_dump_json(indent=1) + "\n")
    device = measured_device(table)
    found = [_compared(layout, seconds[layout], device) for layout in layouts]
    timelines = {
        named(layout): _timelines(candidates[layout], ready[layout], device) for layout in DRAWN if layout in candidates
    }
    for processes in (*ready.values(), alone):
        processes.close()
    worst = max(abs(one["ratio"] - 1) for one in found)
    result: dict[str, Any] = {
        "bench": "plan_calibration",
        **setting(threads=1),
        "crowding": dict(table.crowding),
        "operations_measured": len(table.operations),
        "layouts": found,
        "median_error": statistics.median(abs(one["ratio"] - 1) for one in found),
        "worst_error": worst,
        "within_target": sum(abs(one["ratio"] - 1) <= TARGET for one in found),
        "of": len(found),
        "target_error": TARGET,
        "timelines": timelines,
        "ok": worst <= TARGET,
    }
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def micro(layout: Layout) -> int:
    """Sequences of a forward pass: four micro-batches a rank; two of 8 data ranks."""
    return max(1, SEQUENCES // layout.dp // 4)


def workload(layout: Layout) -> Workload:
    return Workload(
        model=MODEL,
        optimizer=OptimizerConfig(),
        batch=BatchConfig(sequences=SEQUENCES, micro_sequences=micro(layout), sequence_length=LENGTH),
        parallel=parallel_of(layout),
        memory=MemoryConfig(),
        checkpoint=CheckpointConfig(),
        ranks=layout.world_size,
        phases=(),
    )


def _pieces(
    alone: Processes,
    ready: dict[Layout, Processes],
    layouts: list[Layout],
    rows: dict[Any, list[float]],
    crowding: dict[int, list[float]],
) -> list[Callable[[], None]]:
    """What there is to measure for the table, in pieces of some seconds: each call of one adds to `rows` or `crowding`."""
    counts = sorted({micro(layout) for layout in layouts})
    tokens = [count * LENGTH for count in counts]
    products = products_of(MODEL)
    plain = {*products.attention, *products.dense, *products.moe, *products.head}
    shapes = {
        shape
        for T in tokens
        for k, n in plain
        for shape in ((T, k, n), (T, n, k), (k, T, n))
    }  # fmt: skip
    routed = [T * MODEL.num_experts_per_token for T in tokens]
    experts = {
        shape
        for R in routed
        for ep in sorted({layout.ep for layout in layouts})
        for k, n in products.expert
        for shape in ((R, MODEL.num_experts // ep, k, n), (R, MODEL.num_experts // ep, n, k))
    }
    key = MODEL.qk_nope_head_dim + MODEL.qk_rope_head_dim
    attention = [[count, LENGTH, MODEL.num_heads, key, MODEL.v_head_dim] for count in counts]
    shapes_of = matrices_of(MODEL)
    dense = {tuple(sorted(shape)) for shape in (*shapes_of.attention, *shapes_of.router, *shapes_of.dense)}
    expert = {tuple(sorted(shape)) for shape in shapes_of.expert}
    matrices = [[1, *shape] for shape in sorted(dense)]
    matrices += [
        [count, *shape] for count in (1, MODEL.num_experts // 2, MODEL.num_experts) for shape in sorted(expert)
    ]
    steps = OptimizerConfig().newton_schulz_steps
    of_world = {layout.world_size: ready[layout] for layout in layouts}
    few, many = of_world[min(of_world)], of_world[max(of_world)]
    asked = [
        partial(alone.tell, "products", sorted(map(list, shapes))),
        partial(alone.tell, "grouped", sorted(map(list, experts))),
        partial(alone.tell, "attention", attention),
        partial(alone.tell, "layers", counts, LENGTH),
        partial(alone.tell, "optimizer", matrices, steps),
        *(partial(processes.tell, "exchange", counts, LENGTH) for processes in of_world.values()),
        *(partial(_of_the_first, processes, "sums", _SUMS) for processes in of_world.values()),
        partial(_of_the_first, few, "messages", _MESSAGES, only=2),
    ]

    def note(ask: Callable[[], list[Any]]) -> None:
        for op, shape, taken in (row for answer in ask() for row in answer):
            rows[op, tuple(shape)].append(taken)

    def crowd(count: int) -> None:
        # Beside one alone just before and after: the machine's speed is another one a minute later.
        def each(only: int, seconds: float) -> float:
            return statistics.mean(many.tell("crowd", 2, LENGTH, seconds, only=only))

        before, crowded, after = each(1, 1.0), each(count, 3.0), each(1, 1.0)
        crowding[count].append(2 * crowded / (before + after))

    return [*(partial(note, ask) for ask in asked), *(partial(crowd, count) for count in range(2, many.world + 1))]


def _of_the_first(processes: Processes, command: str, *given: Any, only: int | None = None) -> list[Any]:
    """What all do together, told by the first rank."""
    return processes.tell(command, *given, only=only)[:1]


def _calibration(rows: dict[Any, list[float]], crowding: dict[int, list[float]], layouts: list[Layout]) -> Calibration:
    """Of layers, what their products and attention do not take; of layers whose experts are shared, what those with their own do not take; of an update, what
    Newton-Schulz does not take: the rest."""
    medians = {key: statistics.median(values) for key, values in rows.items()}
    common = {
        "version": 1,
        "machine": f"{os.cpu_count()} CPU cores",
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "crowding": ((1, 1.0), *((count, statistics.median(values)) for count, values in sorted(crowding.items()))),
    }
    of_layers = {key: seconds for key, seconds in medians.items() if key[0].partition("_")[0] in _PARTS}
    whole = {key for key in medians if key[0].startswith("all_to_all") or key[0] == "update"}
    counted = {key: 0.0 if key in of_layers or key in whole else seconds for key, seconds in medians.items()}
    device = measured_device(_table(common, counted))
    for (op, shape), seconds in of_layers.items():
        part, _, step = op.partition("_")
        unshared = _of_tokens(shape[0], layouts).with_parallel(pp=1, vpp=1, ep=1)
        counted[op, shape] = seconds - pass_seconds(unshared, device, _PARTS[part], step)  # type: ignore[arg-type]
    device = measured_device(_table(common, counted))
    table = device.operations
    assert isinstance(table, OperationTable)
    for op, shape in whole:
        if op == "update":
            one = workload(Layout())
            taken = optimizer_seconds(one, device, states_by_rank(one), on_host=False).newton_schulz
            counted[op, shape] = medians[op, shape] - taken
            continue
        ranks, tokens, _ = shape
        own = _of_tokens(tokens, layouts).with_parallel(pp=1, vpp=1, ep=ranks)
        steps: tuple[Pass, ...] = ("input_gradient", "weight_gradient") if "gradient" in op else ("forward",)
        unshared_s = sum(pass_seconds(own, device, _PARTS["moe"], step) for step in steps)
        if op.endswith("_work"):  # a processor's second does less where it shares caches with others
            counted[op, shape] = medians[op, shape] * table.speed(min(ranks, table.cores)) - unshared_s
        else:
            counted[op, shape] = medians[op, shape] - unshared_s / table.speed(ranks)
    return _table(common, counted)


def _of_tokens(tokens: int, layouts: list[Layout]) -> Workload:
    """With micro-batches of so many."""
    return next(workload(layout) for layout in layouts if micro(layout) * LENGTH == tokens)


def _table(common: dict[str, Any], seconds: dict[Any, float]) -> Calibration:
    operations = tuple(
        MeasuredOperation(op=Operation(op), shape=shape, seconds=value)
        for (op, shape), value in sorted(seconds.items())
    )
    return Calibration(**common, operations=operations)


def _compared(layout: Layout, seconds: list[float], device: Device) -> dict[str, Any]:
    step = plan_step(workload(layout), device)
    assert not isinstance(step, Refused), step
    measured = summary(seconds)
    return {
        "layout": named(layout),
        "processes": layout.world_size,
        "measured": measured,
        "predicted_s": step.seconds,
        "predicted_pipeline_s": step.pipeline_seconds,
        "predicted_newton_schulz_s": step.optimizer.newton_schulz,
        "predicted_sums_s": step.optimizer.gradients,
        "predicted_update_s": step.optimizer.update,
        "ratio": step.seconds / measured["median_s"],
    }


def _timelines(candidate: Candidate, processes: Processes, device: Device) -> dict[str, Any]:
    """Planned, and measured of the first data rank: of each pipeline rank `2F3 0.0151 0.0349` for stage 2, micro-batch 3, from and to in seconds since
    the first forward."""
    layout = candidate.layout
    assert layout is not None
    _, run = first_rounds(workload(layout), device, SEQUENCES)
    planned = [
        [(s.action.op.value, s.action.stage, s.action.microbatch, s.start, s.end) for s in of] for of in run.spans
    ]
    processes.step(candidate)
    spans = processes.tell("spans", candidate.name)[:: layout.dp]
    measured = [[span for span in of if span[0] in ("F", "I", "W")] for of in spans]
    began = min(span[3] for of in measured for span in of)
    return {"planned": _written(planned, 0.0), "measured": _written(measured, began)}


def _written(ranks: Sequence[Sequence[Sequence[Any]]], began: float) -> list[list[str]]:
    return [
        [f"{stage}{op}{m} {start - began:.4f} {end - began:.4f}" for op, stage, m, start, end in of] for of in ranks
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6, help="Two at least: half of the table in each.")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
