"""The planner's report: one recipe on several widths beside what the paper says. Markdown, by `python -m abruzzi.plan.report RECIPE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from abruzzi.contracts.recipe import PretrainStage, Recipe
from abruzzi.contracts.toml import load_recipe
from abruzzi.plan.devices import device_of
from abruzzi.plan.planner import plan_recipe, workload_of
from abruzzi.plan.scale import PlanOptions
from abruzzi.plan.step import StepPlan, idle_by_cause, plan_step
from abruzzi.plan.step_time import stage_seconds

WIDTHS = (32, 64, 256)
"""Nodes of 8 GPUs."""


def report(recipe_toml: str, *, stage: str = "pretrain") -> str:
    recipe = load_recipe(recipe_toml)
    plans = [_training(plan_recipe(recipe, options=PlanOptions(nodes=nodes)), stage) for nodes in WIDTHS]
    between = _training(plan_recipe(recipe, options=PlanOptions(nodes=40)), stage)
    first = plans[0]
    lines = [
        f"# The plan of {recipe.name} on 32, 64 and 256 nodes of 8 {first['assumptions']['device']}",
        "",
        "Written by `python -m abruzzi.plan.report recipes/k2.toml`; a test holds it to the code. `abruzzi plan recipes/k2.toml --nodes 64 --sweep` and the page Plan show the same, with every rank and a picture of the schedule.",
        "",
        f"Nothing here is measured. Each GPU: {first['assumptions']['peak_flops'] / 1e12:.0f} TFLOP/s ({first['assumptions']['source']}). Assumed rates:",
        "",
        *_rates(first["assumptions"]),
        "",
        *_table("", [f"{nodes} nodes" for nodes in WIDTHS], [_row(plan) for plan in plans]),
        "",
        "## Beside the paper",
        "",
        "| the paper (2.4, 2.5) | the plan |",
        "|---|---|",
        *[f"| {said} | {found} |" for said, found in _statements(plans, between)],
        "",
        "## Where the ranks idle, 32 nodes",
        "",
        *_idle(recipe, stage),
        "",
        "## By pipeline rank, 32 nodes",
        "",
        *_ranks(first["layout"]),
        "",
    ]
    return "\n".join(lines)


def _training(plan: dict[str, Any], stage: str) -> dict[str, Any]:
    return next(s["training"] for s in plan["stages"] if s["id"] == stage)


def _rates(assumed: dict[str, Any]) -> list[str]:
    peak = assumed["peak_flops"]
    computes = ("matmul", "grouped_matmul", "attention", "newton_schulz")
    shares = ", ".join(f"{name.replace('_', ' ')} {assumed['rates'][name] / peak:.0%} of the peak" for name in computes)
    ways = ", ".join(
        f"{name.replace('_', ' ')} {rate / 1e9:,.1f} GB/s"
        for name, rate in assumed["rates"].items()
        if name not in computes
    )
    return [f"- {shares}", f"- {ways}"]


def _row(training: dict[str, Any]) -> dict[str, str]:
    layout = training["layout"]
    step, total, ranks, kept = layout["step"], layout["total"], layout["by_rank"], layout["activations"]
    fullest = max(ranks, key=lambda r: r["device_bytes"])
    return {
        "layout": f"PP {layout['pp']} x {layout['vpp']}, EP {layout['ep']}, EDP {layout['edp']}",
        "micro-batches a step": f"{layout['microbatches']:,} of {layout['micro_tokens']:,} tokens",
        "states on a middle rank": f"{ranks[len(ranks) // 2]['state_bytes'] / 1e9:.1f} GB",
        "optimizer a rank": f"{max(r['optimizer_bytes'] for r in ranks) / 1e9:.1f} GB, on the {fullest['optimizer_on']}",
        "in flight on rank 0": f"{ranks[0]['in_flight_chunks']} chunks, {ranks[0]['in_flight_bytes'] / 1e9:.0f} GB",
        "of them on the GPU": f"{ranks[0]['resident_bytes'] / 1e9:.1f} GB",
        "memory of the fullest GPU": f"{fullest['device_bytes'] / 1e9:.1f} of {training['assumptions']['memory_bytes'] / 1e9:.0f} GB",
        "host memory of a node": f"{8 * max(r['host_bytes'] for r in ranks) / 1e9:,.0f} GB",
        "offload each way": f"{kept['offload_bytes_per_second'] / 1e9:.1f} of {training['assumptions']['rates']['host_copy'] / 1e9:.0f} GB/s",
        "all-to-all, of what hides it": f"{step['all_to_all_share']:.0%}",
        "bubble": f"{step['bubble']:.1%}",
        "idle as simulated": f"{step['idle']:.1%}",
        "Newton-Schulz": f"{step['optimizer']['newton_schulz']:.2f} s",
        "optimizer step": f"{step['optimizer']['seconds']:.2f} s",
        "step": f"{step['seconds']:.1f} s",
        "tokens/s a GPU": f"{step['tokens_per_second_per_rank']:,.0f}",
        "MFU": f"{step['mfu']:.1%}",
        "checkpoint": f"{step['checkpoint']['bytes'] / 1e12:.1f} TB, stall {step['checkpoint']['stall_seconds']:.2f} s",
        "days": f"{total['days']:,.0f}",
        "GPU-hours": f"{total['gpu_hours'] / 1e6:.2f} M",
    }


def _table(corner: str, columns: list[str], rows: list[dict[str, str]]) -> list[str]:
    head = [f"| {corner} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return head + [f"| {name} | {' | '.join(row[name] for row in rows)} |" for name in rows[0]]


def _statements(plans: list[dict[str, Any]], between: dict[str, Any]) -> list[tuple[str, str]]:
    small, large = plans[0], plans[-1]
    layout, kept = small["layout"], small["layout"]["activations"]
    all_states = 6 * small["parameters"]["total"] / 1e12
    middle = layout["by_rank"][len(layout["by_rank"]) // 2]
    main = small["tokens_per_step"]
    return [
        ("a multiple of 32 nodes", between["layout"]["refusals"][0]),
        ("parameters in BF16 and gradients in FP32 take about 6 TB over 256 GPUs", f"{all_states:.2f} TB"),
        ("about 30 GB of states a GPU", f"{middle['state_bytes'] / 1e9:.1f} GB on a middle rank, {layout['by_rank'][0]['state_bytes'] / 1e9:.1f} GB on the first"),
        ("the optimizer is offloaded to the CPU at 32 nodes", f"on the {middle['optimizer_on']} at 32 nodes, on the {large['layout']['by_rank'][8]['optimizer_on']} at 256"),
        ("the first stages are the peak of activations", f"rank 0 has {layout['by_rank'][0]['in_flight_bytes'] / 1e9:.0f} GB in flight, the last {layout['by_rank'][-1]['in_flight_bytes'] / 1e9:.0f} GB"),
        ("recompute, FP8 storage and offload of what remains", f"{kept['bytes_per_token_layer'] / 1024:.0f} KiB a token and layer instead of {kept['bytes_per_token_layer_kept'] / 1024:.0f}; {layout['by_rank'][0]['resident_bytes'] / 1e9:.1f} GB stay on the GPU"),
        ("EP communication hides under compute with one more warm-up", f"all-to-alls fill {layout['step']['all_to_all_share']:.0%} of the compute, {layout['extra_warmup']} more forward before the first backward"),
        ("67M tokens a batch at 4k", f"16384 x 4096 = {main:,}"),
        ("15.5T tokens", f"{15_500_000_000_000 // main:,} steps, and {small['steps'] - 15_500_000_000_000 // main:,} of annealing"),
        ("1.04T parameters, 32.6B active", f"{small['parameters']['total'] / 1e9:.1f}B, {small['parameters']['active'] / 1e9:.2f}B by the published configuration; {small['flops_per_token'] / 1e9:.1f} GFLOP a token"),
        ("Muon's cost (not in the report)", f"Newton-Schulz {small['newton_schulz_share']:.2%} of a step's FLOPs"),
    ]  # fmt: skip


def _idle(recipe: Recipe, stage: str) -> list[str]:
    trained = recipe.stage_by_id(stage)
    assert isinstance(trained, PretrainStage)
    device = device_of(trained.resources.pool)
    work = workload_of(trained, trained.model, ranks=WIDTHS[0] * device.ranks_per_node)
    causes = idle_by_cause(work, device)
    halved = work.with_parallel(vpp=work.parallel.vpp // 2)
    fewer = plan_step(halved, device)
    assert isinstance(fewer, StepPlan)
    stages = stage_seconds(work, device)
    head, layer = (s.forward + s.input_gradient + s.weight_gradient for s in (stages[-1], stages[len(stages) // 2]))
    return [
        f"The head takes {head / layer:.2f} times as long as a layer, and it cannot be cut in layers. Its rank has fewer of them, so no rank has more to do than it can; but of "
        f"{work.parallel.vpp} chunks a rank one is the head, and with as much warm-up as the schedule has, all others wait for it once a round.",
        "",
        "| the same step, if there were | idle |",
        "|---|---|",
        *[f"| {name} | {share:.1%} |" for name, share in causes],
        f"| {halved.parallel.vpp} chunks a rank, of twice the layers | {fewer.idle:.1%} |",
        "",
        f"With {halved.parallel.vpp} chunks the head is about as long as the others' chunks: {fewer.seconds:.0f} s a step, at {fewer.ranks[0].in_flight_bytes / 1e9:.0f} GB in flight on rank 0. "
        "How many chunks K2 had is not in the report (paper 2.4).",
    ]


def _ranks(layout: dict[str, Any]) -> list[str]:
    rows = [
        {
            "layers": " + ".join(str(n) for n in r["layers"]),
            "parameters": f"{r['parameters'] / 1e9:.2f}B",
            "states": f"{r['state_bytes'] / 1e9:.1f} GB",
            "optimizer": f"{r['optimizer_bytes'] / 1e9:.1f} GB",
            "in flight": f"{r['in_flight_chunks']} = {r['in_flight_bytes'] / 1e9:.1f} GB",
            "GPU": f"{r['device_bytes'] / 1e9:.1f} GB",
            "host": f"{r['host_bytes'] / 1e9:.1f} GB",
        }
        for r in layout["by_rank"]
    ]
    head = ["PP rank", *rows[0]]
    found = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return found + [f"| {rank} | {' | '.join(row.values())} |" for rank, row in enumerate(rows)]


if __name__ == "__main__":
    sys.stdout.write(report(Path(sys.argv[1]).read_text()))
