"""The stage `pretrain` under a memory policy: what a recipe says is executed, and its losses stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_lab import Lab

STEPS = 6
EXACT: dict[str, Any] = {
    "recompute": ["layernorm", "swiglu", "mla_up_projection", "moe_down_projection"],
    "offload_activations": True,
}


def changes(memory: dict[str, Any], ranks: int = 1, **parallel: int) -> dict[str, Any]:
    return {
        "model": {"num_layers": 4},
        "schedule": {"tokens": STEPS * 256},
        "memory": memory,
        "parallel": parallel,
        "resources": {"ranks": ranks},
    }


def test_losses_of_recompute_and_offload_are_those_of_keeping_to_the_bit_on_one_rank_and_in_a_pipeline(
    tmp_path: Path,
) -> None:
    losses: list[Any] = []
    for memory in ({}, EXACT):
        for ranks, parallel in ((1, {}), (2, {"pp": 2, "vpp": 2})):
            folder = tmp_path / f"{len(losses)}"
            lab = Lab(folder, dataset=tmp_path / "0" / "dataset" if losses else None)
            run = lab.run(lab.spec(changes(memory, ranks, **parallel)))
            points = run.points()
            losses.append(points["train/loss"])
            if memory:
                stored = {
                    place: next(iter(points[f"memory/activations_{place}_bytes"].values()))
                    for place in ("device", "host", "plain")
                }
                assert stored["host"] > 0
                assert stored["device"] + stored["host"] < stored["plain"] * 0.7
                assert "activations of a micro-batch:" in run.log()
    assert len(losses[0]) == STEPS
    assert losses[2] == losses[0]
    assert losses[3] == losses[1]
