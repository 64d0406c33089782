"""Any layout of pipeline, expert and data-parallel ranks follows one process: losses, clipped heads, expert bias, statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_processes import run_ranks

from abruzzi.contracts.training import ModelConfig as ContractModel
from abruzzi.contracts.training import ParallelConfig
from abruzzi.plan.layout import layer_ranges
from abruzzi_jobs.distributed import Layout
from abruzzi_jobs.models import ModelConfig

pytestmark = pytest.mark.parity
WORKER = Path(__file__).parent / "mesh_worker.py"
STEPS = 20

EVERY = [
    Layout(dp=2), Layout(ep=2, dp=2), Layout(pp=2), Layout(pp=2, vpp=2),
    Layout(dp=4), Layout(ep=2, dp=4), Layout(ep=4, dp=4), Layout(pp=2, dp=2), Layout(pp=2, vpp=2, dp=2),
    Layout(pp=2, ep=2, dp=2), Layout(pp=2, vpp=2, ep=2, dp=2), Layout(pp=4),
    Layout(ep=8, dp=8), Layout(ep=4, dp=8), Layout(pp=2, ep=2, dp=4), Layout(pp=2, vpp=2, ep=4, dp=4), Layout(pp=4, ep=2, dp=2),
]  # fmt: skip
"""On 2, 4 and 8 processes."""


def named(layout: Layout) -> str:
    return f"pp{layout.pp}-vpp{layout.vpp}-ep{layout.ep}-dp{layout.dp}"


def train(
    directory: Path, layout: Layout | None, *, dtype: str = "float32", steps: int = STEPS
) -> list[dict[str, Any]]:
    name, world_size = ("alone", 1) if layout is None else (named(layout), layout.world_size)
    keys = ("pp", "vpp", "ep", "dp")
    given = "alone" if layout is None else json.dumps({key: getattr(layout, key) for key in keys})
    run_ranks(WORKER, str(directory), name, given, dtype, str(steps), world_size=world_size)
    return [json.loads((directory / f"{name}-rank-{rank}.json").read_text()) for rank in range(world_size)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers, one dense, eight experts, of which a token takes three: several of them on one rank."""
    return with_model(tmp_path_factory.mktemp("layouts"))


def with_model(path: Path, **changes: int) -> Path:
    config = ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=6, num_heads=2, q_lora_rank=16, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16,
        num_experts=8, num_experts_per_token=3, max_position=64, init_std=0.05,
    )  # fmt: skip
    (path / "model.json").write_text(json.dumps({**config.to_dict(), **changes}))
    return path


@pytest.fixture(scope="module")
def one(directory: Path) -> dict[str, Any]:
    return train(directory, None)[0]


def assert_follows(one: dict[str, Any], ranks: list[dict[str, Any]], *, tolerance: float) -> None:
    assert all(rank["history"] == ranks[0]["history"] for rank in ranks)
    assert sum(step["clip"]["clipped_heads"] for step in one["history"]) > 0
    assert one["history"][-1]["loss"] < one["history"][0]["loss"]
    for alone, together in zip(one["history"], ranks[0]["history"], strict=True):
        for key in ("loss", "aux", "bits"):
            assert together[key] == pytest.approx(alone[key], rel=tolerance), key
        assert together["norm"] == pytest.approx(alone["norm"], rel=20 * tolerance)
        np.testing.assert_allclose(together["max_logit"], alone["max_logit"], rtol=20 * tolerance)
        assert together["counts"] == alone["counts"]
        assert together["clip"]["clipped_heads_per_layer"] == alone["clip"]["clipped_heads_per_layer"]
    assert {key: value for rank in ranks for key, value in rank["bias"].items()} == one["bias"]
    for rank in ranks:
        np.testing.assert_allclose(rank["held_out"], one["held_out"], rtol=tolerance)
        assert rank["statistics"] == {
            key: pytest.approx(value, rel=20 * tolerance) for key, value in one["statistics"].items()
        }
        for layer, sides in one["spectra"].items():
            for side, values in sides.items():
                assert rank["spectra"][layer][side] == pytest.approx(values, rel=100 * tolerance)


@pytest.mark.parametrize("layout", [Layout(pp=2, vpp=2), Layout(pp=2, ep=2, dp=2)], ids=named)
def test_two_and_four_ranks_follow_one(directory: Path, one: dict[str, Any], layout: Layout) -> None:
    assert_follows(one, train(directory, layout), tolerance=1e-5)


def test_stages_without_layers_pass_on_what_they_get(tmp_path: Path) -> None:
    """A head that is worth more than a layer: of the six stages of four layers the third has none, and the last has the head alone, as of K2's 64
    stages the last has."""
    directory = with_model(tmp_path, num_layers=4, vocab_size=1024)
    model = ContractModel.model_validate(json.loads((directory / "model.json").read_text()))
    assert [len(layers) for layers in layer_ranges(model, ParallelConfig(pp=3, vpp=2))] == [1, 1, 0, 1, 1, 0]
    one = train(directory, None, steps=6)[0]
    assert_follows(one, train(directory, Layout(pp=3, vpp=2), steps=6), tolerance=1e-5)


@pytest.mark.prove
@pytest.mark.parametrize("layout", EVERY, ids=named)
def test_every_layout_follows_one_process(directory: Path, one: dict[str, Any], layout: Layout) -> None:
    assert_follows(one, train(directory, layout), tolerance=1e-5)
